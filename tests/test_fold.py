from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builder import load_recipe
from builder.fold import Repeat, fold
from builder.graph import Layer

DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 24}
LOCAL = {"residual": {"attention": {"mask": {"sliding_window": 4}}}}
FULL = {"residual": "attention"}


def folded(pattern):
    model = ["token_embedding", {"repeat": 1, "pattern": pattern}, "rmsnorm", "lm_head"]
    page = {"recipe": 1, "dims": DIMS, "blocks": {"a": LOCAL, "b": FULL}, "model": model}
    return fold(load_recipe(page).graph)


def spelt(items):
    """``3(2a b)`` as nested tuples of counts and the layers' windows."""
    told = []
    for item in items:
        if isinstance(item, Repeat):
            told.append((item.times, spelt(item.items)))
        elif isinstance(item, Layer):
            told.append("a" if item.body.body["mask"].word == "sliding_window" else "b")
    return told


def unfolded(told):
    return "".join(unfolded(t[1]) * t[0] if isinstance(t, tuple) else t for t in told)


def test_alike_layers_stand_once():
    assert spelt(folded(["a"] * 4)) == [(4, ["a"])]


def test_alike_rounds_stand_once_and_are_folded_themselves():
    assert spelt(folded(["a", "a", "b"] * 3)) == [(3, [(2, ["a"]), "b"])]


def test_what_lies_beside_the_layers_stays():
    items = folded(["a", "b"])
    assert [getattr(item, "word", "layer") for item in items] == [
        "token_embedding",
        "layer",
        "layer",
        "rmsnorm",
        "lm_head",
    ]


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=9))
def test_unfolding_gives_the_layers_back(pattern):
    assert unfolded(spelt(folded(pattern))) == "".join(pattern)
