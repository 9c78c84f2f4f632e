from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("distance_recall", kind="probe")
class DistanceRecall(Probe):
    """One value among blanks, asked for ``distance`` tokens later: solved by what sees so far, and
    by nothing else.

    Token 0 is the blank, 1 the question; where the value stands is drawn.
    """

    checks = {
        "distance >= 1": "distance={distance} is below 1",
        "vocab >= 4": "vocab={vocab} has no two values beside the blank and the question",
        "distance < context": "distance={distance} is not below context={context}",
    }

    def __init__(self, vocab: int, *, distance: int = 24) -> None:
        self.vocab, self.distance = vocab, distance
        self.chance, self.least = 1 / (vocab - 2), distance + 2

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        value = 2 + dice.below(self.vocab - 2, 1)
        at = dice.below(length - self.distance, 1)
        tokens = np.zeros((len(value), length + 1), np.int64)
        np.put_along_axis(tokens, at, value, 1)
        np.put_along_axis(tokens, at + self.distance, 1, 1)
        np.put_along_axis(tokens, at + self.distance + 1, value, 1)
        return tokens, np.arange(length + 1)[None] == at + self.distance + 1
