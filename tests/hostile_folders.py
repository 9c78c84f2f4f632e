"""Folders that want more than to be read: ``python -m tests.hostile_folders SCRATCH``.

Each is opened under an audit hook that counts what data has no business to do: run code of the
folder, start processes, open connections, load libraries, unpickle, write.  A line for each tells
how it ended and what was counted.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FORBIDDEN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile"),
    *("socket.", "urllib.Request", "http.client.", "ctypes.dlopen", "pickle.find_class"),
    *(
        "marshal.loads",
        "os.remove",
        "os.rename",
        "os.chmod",
        "os.mkdir",
        "os.symlink",
        "os.truncate",
    ),
)


class Evil:
    def __reduce__(self):
        return os.system, ("touch RAN",)


Spoil = Callable[[Path], object]


def config(folder: Path, **change: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def header(folder: Path, told: bytes, size: int | None = None) -> None:
    """A file of weights that begins so."""
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size or len(told)) + told)


def index(folder: Path, file: str) -> None:
    (folder / "model.safetensors").unlink()
    listed = {"weight_map": {"lm_head.weight": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))


def code(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("raise SystemExit('RAN')\n")
    (folder / "__init__.py").write_text("raise SystemExit('RAN')\n")
    (folder / "setup.py").write_text("raise SystemExit('RAN')\n")


def beside(folder: Path) -> None:
    """Pickles that lie beside good weights are not looked at."""
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Evil()))


def instead(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    beside(folder)


def linked(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")


def circle(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")


def fifo(folder: Path) -> None:
    """Opening it would wait for ever."""
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def asking(folder: Path) -> None:
    code(folder)
    config(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


def tokenizing(folder: Path) -> None:
    code(folder)
    told = {"auto_map": {"AutoTokenizer": ["modeling_evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content)


FLAT = '{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,%s]}}'
CORPUS: dict[str, Spoil] = {
    "code beside": code,
    "auto_map": asking,
    "custom_pipelines": lambda f: config(f, custom_pipelines={"x": {"impl": "modeling_evil.Evil"}}),
    "trust_remote_code": lambda f: (code(f), config(f, trust_remote_code=True)),
    "pickles beside": beside,
    "pickles instead": instead,
    "a path upwards in the index": lambda f: index(f, "../model.safetensors"),
    "an absolute path in the index": lambda f: index(f, "/etc/passwd"),
    "a url in the index": lambda f: index(f, "https://example.org/model.safetensors"),
    "a null byte in the index": lambda f: index(f, "model\x00.safetensors"),
    "weights that are a link outwards": linked,
    "a config that links to itself": circle,
    "a config that is a pipe": fifo,
    "a header of 2^63 bytes": lambda f: header(f, b"{}", 2**63),
    "a header that is not JSON": lambda f: header(f, b"__import__('os').system('touch RAN')"),
    "a shape that overflows": lambda f: header(f, (FLAT % (2**62, 4)).encode()),
    "offsets past the end": lambda f: header(f, (FLAT % (4, 2**40)).encode()),
    "a shape below 0": lambda f: header(f, (FLAT % (-1, 4)).encode()),
    "NaN in the config": text("config.json", '{"model_type": "llama", "hidden_size": NaN}'),
    "Infinity in the config": text("config.json", '{"model_type": "llama", "rope_theta": 1e999}'),
    "a config nested without end": text("config.json", "[" * 200_000),
    "a key twice": text("config.json", '{"model_type": "llama", "model_type": "gpt2"}'),
    "a number of 5,000 digits": text("config.json", f'{{"n": {"9" * 5000}}}'),
    "no object": text("config.json", '"llama"'),
    "an architecture that is a dict": lambda f: config(f, architectures={"a": 1}),
    "a model type that is a path": lambda f: config(f, model_type="../../etc/passwd"),
    "a model type that is a list": lambda f: config(f, model_type=["llama"]),
    "a formula for a size": lambda f: config(f, hidden_size="__import__('os').system('touch RAN')"),
    "YAML in a word": lambda f: config(f, hidden_act="!!python/object/apply:os.system ['ls']"),
    "sizes that no machine holds": lambda f: config(f, hidden_size=2**40, head_dim=2**20),
    "a million layers": lambda f: config(f, num_hidden_layers=1_000_000),
    "a tokenizer that is no JSON": text("tokenizer.json", "import os; os.system('touch RAN')"),
    "a tokenizer of code": tokenizing,
}  # fmt: skip


def watched(folder: Path, act: Callable[[], object]) -> tuple[str, list[str]]:
    """How an action ends, and what it did that it should not."""
    from builder.errors import BuilderError

    counted: list[str] = []

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event.startswith(FORBIDDEN):
            counted.append(event)
        if event in ("exec", "compile", "import") and str(folder) in repr(args):
            counted.append(event)
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
            counted.append(f"open {args[0]} to write")

    watching = True
    sys.addaudithook(watch)
    try:
        act()
        ended = "read"
    except BuilderError as error:
        ended = error.code
    except BaseException as error:  # what is not told as a user's error is a fault
        ended = f"{type(error).__name__}: {error}"
    finally:
        watching = False
    return ended, counted


def outcomes(scratch: Path) -> Iterator[tuple[str, str, list[str]]]:
    import shutil

    import hf_bridge
    from builder.tokenizers import Tokenizer
    from hf_bridge.folder import open_folder
    from tests.hf_folders import LLAMA, built

    hf_bridge.to_hf(built(LLAMA), scratch / "good")
    hf_bridge.from_hf(scratch / "good")  # what is imported late is imported now
    os.chdir(scratch)
    for number, (name, spoil) in enumerate(CORPUS.items()):
        folder = scratch / f"bad-{number}"
        shutil.copytree(scratch / "good", folder)
        spoil(folder)

        def act(folder: Path = folder) -> None:
            if (path := open_folder(folder).tokenizer) is not None:
                Tokenizer.load(path)
            hf_bridge.from_hf(folder)

        ended, counted = watched(folder, act)
        if Path("RAN").exists():
            counted.append("code of the folder ran")
        yield name, ended, counted


def main(scratch: str) -> None:
    for name, ended, counted in outcomes(Path(scratch)):
        print(json.dumps([name, ended, counted]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
