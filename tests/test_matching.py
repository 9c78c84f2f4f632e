"""Rows cost the same: the absorbing dim is the best of all that the recipe takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.ablation.matching import cost_of, matched, quick_cost
from builder.ablation.named import MATCHES
from builder.ablation.swaps import variants
from builder.errors import InputError, RecipeError
from builder.measure import count, measure
from builder.recipe import load_recipe
from tests.ablations import settled

SWAPS = {
    "glu": "blocks.decoder.glu={mlp: {act: gelu}}",
    "moe": "blocks.decoder.glu={moe: {experts: 3}}",
    "keys": "dims.kv_heads=1",
    "linear": "blocks.decoder.attention=linear_attention",
    "depth": "model.repeat=3",
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return settled(tmp_path)


def row_of(path, swap):
    base, row = variants([path], (), [SWAPS[swap]])
    return measure(base.recipe), row


def best_by_trying(row, dim, goal, match, multiple, most):
    """The same, the dumb way: every value is tried."""
    found = {}
    for value in range(multiple, most, multiple):
        try:
            recipe = row.with_settings(f"dims.{dim}={value}").recipe
        except RecipeError:
            continue
        found[value] = abs(quick_cost(recipe, match) - goal)
    return min(found.values()), found


@pytest.mark.parametrize(
    ("swap", "match", "dim", "multiple"),
    [
        ("glu", "params", "ff", 1),
        ("glu", "flops", "ff", 4),
        ("moe", "active-params", "ff", 1),
        ("depth", "params", "ff", 1),
        ("depth", "flops", "ff", 3),
        ("linear", "params", "dim", 1),
        ("keys", "kv-bytes", "dim", 1),
    ],
)
def test_the_absorbing_dim_is_the_best_there_is(path, swap, match, dim, multiple):
    costs, row = row_of(path, swap)
    found = matched(row, costs, match, f"dims.{dim}", multiple, tolerance=9)
    least, every = best_by_trying(row, dim, cost_of(costs, match), match, multiple, 56)
    value = found.absorbed or row.recipe.dims[dim]
    assert every[value] == least
    assert found.variant.recipe.dims[dim] == value
    goal = cost_of(costs, match)
    assert found.residual == pytest.approx(cost_of(found.costs, match) / goal - 1)


def test_widths_stay_on_the_lattice_that_heads_and_rope_leave(path):
    """Two heads of an even width: multiples of four."""
    costs, row = row_of(path, "depth")
    found = matched(row, costs, "params", "dims.dim", tolerance=9)
    assert found.absorbed % 4 == 0 and found.absorbed < 16


@pytest.mark.parametrize("match", MATCHES)
def test_what_costs_the_same_is_left_alone(path, match):
    base, row = variants([path], (), ["blocks.decoder.attention.position=alibi"])
    found = matched(row, measure(base.recipe), match, "dims.ff")
    assert found.absorbed is None and found.residual in (0.0, None) and found.variant is row


def test_a_row_that_is_off_is_refused_with_what_would_allow_it(path):
    costs, row = row_of(path, "depth")
    with pytest.raises(InputError, match="the nearest") as caught:
        matched(row, costs, "params", "dims.ff", multiple=32)
    assert caught.value.code == "no-match"
    share = float(caught.value.help.split()[1])
    assert matched(row, costs, "params", "dims.ff", 32, share).absorbed == 32
    with pytest.raises(InputError) as caught:
        matched(row, costs, "params")
    assert caught.value.code == "no-match" and "--absorb" in caught.value.help


@pytest.mark.parametrize(
    ("absorb", "code"),
    [("dims.nothing", "not-a-dim"), ("train.steps", "not-a-dim"), ("dims.context", "idle-absorb")],
)
def test_a_dim_that_absorbs_nothing_is_told(path, absorb, code):
    costs, row = row_of(path, "glu")
    with pytest.raises(InputError) as caught:
        matched(row, costs, "params", absorb)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "name", ["llama", "gallery/moe_every_fourth", "gallery/albert", "gallery/tied"]
)
def test_parameters_are_counted_alike_slowly_and_quickly(name):
    recipe = load_recipe(Path(f"recipes/{name}.yaml"))
    costs = measure(recipe, training=False)
    assert count(recipe) == (costs.parameters, costs.active_parameters)
    for match in MATCHES[1:]:
        assert quick_cost(recipe, match) == cost_of(costs, match)
