from __future__ import annotations

import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe
from builder.training.order import Array


@register("lookup", kind="probe")
class Lookup(Probe):
    """k-hop lookup: ``pairs`` say where each name leads, to another of them; then questions, a
    sign, a name, and where one comes from it in so many ``hops``.

    Token 0 is the sign; names are drawn from the others.  Each leads somewhere, and is led to.
    """

    checks = {
        "pairs >= 2": "pairs={pairs} is below 2",
        "hops >= 1": "hops={hops} is below 1",
        "pairs < vocab": "pairs={pairs} names beside the sign, and vocab={vocab}",
        "2 * pairs + 3 <= context + 1": "pairs={pairs} and a question take {pairs} times two tokens"
        " and three, and context={context}",
    }

    def __init__(self, vocab: int, *, pairs: int = 8, hops: int = 2) -> None:
        self.vocab, self.pairs, self.hops = vocab, pairs, hops
        self.chance, self.least = 1 / pairs, 2 * pairs + 3

    def rows(self, dice: Dice, length: int) -> tuple[Array, Array]:
        told = 2 * self.pairs
        names = 1 + dice.distinct(self.vocab - 1, self.pairs)
        leads = dice.distinct(self.pairs, self.pairs)  # to which of the names
        tokens = np.zeros((len(names), length + 1), np.int64)
        tokens[:, 0:told:2] = names
        tokens[:, 1:told:2] = np.take_along_axis(names, leads, 1)
        questions = (length + 1 - told) // 3
        at = dice.below(self.pairs, questions)
        end = told + 3 * questions
        tokens[:, told + 1 : end : 3] = np.take_along_axis(names, at, 1)
        for _ in range(self.hops):
            at = np.take_along_axis(leads, at, 1)
        tokens[:, told + 2 : end : 3] = np.take_along_axis(names, at, 1)
        asked = np.zeros(tokens.shape, bool)
        asked[:, told + 2 : end : 3] = True
        return tokens, asked
