"""Cells, trained one after another by whoever comes: any number of processes share the folder.

A cell is locked while it is trained.  One that is there is taken as it is; one that was left
unfinished goes on where it stopped; one that fails is told, and stops no other.

"""

from __future__ import annotations

import math
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from builder.ablation.cells import CELLS, Cell, Result, guess, guessed, measured, result_of
from builder.errors import BuilderError, NumbersError, ResourceError, Stopped
from builder.training import disk
from builder.training.loop import resume, train
from builder.training.progress import duration
from builder.training.runs import Run, open_run, replace_text, say
from builder.training.settings import settings_of

POLL_S = 0.2
ATTEMPTS = 3  # that may end with the process, at one step, until a cell has failed


@dataclass
class Queue:
    """Trains cells, and measures them at ``lengths`` too; ``tell`` is told of each."""

    lengths: Sequence[int] = ()
    device: str | None = None
    tell: Callable[[str], None] = say
    label: Callable[[Cell], str] = lambda cell: f"{cell.variant.name}, seed {cell.seed}"

    def run(self, cells: Iterable[Cell]) -> dict[str, Result]:
        """The result of each cell, by its key, once all are there."""
        left = {cell.key: cell for cell in cells}
        total, found = len(left), dict[str, Result]()
        while left:
            before = len(left)
            for key, cell in list(left.items()):
                result = self.stored(cell) or self.tried(cell)
                if result is not None:
                    found[key] = result
                    del left[key]
                    self.told(cell, result, total - len(left), total)
            if len(left) == before:
                time.sleep(POLL_S)  # others are at work on all that is left
        return found

    def told(self, cell: Cell, result: Result, number: int, total: int) -> None:
        loss = result.numbers.get("loss")
        came = f"loss {loss:.4f}" if loss is not None else result.error
        what = f"{self.label(cell)}, lr {cell.rate:.3g}: {came}"
        shown = "" if result.status == "done" else f" ({result.status})"
        self.tell(f"[{number}/{total}] {what}{shown}, {duration(result.seconds)}")

    def stored(self, cell: Cell) -> Result | None:
        """What was found before, if that is all that is asked for."""
        try:
            found = result_of(place(cell, "json").read_text("utf-8"))
        except (OSError, ValueError, TypeError):
            return None
        same = not self.lengths or set(self.lengths) == set(found.lengths)
        return found if same else None

    def tried(self, cell: Cell) -> Result | None:
        """Train a cell that nobody else has in hand; None if somebody has."""
        CELLS.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place(cell, "lock").absolute())
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        try:
            return self.stored(cell) or self.finished(cell)
        finally:
            lock.release()

    def finished(self, cell: Cell) -> Result:
        """The cell's result, written down if it would be the same again."""
        try:
            with counted(cell):
                result = replace(self.trained_one(cell), lengths=tuple(self.lengths))
        except Stopped:
            raise
        except BuilderError as error:
            return Result("failed", {}, error=f"error[{error.code}]: {error.message}")
        except Exception:  # ours, and yet no reason to lose the others
            return Result("failed", {}, error=traceback.format_exc())
        replace_text(place(cell, "json"), result.text())
        return result

    def trained_one(self, cell: Cell) -> Result:
        try:
            run = fitted(cell, self.device)
        except NumbersError as error:
            run = open_run(cell.path, cell.variant.plugins)
            return Result("diverged", guessed(run, self.lengths), seconds(run), error.message)
        numbers = measured(run, self.lengths)
        if not all(map(math.isfinite, numbers.values())):
            message = "what it says of other texts is not finite"
            return Result("diverged", guessed(run, self.lengths), seconds(run), message)
        status = "done" if numbers["loss"] <= guess(run) else "diverged"
        return Result(status, numbers, seconds(run))


def fitted(cell: Cell, device: str | None) -> Run:
    """The run of a cell, trained to its end, from its beginning or from where it was left."""
    if not cell.path.exists():
        recipe, words = cell.ready.recipe, shlex.split(cell.command)
        return train(recipe, cell.path, None, device, words, quiet=True)
    run = open_run(cell.path, cell.variant.plugins)
    if reached(run) < settings_of(run.recipe).steps:
        return resume(run, device, quiet=True)
    return run


def seconds(run: Run) -> float:
    """Of its steps."""
    return float((run.last("step") or {}).get("seconds", 0.0))


def place(cell: Cell, kind: str) -> Path:
    """What is kept beside a cell's folder."""
    return cell.path.with_name(f"{cell.key}.{kind}")


@contextmanager
def counted(cell: Cell) -> Iterator[None]:
    """Note an attempt while it lasts: what ends the process leaves the note behind.  ResourceError
    ``dies`` for a cell that did so too often at one step.
    """
    notes = place(cell, "attempts")
    before = notes.read_text().split() if notes.exists() else []
    step = str(reached(Run(cell.path)))
    if before.count(step) >= ATTEMPTS:
        message = f"it ended its process {ATTEMPTS} times after step {step}"
        raise ResourceError("dies", message, f"remove {notes} to try again")
    disk.append(notes, f"{step}\n")
    try:
        yield
    finally:
        notes.unlink(missing_ok=True)


def reached(run: Run) -> int:
    """The last step that was logged; 0 if there is none, or no run."""
    return int((run.last("step") or {"step": 0})["step"])
