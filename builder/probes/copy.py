from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("copy", kind="probe")
class Copy(Probe):
    """A text, a sign, and the text again; ``eval --lengths`` tells whether longer ones than were
    trained on are copied too.

    Token 0 is the sign.  How long a row's text is, is drawn: the most that fits, or down to half of
    it.
    Source: Jelassi et al. 2024, arXiv:2402.01032, section 3.
    """

    checks = {
        "vocab >= 3": "vocab={vocab} has no two tokens beside the sign",
        "context >= 2": "context={context} holds no text twice",
    }

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        self.chance, self.least = 1 / (vocab - 1), 3

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        most = length // 2
        size = most - dice.below(most // 2 + 1, 1)  # (B, 1)
        text = 1 + dice.below(self.vocab - 1, most)
        places = np.arange(length + 1)[None]
        again = (places > size) & (places <= 2 * size)
        at = np.where(again, places - size - 1, np.minimum(places, most - 1))
        tokens = np.where((places < size) | again, np.take_along_axis(text, at, 1), 0)
        return tokens, again
