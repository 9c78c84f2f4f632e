"""What changes no logit: a model rewritten in other blocks, with weights to match."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from builder.laws.case import Case, read
from builder.laws.probe import TOLERANCE, distance, traced
from builder.laws.rewrite import Pair, unshared
from builder.laws.rewritings import IDENTITIES
from builder.model import Model
from builder.recipe import Recipe

FEW = 4  # rewritings that the law makes to one case
COPIES = "shared weights are copies of them"


@torch.no_grad()
def identities_hold(case: Case, which: Sequence[str] | None = None) -> float:
    """Rewritten in ways that should change nothing, a model gives the same logits.

    ``which`` of ``IDENTITIES`` are made one upon the other, where they apply; if it is not said,
    FEW of those that do, drawn by the case's seed.  Odd seeds read two documents in each row.
    """
    drawn = random.Random(case.seed).sample(list(IDENTITIES), len(IDENTITIES))
    names, most = (drawn, FEW) if which is None else (which, len(which))
    pair, applied = rewritten(case, names, most)
    twin = _twin(case.recipe, pair)
    expected = _read(case, case.model)
    error, claim = distance(_read(case, twin), expected), " and ".join(applied) or COPIES
    if error <= TOLERANCE:
        return error
    for few in ([], *([name] for name in applied)):  # which of them alone is to blame
        alone = _twin(case.recipe, rewritten(case, few)[0])
        if distance(_read(case, alone), expected) > TOLERANCE:
            twin, claim = alone, (few or [COPIES])[0]
            break
    error, place = distance(_read(case, twin), expected), _first_difference(case, twin)
    raise AssertionError(f"it is not so that {claim}: the logits differ by {error:.3g}, {place}")


def rewritten(case: Case, names: Sequence[str], most: int | None = None) -> tuple[Pair, list[str]]:
    """A case's graph and weights after the first of these rewritings that apply, and which did."""
    pair = unshared(case.recipe.graph, case.model.state_dict())
    applied: list[str] = []
    for name in names:
        if len(applied) == most:
            break
        if (other := IDENTITIES[name](*pair)) is not None:
            pair, applied = other, [*applied, name]
    return pair, applied


def _twin(recipe: Recipe, pair: Pair) -> Model:
    graph, state = pair
    with torch.device("meta"):
        model = Model(replace(recipe, meaning=replace(recipe.meaning, graph=graph)))
    model.load_state_dict(state, assign=True)
    return model.eval()


def _read(case: Case, model: Model) -> Tensor:
    ids = case.ids()
    late = torch.arange(ids.shape[1]) >= ids.shape[1] // 2
    return read(model, ids, documents=late.long().expand_as(ids) if case.seed % 2 else None)


def _first_difference(case: Case, twin: Model) -> str:
    """In words: the first leaf that both have, and whose outputs differ."""
    with traced(case.model) as ours:
        _read(case, case.model)
    with traced(twin) as theirs:
        _read(case, twin)
    for key, (output, *_) in ours.items():
        if key in theirs and distance(theirs[key][0], output) > TOLERANCE:
            return f"first after {key[0]}"
    return "though no leaf's output does"
