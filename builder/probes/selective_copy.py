from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("selective_copy", kind="probe")
class SelectiveCopy(Probe):
    """``marked`` tokens among blanks, at places drawn; then a sign, and they are to be said in
    their order.

    Token 0 is the blank, 1 the sign.
    Source: Gu & Dao 2023 (Mamba), arXiv:2312.00752, section 3.1; Jing et al. 2019.
    """

    checks = {
        "marked >= 1": "marked={marked} is below 1",
        "vocab >= 4": "vocab={vocab} has no two tokens beside the blank and the sign",
        "2 * marked <= context": "marked={marked} stand there twice, and context={context}",
    }

    def __init__(self, vocab: int, *, marked: int = 8) -> None:
        self.vocab, self.marked = vocab, marked
        self.chance, self.least = 1 / (vocab - 2), 2 * marked + 1

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        room = length - self.marked
        said = 2 + dice.below(self.vocab - 2, self.marked)
        tokens = np.zeros((len(said), length + 1), np.int64)
        np.put_along_axis(tokens, np.sort(dice.distinct(room, self.marked), 1), said, 1)
        tokens[:, room] = 1
        tokens[:, room + 1 :] = said
        return tokens, np.broadcast_to(np.arange(length + 1) > room, tokens.shape)
