"""The window oracle: which tokens a token's logits may depend on, by what its mixers say they see.

It walks the graph, not the model: a ``(T, T)`` matrix of truths takes the stream's place, or two of
them, what a token may depend on and what it must.  They differ where a mixer does not say what it
sees: then it may be all up to itself, and need be nothing.
"""

from __future__ import annotations

from collections import Counter
from functools import reduce
from operator import or_
from typing import TypeAlias

import torch
from torch import Tensor, nn

from blocks.kinds import NODES
from builder.graph import (
    Chain,
    Joined,
    Layer,
    Leaf,
    Node,
    Parallel,
    Residual,
    Tap,
    edges,
    leaves,
)
from builder.laws.case import Case, read
from builder.laws.probe import TOLERANCE, traced
from builder.model import Model

Reach: TypeAlias = Tensor  # (2, T, T) bool: what token i (a row) may depend on, and what it must


class Oracle:
    """Follows what the first ``length`` tokens of a model depend on.

    ``logits`` is what they do in the end; ``after`` has it of every leaf's output, by the leaf's
    weights and the turn of their use, as ``traced`` has the outputs themselves.
    """

    def __init__(self, model: Model, length: int) -> None:
        self.modules = dict(model.named_modules())
        self.length = length
        self.taps: dict[int | str, Reach] = {}
        self.lent: dict[int | str, tuple[Reach, Reach]] = {}  # of keys, and of values
        self.uses: Counter[str] = Counter()
        self.after: dict[tuple[str, int], Reach] = {}
        x = torch.eye(length, dtype=torch.bool).expand(2, -1, -1)
        for item in model.recipe.graph.items:
            x = self._of(item, x)
        self.logits = x

    def _of(self, node: Node, x: Reach) -> Reach:
        """What the output of a node depends on, from what its input does."""
        match node:
            case Leaf():
                return self._record(node, self._leaf(node, x))
            case Joined():
                return self._record(node.joiner, x | self._of(node.body, x))
            case Residual():
                return x | self._of(node.body, x)
            case Parallel():
                return reduce(or_, [self._of(branch, x) for branch in node.branches])
            case Layer():
                return self._of(node.body, x)
            case Chain():
                for item in node.items:
                    x = self._of(item, x)
            case Tap():
                self.taps[node.number] = x
        return x

    def _record(self, leaf: Leaf, x: Reach) -> Reach:
        if leaf.name == leaf.weights or leaf.name not in self.modules:
            self.uses[leaf.weights] += 1
            self.after[leaf.weights, self.uses[leaf.weights]] = x
        return x

    def _leaf(self, leaf: Leaf, x: Reach) -> Reach:
        for _, edge in edges(leaf):
            if edge.port == "stream":
                x = x | self.taps[edge.source]
        if NODES[leaf.kind].mixes:
            return self._mixed(leaf, x)
        nothing = leaf.word == "scale" and leaf["factor"] == 0
        return x & (not nothing)

    def _mixed(self, leaf: Leaf, x: Reach) -> Reach:
        """The values of all that is seen; where more than one is, what is asked and of which keys
        too, for they tell how much of each.
        """
        keys, values = x, x
        for _, edge in edges(leaf):
            if edge.port == "keys_values":
                keys, values = self.lent[edge.source]
            elif edge.port != "stream":
                values = values | self.lent[edge.source][1]
        self.lent[leaf.name] = keys, values
        seen, asks = self._sight(self.modules.get(leaf.name) or self.modules[leaf.weights])
        return _times(seen, values) | asks & (_times(seen, keys) | x)

    def _sight(self, module: nn.Module) -> tuple[Reach, Tensor]:
        """What a mixer's tokens see, (2, T, T); whether it matters what they ask, (2, T, 1)."""
        visible = getattr(module, "visible", None)
        square = torch.ones(2, self.length, self.length, dtype=torch.bool)
        if visible is None:
            said = torch.tensor([True, False])[:, None, None]
            return square.tril() & said, square[..., :1] & said
        places = torch.arange(self.length)
        seen = square & visible(places[:, None], places[None])
        ignored = any(name.startswith("q.") for name in getattr(module, "nulls", dict)())
        return seen, (seen.sum(-1, keepdim=True) > 1) & (not ignored)


