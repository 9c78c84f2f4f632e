"""How a page is written is not what it means."""

from __future__ import annotations

import torch

from builder.laws.case import Case
from builder.model import build
from builder.recipe import Recipe, load_recipe


def spelling_changes_nothing(case: Case, other: Recipe | None = None) -> float:
    """Two spellings of a model are one graph, with equal names, weights and logits to the bit.

    The other is the resolved page, if none is given.
    """
    recipe = case.recipe
    other = load_recipe(recipe.resolved, (), recipe.plugins) if other is None else other
    assert recipe.graph == other.graph, "another spelling is another graph"
    assert recipe.hash == other.hash, "another spelling has another hash"
    ours, theirs = (build(r, seed=case.seed).eval() for r in (recipe, other))
    first, second = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(first) == list(second), f"other names: {sorted(set(first) ^ set(second))}"
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), f"{name} begins otherwise in another spelling"
    assert torch.equal(ours(case.ids()), theirs(case.ids())), "another spelling gives other logits"
    return 0.0


def resolved_page_is_its_own(case: Case) -> float:
    """The resolved page needs nothing else: resolved again, it is the same text."""
    text = case.recipe.resolved
    again = load_recipe(text, (), case.recipe.plugins).resolved
    assert again == text, "the resolved page does not resolve to itself"
    return 0.0
