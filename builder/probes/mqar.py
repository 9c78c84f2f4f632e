from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("mqar", kind="probe")
class Mqar(Probe):
    """Multi-query associative recall: ``pairs`` of a key and a value, then each key once more, at
    places drawn among blanks, to be answered by its value.

    Token 0 is the blank; keys and values have half of the others each.  Chance knows which values
    stand there, and not whose they are.
    Source: Arora et al. 2023 (Zoology), arXiv:2312.04927, section 3.
    """

    checks = {
        "pairs >= 1": "pairs={pairs} is below 1",
        "2 * pairs < vocab": "pairs={pairs} have as many keys as values, and vocab={vocab}",
        "4 * pairs <= context + 1": "pairs={pairs}, asked once each, take four tokens apiece, and "
        "context={context}",
    }

    def __init__(self, vocab: int, *, pairs: int = 8) -> None:
        self.vocab, self.pairs = vocab, pairs
        self.chance, self.least = 1 / pairs, 4 * pairs

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        half, told = (self.vocab - 1) // 2, 2 * self.pairs
        keys = 1 + dice.distinct(half, self.pairs)
        values = 1 + half + dice.distinct(half, self.pairs)
        tokens = np.zeros((len(keys), length + 1), np.int64)
        tokens[:, 0:told:2], tokens[:, 1:told:2] = keys, values
        slots = (length + 1 - told) // 2
        at = told + 2 * dice.distinct(slots, self.pairs)
        np.put_along_axis(tokens, at, keys, 1)
        np.put_along_axis(tokens, at + 1, values, 1)
        asked = np.zeros(tokens.shape, bool)
        np.put_along_axis(asked, at + 1, True, 1)
        return tokens, asked
