"""The run folder: what was asked, what was built, what happened.

runs/<time>_<name>_<hash>/
  recipe.yaml       as given          resolved.yaml     all of it in one page, defaults written out
  tokenizer.json    if it has one     environment.json  versions, threads, command, commit
  metrics.jsonl     an event a line   samples.txt
  checkpoints/step_000600/            checkpoints/latest names the last
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
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
from builder.training import checkpoints, disk
from builder.training.world import ALONE, World, put

if TYPE_CHECKING:
    from builder.model import Model
    from builder.recipe import Recipe

ROOT = Path("runs")
SCORES = {"accuracy": "of answers right", "bits_per_byte": "bits per byte"}
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
        """The last checkpoint that verifies."""
        return checkpoints.newest_good(self.checkpoints, say)

    @property
    def begun(self) -> bool:
        """Whether there is any checkpoint, good or not."""
        return bool(checkpoints.all_in(self.checkpoints))

    def model(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Model:
        """The recipe's model with the weights of the last good checkpoint, ready to be used: their
        average, if one is kept.
        """
        from builder.model import build

        latest = self.latest()
        model = build(self.recipe, device=device, dtype=dtype)
        load_weights(model, latest, averaged=True)
        return model.eval()

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """Work in the folder that the run was started in, where the paths of its recipe hold."""
        folder = Path(self.environment["folder"])
        with chdir(folder) if folder.is_dir() else nullcontext():
            yield

    @contextmanager
    def locked(self, world: World = ALONE) -> Iterator[None]:
        """Hold the run while the world writes in it.  InputError if another one does."""
        if not world.first:
            yield
            return
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
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        return [event_of(line, f"{path}:{n}") for n, line in enumerate(lines[:-1], 1)]

    def rewind(self, step: int) -> None:
        """Forget what was logged after a step, when training goes on from there."""
        lines = [json.dumps(event) + "\n" for event in self.metrics() if event["step"] <= step]
        replace_text(self.path / "metrics.jsonl", "".join(lines))

    def last(self, event: str) -> dict[str, Any] | None:
        """The last event of a kind."""
        return next((e for e in reversed(self.metrics()) if e["event"] == event), None)


def event_of(line: bytes, place: str) -> dict[str, Any]:
    """An event of a run's log.  DamagedError names the line."""
    try:
        event: dict[str, Any] = json.loads(line)
        assert isinstance(event["event"], str) and isinstance(event["step"], int)
    except (ValueError, TypeError, KeyError, AssertionError):
        raise DamagedError("damaged-file", f"{place} is no event of a run") from None
    return event


def score(validation: Mapping[str, Any]) -> tuple[float, str]:
    """What a validation found, and in which unit: of a task how much was right, of a text bits."""
    return next((validation[key], unit) for key, unit in SCORES.items() if key in validation)


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
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """A new run folder, at ``path`` or under ``root`` by time, name and hash; never an old one.

    ``notes`` are kept with what else is known of where it was made.
    """
    home = root if path is None else path.parent
    try:
        folder = disk.new_folder(home)
    except OSError as error:
        raise ResourceError(
            "cannot-write", f"cannot make a run in {home}: {error.strerror}"
        ) from error
    try:
        fill(folder, recipe, tokenizer, surroundings(command) | dict(notes or {}))
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


def fill(
    folder: Path, recipe: Recipe, tokenizer: Tokenizer | None, environment: Mapping[str, Any]
) -> None:
    disk.write(folder / "recipe.yaml", recipe.text)
    disk.write(folder / "resolved.yaml", recipe.resolved)
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    disk.write(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
    for file in sorted(folder.iterdir()):
        disk.sync(file)


def place(folder: Path, final: Path, again: bool) -> Path:
    """Give a new folder its name: a rename fails if it is taken, so two starts get two names."""
    for number in range(1, 1000 if again else 2):
        name = final if number == 1 else final.with_name(f"{final.name}_{number}")
        try:
            disk.rename(folder, name)
        except OSError:
            if not name.exists():
                raise
        else:
            disk.sync(name.parent)
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
    beside: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    state: Mapping[str, Any] | None = None,
    keep: int | None = None,
    world: World = ALONE,
) -> Path:
    """Write the weights, each once by its first name, and what stands ``beside`` them; then prune,
    if the new one is found to be good.
    """
    tensors = {"model": dict(model.named_parameters()), **(beside or {})}
    path = checkpoints.write(run.checkpoints, step, tensors, state or {}, world)
    if keep is not None and world.first:
        checkpoints.prune(run.checkpoints, keep)
    return path


def load_weights(model: nn.Module, checkpoint: Path, averaged: bool = False) -> None:
    """Fill every parameter, from the average if it is asked for and kept.

    DamagedError if the checkpoint is not of this model.
    """
    left = dict(model.named_parameters())
    for name, value in checkpoints.each(checkpoint, weights_of(checkpoint, averaged)):
        if name not in left:
            raise _foreign(f"{checkpoint}: the recipe has no {name!r}")
        parameter = left.pop(name)
        if parameter.shape != value.shape:
            shapes = f"{tuple(value.shape)}, and the recipe's {tuple(parameter.shape)}"
            raise _foreign(f"{checkpoint}: the checkpoint's {name!r} is {shapes}")
        put(parameter, value)
    for name in sorted(left):
        raise _foreign(f"{checkpoint}: the checkpoint has no {name!r}")


def _foreign(message: str) -> DamagedError:
    return DamagedError("other-weights", message)


def weights_of(checkpoint: Path, averaged: bool) -> str:
    """The name of a checkpoint's weights: of their average, if it is asked for and kept."""
    return "average" if averaged and checkpoints.files_of(checkpoint, "average") else "model"


def take_weights(model: nn.Module, checkpoint: Path) -> list[str]:
    """Fill what has the same name and shape; give a line for each that is not taken."""
    parameters = dict(model.named_parameters())
    unfilled = dict.fromkeys(parameters)
    left = []
    for name, value in checkpoints.each(checkpoint, weights_of(checkpoint, averaged=True)):
        parameter = parameters.get(name)
        unfilled.pop(name, None)
        if parameter is None:
            left.append(f"{name}: only in {checkpoint}")
        elif parameter.shape != value.shape:
            left.append(f"{name}: {tuple(value.shape)} there, {tuple(parameter.shape)} here")
        else:
            put(parameter, value)
    return [*left, *(f"{name}: new, starts from its initial value" for name in unfilled)]


def append(path: Path, text: str) -> None:
    """Add text to a file.  ResourceError if the disk does not take it."""
    try:
        disk.append(path, text)
    except OSError as error:
        raise ResourceError("cannot-write", f"cannot write {path}: {error.strerror}") from error


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.  ResourceError if the disk does not take it."""
    try:
        disk.replace_text(path, text)
    except OSError as error:
        raise ResourceError("cannot-write", f"cannot write {path}: {error.strerror}") from error
