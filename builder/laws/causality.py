"""What a token's logits may depend on: itself and what is before it, in its own row."""

from __future__ import annotations

import torch
from torch import Tensor

from builder.graph import Leaf, leaves
from builder.laws.case import Case, read
from builder.laws.probe import TOLERANCE, agree, distance, traced, whole
from builder.laws.reach import jacobian_of


@torch.no_grad()
def has_right_shapes(case: Case) -> float:
    """Logits are (B, T, vocab) and finite, and every leaf gives what its recipe says."""
    model, vocab = case.model, case.recipe.graph.vocab
    for ids in (case.ids(), case.ids(1, 1)):
        with traced(model) as seen:
            logits = model(ids)
        assert logits.shape == (*ids.shape, vocab), f"logits are {tuple(logits.shape)}"
        assert logits.isfinite().all(), "logits are not finite"
        for leaf in leaves(case.recipe.graph):
            for output in seen.get((leaf.name, 1), []):
                _has_shape(leaf, output, ids)
    return 0.0


def _has_shape(leaf: Leaf, output: Tensor, ids: Tensor) -> None:
    shape = (*ids.shape, leaf.out)
    assert output.shape == shape, f"{leaf.name} gives {tuple(output.shape)} and not {shape}"


@torch.no_grad()
def is_causal_by_value(case: Case) -> float:
    """Whatever follows a token changes none of its logits."""
    model, ids, vocab = case.model, case.ids(), case.recipe.graph.vocab
    length = ids.shape[1]
    cuts = range(1, length)
    if not cuts:
        return 0.0
    places = torch.arange(length)
    changed = [torch.where(places >= cut, (ids + 1) % vocab, ids) for cut in cuts]
    before, *after = model(torch.cat([ids, *changed])).split(len(ids))  # a row does not see others
    worst = 0.0
    for cut, other, logits in zip(cuts, changed, after, strict=True):

        def part(x: Tensor, cut: int = cut) -> Tensor:
            return x[:, :cut]

        def then(other: Tensor = other) -> Tensor:
            return read(model, other)

        error = distance(part(before), part(logits))
        if error > TOLERANCE:
            claim = f"tokens from {cut} on changed what comes before"
            error = agree(model, lambda: model(ids), then, claim, part, part)
        worst = max(worst, error)
    return worst


@torch.no_grad()
def rows_are_independent(case: Case) -> float:
    """A row's logits don't depend on what else is in its batch."""
    model, ids = case.model, case.ids(3)
    return max(
        agree(
            model,
            lambda: model(ids),
            lambda row=row: model(ids[row : row + 1]),  # type: ignore[misc]
            f"row {row} of the batch is not what it is alone",
            lambda x, row=row: x[row : row + 1],  # type: ignore[misc]
            whole,
        )
        for row in range(3)
    )


@torch.no_grad()
def dropout_is_off_in_eval(case: Case) -> float:
    """An evaluated model gives the same logits at any state of the random numbers."""
    model, ids = case.model, case.ids()

    def after(state: int) -> Tensor:
        torch.manual_seed(state)
        return read(model, ids)

    claim = "two evaluations of one input"
    return agree(model, lambda: after(0), lambda: after(1), claim, whole, whole)


def is_causal_by_gradient(case: Case) -> float:
    """No logit has a gradient to a later embedding, and some have one to another."""
    for other in case.draws():
        reached = jacobian_of(other)
        later = reached.triu(1).nonzero().tolist()
        assert not later, "token {} reads token {}, which is later".format(*later[0])
        if reached.any() or case.vanishes:
            return 0.0
    raise AssertionError("no token's logits depend on any embedding")
