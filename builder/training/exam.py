"""What a model is measured on: held-out text, or held-out samples of a task, in parts.

Each part is read when it is its turn, so that a text may be longer than memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import torch

from builder.errors import InputError
from builder.loss import IGNORED
from builder.training.corpus import Batch, Tokens
from builder.training.order import Array

Part: TypeAlias = Callable[[], Batch]
QUARTERS = 4  # of a window, of which the last is measured where lengths are compared


class Exam(Protocol):
    """What is measured; ``bytes`` are those that the tokens spell, and ``answers`` says that how
    many are right is asked too.
    """

    @property
    def bytes(self) -> int: ...

    @property
    def answers(self) -> bool: ...

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        ...

    def parts(self, batch: int) -> Sequence[Part]:
        """All of it, in parts of no more than so many rows."""
        ...


@dataclass(frozen=True)
class Text:
    """Every token but the first, each predicted once, in windows of ``length``."""

    tokens: Tokens
    bytes: int
    length: int
    apart: bool = False
    answers: bool = False

    @property
    def empty(self) -> bool:
        return not self.bytes

    def parts(self, batch: int) -> list[Part]:
        """Windows from the first token on; a shorter one is the last."""
        predicted = max(len(self.tokens) - 1, 0)
        count = predicted // self.length
        firsts = np.arange(count) * self.length
        read = partial(self.tokens.windows, apart=self.apart)
        parts: list[Part] = [
            partial(read, firsts[i : i + batch], self.length) for i in range(0, count, batch)
        ]
        rest = predicted - count * self.length
        last = partial(read, np.array([count * self.length]), rest)
        return [*parts, last] if rest else parts


@dataclass(frozen=True)
class FarText:
    """The tokens from place ``first`` on, each predicted once, in the last quarter of a window.

    So lengths can be compared: each sees the same tokens, after three quarters of itself or more.
    """

    tokens: Tokens
    first: int
    length: int
    apart: bool = False
    bytes: int = 0
    answers: bool = False

    @property
    def empty(self) -> bool:
        return self.first >= len(self.tokens)

    @property
    def quarter(self) -> int:
        return max(1, self.length // QUARTERS)

    def parts(self, batch: int) -> list[Part]:
        ends = np.arange(self.first, len(self.tokens), self.quarter) + self.quarter
        ends = np.minimum(ends, len(self.tokens))  # the last window begins earlier, and asks less
        return [partial(self._read, ends[i : i + batch]) for i in range(0, len(ends), batch)]

    def _read(self, ends: Array) -> Batch:
        """Windows that end at these places: ``(B,)`` to ``(B, length)``."""
        found = self.tokens.windows(ends - self.length - 1, self.length, self.apart)
        asked = ends - (ends - self.first - 1) % self.quarter - 1  # the first that is
        places = ends[:, None] - self.length + np.arange(self.length)  # of the labels
        labels = found.labels.numpy().copy()
        labels[places < asked[:, None]] = IGNORED
        return Batch(found.ids, torch.from_numpy(labels), found.documents)


def far(tokens: Tokens, lengths: Sequence[int], apart: bool = False) -> Iterator[FarText]:
    """The same tokens at each of these lengths.  InputError if there are none."""
    longest = max(lengths)
    first = longest + 1 - max(1, longest // QUARTERS)
    if len(tokens) <= longest:
        message = f"{len(tokens)} tokens to evaluate on, and length={longest} takes {longest + 1}"
        raise InputError("corpus-too-small", message, "give it more text, or shorter lengths")
    return (FarText(tokens, first, length, apart) for length in lengths)
