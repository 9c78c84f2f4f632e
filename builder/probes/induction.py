from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("induction", kind="probe")
class Induction(Probe):
    """Tokens in an order drawn, over and over: what followed last time follows again.

    A row's period is drawn too, up to half the row, so that no fixed distance will do; within a
    period no token stands twice.
    Source: Olsson et al. 2022, arXiv:2209.11895.
    """

    checks = {"context >= 4": "context={context} holds no period twice"}

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        self.chance, self.least = 1 / vocab, 5

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        longest = min(length // 2, self.vocab)
        period = longest - dice.below(longest // 2 + 1, 1)  # (B, 1)
        order = dice.distinct(self.vocab, longest)
        places = np.arange(length + 1)[None]
        tokens = np.take_along_axis(order, places % period, 1)
        return tokens, places > period
