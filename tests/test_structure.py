"""What is said of a model untrained is what its mask and its costs say."""

from __future__ import annotations

import pytest
import torch

from builder import build, load_recipe
from builder.ablation.named import COUNTED
from builder.ablation.structure import counted, is_causal, pulls, reach
from builder.measure import measure
from tests.ablations import page

CONTEXT = 24


def recipe_of(attention, repeat=2):
    made = page()
    made["blocks"]["decoder"][0] = {"residual": ["rmsnorm", attention]}
    made["model"][1]["repeat"] = repeat
    return load_recipe(made)


@pytest.mark.parametrize(
    ("attention", "repeat", "expected"),
    [
        ("attention", 1, CONTEXT - 1),
        ({"attention": {"mask": {"sliding_window": 4}}}, 1, 3),
        ({"attention": {"mask": {"sliding_window": 4}}}, 3, 9),
        ({"attention": {"position": "rope", "mask": {"sliding_window": 7}}}, 2, 12),
        ({"short_conv": {"kernel": 3}}, 4, 8),
        ("none", 3, 0),
    ],
)
def test_a_model_reaches_as_far_as_its_layers_together(attention, repeat, expected):
    assert reach(recipe_of(attention, repeat)) == expected


def test_the_gradient_is_that_of_moving_an_embedding():
    """Where no gradient goes, a changed token changes nothing; and where one goes, it does."""
    model = build(
        recipe_of({"attention": {"mask": {"sliding_window": 4}}}), dtype=torch.float64
    ).eval()
    ids = torch.arange(CONTEXT)[None]
    found = pulls(model, ids, 15) > 0
    before = model(ids)[0, 15]
    for place in range(CONTEXT):
        other = ids.clone()
        other[0, place] += 100
        assert found[place] == (model(other)[0, 15] != before).any(), place


def test_causal_models_are_told_from_others():
    model = build(recipe_of("attention"))
    ids = torch.arange(CONTEXT)[None]
    assert is_causal(model, ids)
    model.layers[0].attention.forward = lambda x, **given: x.flip(1)
    assert not is_causal(model, ids)
    assert not any(module._forward_hooks for module in model.modules())


def test_counts_are_those_that_are_measured():
    recipe = load_recipe("recipes/mistral.yaml")
    costs = measure(recipe, training=False)
    found = {name: counted(recipe, name) for name in COUNTED}
    assert found == {
        "reach": 127,  # four windows of 48 see more than the context has
        "parameters": costs.parameters,
        "active_parameters": costs.active_parameters,
        "flops_per_token": costs.per_token(costs.prefill),
        "cache_bytes": costs.cache_bytes,
        "cache_bytes_per_token": costs.cache_bytes_per_token,
    }
