"""A foreign folder: config, tokenizer file, and where every tensor lies.

Only data is read, and only from regular files of the folder: nothing in it is run or unpickled.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from builder.errors import DamagedError, InputError
from hf_bridge.errors import WeightsError

if TYPE_CHECKING:
    import torch

MAX_JSON = 50_000_000
CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Held:
    """What a file's header says of a tensor."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


class Reader(Protocol):
    """A file of weights that is open: its tensors, one at a time."""

    def get_tensor(self, name: str) -> torch.Tensor: ...


@dataclass(frozen=True)
class Folder:
    """A folder in the library's layout, opened for reading; ``label`` is its name on the hub."""

    path: Path
    label: str = ""

    @property
    def name(self) -> str:
        """A recipe's name, from the folder's."""
        name = self.label.rpartition("/")[2] or self.path.resolve().name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "imported"

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_json(self.file(CONFIG))

    @property
    def tokenizer(self) -> Path | None:
        return self.file("tokenizer.json") if self.has("tokenizer.json") else None

    @cached_property
    def tensors(self) -> dict[str, Held]:
        """Every tensor, by its name in the file."""
        if self.has(WEIGHTS):
            return headers(self.file(WEIGHTS))
        if self.has(INDEX):
            return self._sharded(self._listed())
        pickled = sorted(p.name for p in self.path.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
        raise WeightsError(
            "weights-missing",
            f"{self.path} holds neither {WEIGHTS} nor {INDEX}",
            f"{pickled[0]} may run code when it is read; save it as safetensors first"
            if pickled
            else "",
        )

    def reader(self, path: Path) -> AbstractContextManager[Reader]:
        from safetensors import safe_open

        file: AbstractContextManager[Reader] = safe_open(path, framework="pt")
        return file

    def has(self, name: str) -> bool:
        path = self._place(name)
        return path.exists() or path.is_symlink()

    def file(self, name: str) -> Path:
        """A regular file of the folder.

        A link may lead to another file of the folder, or, from the hub's cache, to one of the same
        repository there.
        """
        path = self._place(name)
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # nothing there, or links in a circle
            raise InputError("cannot-read", f"{str(path)!r} is not there") from None
        if not target.is_relative_to(self._home):
            message = f"{path} is a link to {target}, outside its folder"
            raise DamagedError("path-outside", message)
        if not target.is_file():
            raise InputError("cannot-read", f"{str(path)!r} is not a file")
        return path

    def _place(self, name: str) -> Path:
        if name != Path(name).name or name in ("", ".", "..") or not name.isprintable():
            message = f"{self.path} names {name!r}, which is not a file of the folder"
            raise DamagedError("path-outside", message)
        return self.path / name

    @cached_property
    def _home(self) -> Path:
        """Where the folder's files may be: a snapshot of the hub's cache links to its blobs."""
        root = self.path.resolve()
        repository = root.parent.parent
        is_snapshot = root.parent.name == "snapshots" and repository.name.startswith("models--")
        return repository if is_snapshot else root

    def _listed(self) -> dict[str, str]:
        listed = read_json(self.file(INDEX)).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
            message = f"{self.path / INDEX} has no weight_map from names to files"
            raise DamagedError("damaged-json", message)
        return listed

    def _sharded(self, listed: dict[str, str]) -> dict[str, Held]:
        """The tensors of every shard, which are what the index says."""
        tensors: dict[str, Held] = {}
        for name in sorted(set(listed.values())):
            if not self.has(name):
                raise WeightsError(
                    "weights-missing", f"{self.path / INDEX} names {name}, which is not there"
                )
            for tensor, held in headers(self.file(name)).items():
                if listed.get(tensor) != name:
                    told = f"{INDEX} has it in {listed[tensor]}" if tensor in listed else INDEX
                    lacks = "" if tensor in listed else " does not list it"
                    message = f"{held.path} holds {tensor}, and {told}{lacks}"
                    raise WeightsError("weights-index", message)
                tensors[tensor] = held
        if missing := sorted(listed.keys() - tensors.keys()):
            raise WeightsError(
                "weights-missing",
                f"{self.path / INDEX} lists {missing[0]}, which {listed[missing[0]]} does not hold",
            )
        shards = {p.name for p in self.path.iterdir() if SHARD.fullmatch(p.name)}
        if unlisted := sorted(shards - set(listed.values())):
            message = f"{self.path / unlisted[0]} is a shard that {INDEX} does not name"
            raise WeightsError("weights-index", message)
        return tensors


def open_folder(path: str | Path) -> Folder:
    folder = Folder(Path(path))
    if not folder.path.is_dir():
        raise InputError(
            "cannot-read",
            f"there is no folder {str(path)!r}",
            "a name on the hub is read with --hub; nothing is downloaded unasked",
        )
    if not folder.has(CONFIG):
        raise InputError("cannot-read", f"{str(path)!r} holds no {CONFIG}")
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """An object, in JSON proper: no constants of JavaScript's, no key twice, no number too large
    for a float.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise DamagedError("damaged-json", f"{path} is larger than {MAX_JSON:,} bytes")
        value = json.loads(
            path.read_text("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except OSError as error:
        raise InputError(
            "cannot-read", f"cannot read {str(path)!r}: {error.strerror or error}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DamagedError("damaged-json", f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DamagedError("damaged-json", f"{path} is not a JSON object")
    return value


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        again, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{again!r} comes twice")
    return value


def headers(path: Path) -> dict[str, Held]:
    """What a safetensors file says that it holds; the numbers are not read."""
    from safetensors import SafetensorError, safe_open

    held = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  the file is no dict
                part = file.get_slice(name)
                held[name] = Held(path, tuple(part.get_shape()), part.get_dtype())
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise DamagedError(
            "damaged-weights", f"{path} is not a safetensors file: {error}"
        ) from None
    return held


def common_dtype(tensors: Iterable[Held]) -> torch.dtype:
    """The dtype that most of the numbers are in."""
    import torch

    sizes: Counter[str] = Counter()
    for held in tensors:
        if held.dtype in FLOATS:
            sizes[held.dtype] += math.prod(held.shape)
    if not sizes:
        return torch.float32
    dtype: torch.dtype = getattr(torch, FLOATS[sizes.most_common(1)[0][0]])
    return dtype
