"""The run folder: what was asked, what was built, what happened.

runs/<time>_<name>_<hash>/
  recipe.yaml       as given          resolved.yaml     all of it in one page, defaults written out
  tokenizer.json    if it has one     environment.json  versions, threads, command, commit
  metrics.jsonl     an event a line   samples.txt
  checkpoints/step_000600/
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from builder.errors import DamagedError, InputError, ResourceError
from builder.tokenizers import Tokenizer
from builder.training import checkpoints

if TYPE_CHECKING:
    from builder.model import Model
    from builder.recipe import Recipe

ROOT = Path("runs")
PAGES = ("resolved.yaml", "environment.json")  # every run has them


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Run:
    """A run folder.  Open one with ``open_run``, make one with ``create_run``."""

    path: Path
    plugins: tuple[Path, ...] = ()

    @cached_property
    def recipe(self) -> Recipe:
        from builder.recipe import load_recipe

        return load_recipe(self.path / "resolved.yaml", plugins=self.plugins)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        path = self.path / "tokenizer.json"
        if not path.exists():
            raise InputError("no-tokenizer", f"{self.path} has no tokenizer", f"put one at {path}")
        return Tokenizer.load(path)

    @cached_property
    def environment(self) -> dict[str, Any]:
        path = self.path / "environment.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DamagedError("damaged-file", f"{path} cannot be read: {error}") from error
        return found

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def latest(self, say: Callable[[str], None] = say) -> Path:
        """The newest checkpoint that verifies."""
        return checkpoints.newest_good(self.checkpoints, say)

    def model(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Model:
        """The recipe's model with the weights of the newest good checkpoint, ready to be used."""
        from builder.model import build

        latest = self.latest()
        model = build(self.recipe, device=device, dtype=dtype)
        load_weights(model, latest)
        return model.eval()

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Work in the folder that the run was started in, where the paths of its recipe hold."""
        folder = Path(self.environment["folder"])
        with chdir(folder) if folder.is_dir() else nullcontext():
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run while writing in it.  InputError if another process does."""
        lock = FileLock(self.path.absolute() / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                "run-busy", f"{self.path} is being written by another process"
            ) from None
        except OSError as error:
            raise ResourceError(
                "cannot-write", f"cannot write to {self.path}: {error.strerror}"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def log(self, event: Mapping[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        append(self.path / "metrics.jsonl", json.dumps(event) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Every event; a last line that a crash tore is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n") if path.exists() else []
        return [json.loads(line) for line in lines[:-1] if line]

    def rewind(self, step: int) -> None:
        """Forget what was logged after a step, when training goes on from there."""
        lines = [json.dumps(event) + "\n" for event in self.metrics() if event["step"] <= step]
        replace_text(self.path / "metrics.jsonl", "".join(lines))


def open_run(path: Path, plugins: Sequence[Path] = ()) -> Run:
    """A run that is there.  InputError ``not-a-run`` for any other folder."""
    if not path.is_dir():
        raise InputError(
            "not-a-run", f"{path} is no folder", f"runs are in {ROOT}/; 'train' makes one"
        )
    missing = [page for page in PAGES if not (path / page).is_file()]
    if missing:
        raise InputError(
            "not-a-run",
            f"{path} is not a run: it has no {missing[0]}",
            "a run is a folder that 'train' made",
        )
    return Run(path, tuple(plugins))


def create_run(
    recipe: Recipe,
    tokenizer: Tokenizer | None,
    command: Sequence[str],
    path: Path | None = None,
    root: Path = ROOT,
) -> Run:
    """A new run folder, at ``path`` or under ``root`` by time, name and hash; never an old one."""
    home = root if path is None else path.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".tmp-run-", dir=home))
    except OSError as error:
        raise ResourceError(
            "cannot-write", f"cannot make a run in {home}: {error.strerror}"
        ) from error
    try:
        fill(folder, recipe, tokenizer, command)
        final = (
            path
            if path is not None
            else home / f"{time.strftime('%Y%m%d-%H%M%S')}_{recipe.name}_{recipe.hash[:8]}"
        )
        return Run(place(folder, final, again=path is None), recipe.plugins)
    except OSError as error:
        raise ResourceError(
            "cannot-write", f"cannot make a run in {home}: {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path, recipe: Recipe, tokenizer: Tokenizer | None, command: Sequence[str]) -> None:
    folder.chmod(0o755)
    (folder / "recipe.yaml").write_text(recipe.text, encoding="utf-8")
    (folder / "resolved.yaml").write_text(recipe.resolved, encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    (folder / "environment.json").write_text(json.dumps(surroundings(command), indent=2) + "\n")
    for file in sorted(folder.iterdir()):
        checkpoints.sync(file)


def place(folder: Path, final: Path, again: bool) -> Path:
    """Give a new folder its name: a rename fails if it is taken, so two starts get two names."""
    for number in range(1, 1000 if again else 2):
        name = final if number == 1 else final.with_name(f"{final.name}_{number}")
        try:
            folder.rename(name)
        except OSError:
            if not name.exists():
                raise
        else:
            checkpoints.sync(name.parent)
            return name
    raise InputError("run-exists", f"{final} exists already", "give another name, or 'resume' it")


def surroundings(command: Sequence[str]) -> dict[str, Any]:
    """What a run was made with, to be compared with another's."""
    return {
        "command": list(command),
        "folder": str(Path.cwd()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of this checkout, if it is one; ``+`` where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        dirty = subprocess.run(
            [*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=10
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + "+" * bool(dirty)


def save_checkpoint(
    run: Run,
    model: nn.Module,
    step: int = 0,
    training: Mapping[str, torch.Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
    keep: int | None = None,
) -> Path:
    """Write the weights, each once by its first name, and the optimizer's state; then prune."""
    tensors: dict[str, Mapping[str, torch.Tensor]] = {"model": dict(model.named_parameters())}
    if training is not None:
        tensors["training"] = training
    path = checkpoints.write(run.checkpoints, step, tensors, {"step": step, **(state or {})})
    if keep is not None:
        checkpoints.prune(run.checkpoints, keep)
    return path


@torch.no_grad()
def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Fill every parameter.  DamagedError if the checkpoint is not of this model."""
    tensors = checkpoints.read(checkpoint, "model")
    parameters = dict(model.named_parameters())
    for name in sorted(parameters.keys() ^ tensors.keys()):
        where = "the recipe has no" if name in tensors else "the checkpoint has no"
        raise DamagedError("other-weights", f"{checkpoint}: {where} {name!r}")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, and the recipe's {tuple(parameter.shape)}"
            raise DamagedError(
                "other-weights", f"{checkpoint}: the checkpoint's {name!r} is {shapes}"
            )
        parameter.copy_(tensors[name])


@torch.no_grad()
def take_weights(model: nn.Module, checkpoint: Path) -> list[str]:
    """Fill what has the same name and shape; give a line for each that is not taken."""
    tensors = checkpoints.read(checkpoint, "model")
    parameters = dict(model.named_parameters())
    left = [f"{name}: only in {checkpoint}" for name in tensors if name not in parameters]
    for name, parameter in parameters.items():
        if name not in tensors:
            left.append(f"{name}: new, starts from its initial value")
        elif parameter.shape != tensors[name].shape:
            left.append(
                f"{name}: {tuple(tensors[name].shape)} there, {tuple(parameter.shape)} here"
            )
        else:
            parameter.copy_(tensors[name])
    return left


def append(path: Path, text: str) -> None:
    """Add text to a file.  ResourceError if the disk does not take it."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ResourceError("cannot-write", f"cannot write {path}: {error.strerror}") from error


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        checkpoints.sync(beside)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ResourceError("cannot-write", f"cannot write {path}: {error.strerror}") from error
