from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe, seen_before
from builder.training.order import Array


@register("memorize", kind="probe")
class Memorize(Probe):
    """Facts that stand in no context: each of ``facts`` keys has one value in every row, which only
    weights can know.

    The first ``facts`` tokens are keys, all others values; ``table`` is the seed by which they were
    given out.  A key that stands earlier in its row is not asked for again.
    Source: Poli et al. 2024 (MAD), arXiv:2403.17844, section 3.1.
    """

    checks = {
        "facts >= 1": "facts={facts} is below 1",
        "facts + 2 <= vocab": "facts={facts} leave fewer than two values of vocab={vocab}",
    }

    def __init__(self, vocab: int, *, facts: int = 64, table: int = 0) -> None:
        self.vocab, self.facts = vocab, facts
        self.table = table
        self.chance, self.least = 1 / (vocab - facts), 2

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        (values,) = Dice(self.table, np.zeros(1)).below(self.vocab - self.facts, self.facts)
        keys = dice.below(self.facts, (length + 2) // 2)
        tokens = np.stack([keys, self.facts + values[keys]], 2).reshape(len(keys), -1)
        asked = np.stack([np.zeros(keys.shape, bool), ~seen_before(keys)], 2).reshape(tokens.shape)
        return tokens[:, : length + 1], asked[:, : length + 1]
