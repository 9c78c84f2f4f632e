"""A recipe's twin is small, and has all that the laws may find fault with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from builder import build, load_recipe
from builder.fold import shape
from builder.graph import Filler, leaves
from builder.index import load_index
from builder.laws import Case, recipes
from builder.laws.causality import has_right_shapes
from builder.laws.options import words_of
from builder.laws.twin import (
    CONTEXT,
    NARROWEST,
    VOCAB,
    WIDE,
    count_weights,
    is_legal,
    kept_layers,
    stream_widths,
    twin,
    with_layers,
)
from tests.shipped import RECIPES

HEAD = {"dim": 256, "heads": 8, "ff": 512, "vocab": 4096, "context": 2048}


def recipe_of(*model, blocks=None, **dims):
    model = ["token_embedding", *model, "lm_head"]
    page = {"recipe": 1, "dims": HEAD | dims, "blocks": blocks or {}, "model": model}
    return load_recipe(page)


def spans(graph):
    """Of each mask that has one, in order of execution."""
    masks = [w for w in words_of(graph) if isinstance(w, Filler) and w.kind == "mask"]
    return [value for mask in masks for _, value in mask.options]


def order(numbers):
    """Which are equal, and which is less than which."""
    return [sorted(set(numbers)).index(number) for number in numbers]


def sharing(graph):
    """For each leaf, the place of the leaf whose weights it uses."""
    names = [leaf.name for leaf in leaves(graph)]
    return [names.index(leaf.weights) for leaf in leaves(graph)]


def assert_stands_for_all(recipe):
    """The twin of a recipe is small, legal, runs, and is like it, layer for layer that is kept."""
    small = twin(recipe)
    graph, whole = small.recipe.graph, with_layers(recipe.graph, small.layers)
    assert {shape(layer.body) for layer in whole.layers} == {
        shape(layer.body) for layer in recipe.graph.layers
    }
    assert [leaf.word for leaf in leaves(graph)] == [leaf.word for leaf in leaves(whole)]
    assert sharing(graph) == sharing(whole)
    assert [small.in_original(leaf.name) for leaf in leaves(graph)] == [
        leaf.name
        for leaf in leaves(recipe.graph)
        if not leaf.name.startswith("layers.")
        or not leaf.name.split(".")[1].isdigit()
        or int(leaf.name.split(".")[1]) in small.layers
    ]
    assert order(spans(graph)) == order(spans(whole))
    assert all(ours <= theirs for ours, theirs in zip(spans(graph), spans(whole), strict=True))
    assert graph.vocab <= VOCAB or graph.vocab in stream_widths(graph)
    assert graph.context <= CONTEXT
    assert min(stream_widths(graph)) >= min(NARROWEST, *stream_widths(whole))
    assert is_legal(graph, load_index())
    has_right_shapes(Case(small.recipe))
    return small


@pytest.mark.slow
@settings(max_examples=60)
@given(recipe=recipes())
def test_twin_of_a_drawn_recipe_stands_for_all_of_it(recipe):
    assert_stands_for_all(recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_twin_of_a_recipe_of_any_size_stands_for_all_of_it_and_is_small(path):
    recipe = load_recipe(path)
    small = assert_stands_for_all(recipe)
    assert max(stream_widths(small.recipe.graph)) == WIDE
    assert count_weights(build(small.recipe, device="meta")) < 300_000


def test_twin_keeps_two_of_the_layers_that_are_alike():
    graph = recipe_of({"repeat": 3, "pattern": ["glu*5", "attention"]}).graph
    assert kept_layers(graph) == (0, 1, 5, 11)


def test_twin_keeps_the_layer_whose_weights_another_uses():
    graph = recipe_of(
        {"repeat": 3, "block": "mlp"}, {"repeat": 3, "block": "mlp", "share": True}
    ).graph
    assert kept_layers(graph) == (0, 1, 3, 4, 5)


def test_twin_keeps_every_layer_if_something_is_read_across_depth():
    start, read = {"gain": 1.0, "as": "start"}, {"residual": ["glu", {"add": "start"}]}
    recipe = recipe_of(start, {"repeat": 6, "block": read})
    assert len(twin(recipe).layers) == 6


def test_windows_of_a_twin_are_short_and_in_the_order_of_the_originals():
    windows = [{"attention": {"mask": {"sliding_window": w}}} for w in (512, 2, 64, 512)]
    small = twin(recipe_of(*({"residual": window} for window in windows)))
    assert spans(small.recipe.graph) == [7, 2, 5, 7]


def test_what_is_small_already_is_its_own_twin():
    recipe = recipe_of("glu", dim=8, heads=2, ff=6, vocab=11, context=24)
    assert twin(recipe).is_itself and str(twin(recipe)) == "as it is"


def test_an_expert_is_as_narrow_as_its_stream():
    small = twin(recipe_of({"residual": {"moe": {"expert": ["rmsnorm", "glu"]}}}, experts=4))
    assert {leaf.dim for leaf in leaves(small.recipe.graph) if leaf.kind != "embedding"} == {WIDE}


def test_what_stands_on_logits_is_as_wide_as_the_words():
    page = load_recipe(
        {
            "recipe": 1,
            "dims": HEAD,
            "model": ["token_embedding", "glu", "lm_head", {"gain": 1.0}, {"scale": 0.5}],
        }
    )
    graph = twin(page).recipe.graph
    assert [leaf.out for leaf in graph.items[-3:]] == [VOCAB, VOCAB, VOCAB]


def test_vocabulary_as_large_as_the_stream_is_wide_stays_so():
    small = twin(recipe_of("glu", {"gain": 1.0}, vocab=256)).recipe
    assert small.graph.vocab == WIDE
    has_right_shapes(Case(small))
