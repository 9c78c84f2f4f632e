from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe, seen_before
from builder.training.order import Array


@register("icr", kind="probe")
class InContextRecall(Probe):
    """In-context recall: keys and their values in turn; a key that comes again is answered by the
    value that it had.

    The first ``keys`` tokens are keys, all others values; whose is which is drawn for each row.
    Source: Poli et al. 2024 (MAD), arXiv:2403.17844, section 3.1.
    """

    checks = {
        "keys >= 1": "keys={keys} is below 1",
        "keys + 2 <= vocab": "keys={keys} leave fewer than two values of vocab={vocab}",
        "context >= 3": "context={context} holds no key twice",
    }

    def __init__(self, vocab: int, *, keys: int = 8) -> None:
        self.vocab, self.keys = vocab, keys
        self.chance, self.least = 1 / (vocab - keys), 4

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        values = self.keys + dice.below(self.vocab - self.keys, self.keys)
        keys = dice.below(self.keys, (length + 2) // 2)
        tokens = np.stack([keys, np.take_along_axis(values, keys, 1)], 2).reshape(len(keys), -1)
        asked = np.stack([np.zeros(keys.shape, bool), seen_before(keys)], 2).reshape(tokens.shape)
        return tokens[:, : length + 1], asked[:, : length + 1]