def _times(seen: Reach, x: Reach) -> Reach:
    """What is reached through what is seen."""
    return (seen.double() @ x.double()) > 0


def jacobian_of(case: Case) -> Tensor:
    """``|d logits[i] / d embedding[j]|``, summed over a weighed sum of the logits, (T, T).

    Row ``i`` of a batch of one text has the gradient of token ``i``: one pass backward gives all.
    AssertionError where a gradient is not a number.
    """
    model, ids = case.model, case.ids(1)
    embedded: list[Tensor] = []
    name = next(leaf.name for leaf in leaves(case.recipe.graph) if leaf.kind == "embedding")
    handle = model.get_submodule(name).register_forward_hook(lambda m, g, out: embedded.append(out))
    try:
        logits = model(ids.expand(ids.shape[1], -1))
    finally:
        handle.remove()
    own = logits.diagonal().T  # (T, vocab): row i's logits of token i
    gradient: Tensor = torch.autograd.grad(case.weigh(own), embedded[0])[0]
    for i, row in enumerate(gradient):
        assert row.isfinite().all(), f"the gradient of token {i} is not finite"
    return gradient.abs().sum(-1)


@torch.no_grad()
def changes_of(case: Case) -> Tensor:
    """How far logits ``i`` move if token ``j`` becomes another, relative to the largest, (T, T)."""
    return _moved(read(case.model, _changed(case)))


def _changed(case: Case) -> Tensor:
    """A text, and it with each token in turn changed, (1 + T, T)."""
    ids = case.ids(1)
    return torch.cat([ids, (ids + torch.eye(ids.shape[1]).long()) % case.recipe.graph.vocab])


def _moved(outputs: Tensor) -> Tensor:
    """By how much output ``i`` of each changed text, from (1 + T, T, dim), (T, T)."""
    base, *others = outputs
    moved: Tensor = (torch.stack(others) - base).abs().amax(-1).T  # of token i, by change j
    return moved / max(1.0, float(base.abs().max()))


def reach_is_what_the_masks_say(case: Case) -> float:
    """A token's logits depend on those tokens, and those alone, that its mixers say they see.

    By gradient, exactly: none to a token that is hidden, in some draw one to each that is seen.
    By value too: another token in place of a hidden one moves nothing, and of a seen one something,
    if by the gradient it is more than rounding hides.
    """
    may, must = Oracle(case.model, case.ids(1).shape[1]).logits
    awaited, worst = must, 0.0
    for other in case.draws():
        jacobian, moved = jacobian_of(other), changes_of(other)
        for leak in (jacobian > 0) & ~may, (moved > TOLERANCE) & ~may:
            assert not leak.any(), f"{_pair(leak)}, which is hidden from it, {_place(other, leak)}"
        worst = max(worst, float((moved * ~may).max()))
        awaited = awaited & ~((jacobian > 0) & ((moved > 0) | (jacobian < TOLERANCE)))
        if not awaited.any() or case.vanishes:
            return worst
    claim = f"it is not so that {_pair(awaited)}, though all masks let it see that"
    raise AssertionError(f"{claim}, {_place(case, awaited, True)}")


def _pair(where: Tensor) -> str:
    i, j = where.nonzero()[0].tolist()
    return f"token {i} reads token {j}"


@torch.no_grad()
def _place(case: Case, where: Tensor, missing: bool = False) -> str:
    """In words: the first leaf after which one of these tokens has moved, or wrongly has not."""
    oracle = Oracle(case.model, len(where))
    with traced(case.model) as outputs:
        case.model(_changed(case))
    for (name, turn), output in outputs.items():
        may, must = oracle.after[name, turn]
        moved = _moved(output[0])
        if (must & (moved == 0) if missing else ~may & (moved > TOLERANCE)).any():
            return f"first after {name}" + (f", its use {turn}" if turn > 1 else "")
    return "though no leaf's output shows it"
