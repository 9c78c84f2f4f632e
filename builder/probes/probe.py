"""What every probe is: rows of tokens drawn from numbers, of which some are to be answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from builder.errors import InputError
from builder.loss import IGNORED
from builder.training.corpus import Batch
from builder.training.order import Array, mixed


class Dice:
    """Random numbers for rows: each a function of the seed, the row's number, and which draw it is,
    so that a row is the same whoever draws it, in whatever company.
    """

    def __init__(self, seed: int, numbers: Array) -> None:
        start = mixed(np.array([seed % 2**64], np.uint64))
        self._keys = mixed(numbers.astype(np.uint64) + start)[:, None]  # (B, 1)
        self._draws = 0

    def _bits(self, columns: int) -> Array:
        self._draws += 1
        places = np.arange(columns, dtype=np.uint64) + np.uint64(self._draws << 32)
        return mixed(self._keys ^ mixed(places))  # (B, columns)

    def below(self, limit: int, columns: int) -> Array:
        """Whole numbers from 0, below a limit: ``(B, columns)`` int64."""
        return ((self._bits(columns) >> np.uint64(11)) % np.uint64(limit)).astype(np.int64)

    def distinct(self, limit: int, columns: int) -> Array:
        """The same, no number twice in a row, in an order drawn too."""
        return np.argsort(self._bits(limit), axis=1)[:, :columns]


class Probe:
    """A task with known answers.

    ``chance`` is the share of answers that are right by guessing as well as can be guessed without
    the ability that is asked for, ``ceiling`` that of one who has it; ``least`` is how many tokens
    the task takes.
    """

    chance: float
    ceiling: float = 1.0
    least: int
    vocab: int

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        """Tokens, and which are answers: ``(B, length + 1)`` int64 and bool.  The first of a row is
        none.
        """
        raise NotImplementedError

    def batch(self, seed: int, numbers: Array, length: int) -> Batch:
        """These rows of a seed's endless stream.  InputError if they are too short for the task."""
        if length + 1 < self.least:
            message = f"{type(self).word} takes {self.least - 1} tokens, and length={length}"  # type: ignore[attr-defined]
            raise InputError("probe-too-long", message, f"dims.context={self.least - 1}")
        tokens, asked = self.rows(Dice(seed, numbers), length)
        labels = np.where(asked, tokens, IGNORED)[:, 1:]
        return Batch(torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(labels))

    def files(self) -> list[Path]:
        """None: it is drawn."""
        return []


def seen_before(tokens: Array) -> Array:
    """Whether each token of a row stands earlier in it: ``(B, n)`` to ``(B, n)``."""
    same = tokens[:, :, None] == tokens[:, None, :]
    found: Array = np.tril(same, -1).any(2)
    return found
