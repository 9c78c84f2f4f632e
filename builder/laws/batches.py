"""Padding and packing: what else lies in a row, or in a batch, is not seen."""

from __future__ import annotations

import random
from itertools import pairwise

import torch
from torch import Tensor

from builder.laws.case import Case, gradients, read
from builder.laws.probe import agree, gradients_agree, whole


def padded_equals_unpadded(case: Case) -> float:
    """Padding changes no token's logits, whatever its ids; all stays finite, gradients too."""
    model, chance = case.model, random.Random(case.seed)
    ids = case.ids(3)
    length = ids.shape[1]
    left, right = (chance.randint(1, max(1, length - 1)) for _ in range(2))
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[0, :left] = True
    padding[1, length - right :] = True
    padding[2, :] = True
    logits = model(ids, padding=padding)
    assert logits.isfinite().all(), "a padded place has logits that are not finite"
    for name, gradient in gradients(model, case.weigh(logits)).items():
        assert gradient.isfinite().all(), f"beside padding the gradient of {name} is not finite"
    others = torch.where(padding, (ids + 1) % case.recipe.graph.vocab, ids)
    worst = 0.0
    for row, real in ((0, slice(left, length)), (1, slice(0, length - right))):
        if real.stop > real.start:
            worst = max(worst, _is_unpadded(case, ids, padding, row, real))
            worst = max(worst, _is_unpadded(case, others, padding, row, real))
    return worst


@torch.no_grad()
def _is_unpadded(case: Case, ids: Tensor, padding: Tensor, row: int, real: slice) -> float:
    side = ("left", "right")[row]
    return agree(
        case.model,
        lambda: read(case.model, ids, padding=padding),
        lambda: read(case.model, ids[row : row + 1, real]),
        f"padding on the {side} changed the tokens beside it",
        lambda x: x[row : row + 1, real],
        whole,
    )


def packed_equals_separate(case: Case) -> float:
    """Documents in one row are as each would be alone: logits, loss and gradients."""
    model, ids = case.model, case.ids(1)
    length = ids.shape[1]
    cuts = _cuts(case, length)
    documents = _documents(cuts, length)
    spans = [slice(a, b) for a, b in pairwise(cuts)]

    def separate() -> Tensor:
        return torch.cat([model(ids[:, span]) for span in spans], 1)

    def packed() -> Tensor:
        return read(model, ids, documents=documents)

    with torch.no_grad():
        error = agree(model, separate, packed, f"documents cut at {cuts}", whole, whole)
    labels = ids.roll(-1, 1)
    together = gradients(model, model.loss(ids, labels, documents=documents))
    losses = [model.loss(ids[:, s], labels[:, s]) * (s.stop - s.start) / length for s in spans]
    apart = gradients(model, sum(losses, torch.zeros((), dtype=torch.float64)))
    return max(error, gradients_agree(together, apart, "packed"))


@torch.no_grad()
def documents_do_not_see_each_other(case: Case) -> float:
    """Another text in one document leaves the logits of all others as they were, to the bit.

    Only where which rows are multiplied together depends on the data (``by_data``: experts) is
    rounding let through.
    """
    model, ids = case.model, case.ids(1)
    length = ids.shape[1]
    cuts = _cuts(case, length)
    documents = _documents(cuts, length)
    to_the_bit = not any(getattr(module, "by_data", False) for module in model.modules())
    places, worst = torch.arange(length), 0.0
    for start, end in pairwise(cuts):
        inside = (places >= start) & (places < end)
        other = torch.where(inside, (ids + 1) % case.recipe.graph.vocab, ids)
        claim = f"the document at {start} to {end} changed others"
        error = agree(
            model,
            lambda: read(model, ids, documents=documents),
            lambda other=other: read(model, other, documents=documents),  # type: ignore[misc]
            claim,
            lambda x, inside=inside: x[:, ~inside],  # type: ignore[misc]
            lambda x, inside=inside: x[:, ~inside],  # type: ignore[misc]
        )
        assert not (to_the_bit and error), f"{claim}, by {error:.3g}"
        worst = max(worst, error)
    return worst


def _cuts(case: Case, length: int) -> list[int]:
    """Where documents begin, the first at 0, and the end."""
    chance = random.Random(case.seed)
    return [0, *sorted(chance.sample(range(1, length), min(2, length - 1))), length]


def _documents(cuts: list[int], length: int) -> Tensor:
    """Numbers that differ between neighbours alone: the third document's is the first's."""
    inner = torch.tensor(cuts[1:-1], dtype=torch.long)
    return torch.bucketize(torch.arange(length), inner, right=True)[None] % 2
