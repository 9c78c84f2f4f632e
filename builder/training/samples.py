"""Samples of a task, drawn and never stored: what a run trains on, and what it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from builder.training.corpus import Batch
from builder.training.exam import Part
from builder.training.order import Array

HELD_OUT = -1  # the seed of samples that no run trains on


class Task(Protocol):
    """A data source that draws tokens: see ``builder/probes/probe.py``."""

    vocab: int
    chance: float
    ceiling: float

    def batch(self, seed: int, numbers: Array, length: int) -> Batch: ...

    def files(self) -> list[Path]: ...


@dataclass(frozen=True)
class Samples:
    """What a run trains on: sample ``n`` of its seed, of ``length`` tokens, is drawn when asked."""

    task: Task
    length: int
    source: str  # digest

    def places(self, seed: int, numbers: Array) -> Array:
        """A sample lies at its own number."""
        return numbers

    def batch(self, seed: int, numbers: Array) -> Batch:
        return self.task.batch(seed, numbers, self.length)


@dataclass(frozen=True)
class Answers:
    """``count`` samples from number ``first`` on of a seed that no run has."""

    task: Task
    count: int
    length: int
    first: int = 0
    bytes: int = 0
    answers: bool = True

    @property
    def empty(self) -> bool:
        return not self.count

    def parts(self, batch: int) -> Sequence[Part]:
        numbers = np.arange(self.first, self.first + self.count)
        read = partial(self.task.batch, HELD_OUT, length=self.length)
        return [partial(read, numbers[i : i + batch]) for i in range(0, self.count, batch)]
