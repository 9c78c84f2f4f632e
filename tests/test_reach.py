"""The window oracle: against what a reader of the recipe would say, and against gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.attend import attend
from blocks.attention import Attention
from blocks.mask import Chunked, SlidingWindow
from blocks.short_conv import ShortConv
from builder import load_recipe
from builder.graph import leaves
from builder.laws import recipes
from builder.laws.case import Case
from builder.laws.reach import Oracle, jacobian_of, reach_is_what_the_masks_say

DIMS = {"dim": 8, "heads": 2, "kv_heads": 1, "ff": 6, "vocab": 11, "context": 24}
T = 10


def case_of(*nodes, seed=0):
    model = ["token_embedding", *nodes, "lm_head"]
    return Case(load_recipe({"recipe": 1, "dims": DIMS, "model": model}), seed, T)


def window(size, **options):
    return {"attention": {"mask": {"sliding_window": size}, **options}}


def chunk(size):
    return {"attention": {"mask": {"chunked": size}}}


def back(count):
    """Each token reads itself and as many before it."""
    return [range(max(0, i - count), i + 1) for i in range(T)]


def chunks(size):
    return [range(i - i % size, i + 1) for i in range(T)]


def matrix(rows):
    return torch.tensor([[j in row for j in range(T)] for row in rows])


LENT = [{**window(2), "as": "memory"}, window(4)]
CASES = {
    "no mixer": (["glu", "rmsnorm"], back(0)),
    "a window": ([window(3)], back(2)),
    "a window of one": ([window(1)], back(0)),
    "three layers of a window": ([{"repeat": 3, "block": {"residual": window(3)}}], back(6)),
    "shared layers": ([{"repeat": 2, "block": window(3), "share": True}], back(4)),
    "full attention": ([{"residual": ["rmsnorm", "attention"]}], back(T)),
    "a chunk": ([chunk(4)], chunks(4)),
    "a chunk of one": ([chunk(1)], back(0)),
    "a window in chunks": (
        [window(2), chunk(4)],  # of its chunk, and of the one place before it
        [range(max(0, i - i % 4 - 1), i + 1) for i in range(T)],
    ),
    "chunks after chunks": (
        [chunk(4), chunk(6)],  # from the beginning of the chunk in which its own chunk begins
        [range(i - i % 6 - (i - i % 6) % 4, i + 1) for i in range(T)],
    ),
    "two windows side by side": ([{"parallel": [window(2), window(5)]}], back(4)),
    "windows of many widths": ([window(2), {"residual": window(3)}, window(4)], back(6)),
    "a convolution": ([{"short_conv": {"kernel": 3}}], back(2)),
    "a convolution and a window": ([{"short_conv": {"kernel": 3}}, window(3)], back(4)),
    "a hybrid": ([window(2), {"residual": "linear_attention"}, window(2)], back(T)),
    "a delta rule": (["gated_delta"], back(T)),
    "joiners": ([{"lerp": window(3)}, {"hyper": window(2), "streams": 2}], back(3)),
    "nothing at all": (["attention", {"scale": 0}], [()] * T),
    "a branch scaled by nothing": ([{"residual": ["attention", {"scale": 0}]}], back(0)),
    "a skip over nothing": (
        [{**window(3), "as": "skip"}, "attention", {"scale": 0}, {"add": "skip"}],
        back(2),
    ),
    "two skips of a U-net": (
        [
            {"repeat": 2, "block": {**window(2), "as": "skip"}},
            {"repeat": 2, "block": [{"scale": 0}, {"add": "skip(layers - 1 - layer)"}, window(2)]},
        ],
        back(2),  # the last layer adds what the first one gave
    ),
    "all before, mixed": (
        [{"repeat": 2, "block": {**window(3), "as": "depth"}}, {"scale": 0}, {"mix": "depth"}],
        back(4),
    ),
    "borrowed keys": ([*LENT, window(3, kv_from="memory")], back(4)),  # its query came from there
    "borrowed keys, one seen": ([*LENT, window(1, kv_from="memory")], back(0)),
    "borrowed keys of what had read": (
        [window(4), {**window(2), "as": "memory"}, {"scale": 0}, window(3, kv_from="memory")],
        back(5),
    ),
    "borrowed values": (
        [window(4), {**window(2), "as": "first"}, {"scale": 0}, window(2, value_from="first")],
        back(4),
    ),
    "borrowed by who lends": (
        [
            *[window(2), {**window(1), "as": "memory"}, {"scale": 0}],
            *[{**window(1, kv_from="memory"), "as": "memory"}, {"scale": 0}],
            window(3, kv_from="memory"),
        ],
        back(3),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reach_is_what_a_reader_would_say(name):
    nodes, rows = CASES[name]
    case = case_of(*nodes)
    may, must = Oracle(case.model, T).logits
    assert torch.equal(may, matrix(rows))
    assert torch.equal(must, may)
    assert reach_is_what_the_masks_say(case) < 1e-12


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_layers_of_a_window_reach_as_far_as_their_gradients(layers, width):
    """By ``layers * (window - 1)``, in the model itself: the masks are not asked."""
    jacobian = jacobian_of(case_of({"repeat": layers, "block": {"residual": window(width)}}))
    assert torch.equal(jacobian > 0, matrix(back(layers * (width - 1))))


def test_a_mixer_that_does_not_say_is_held_to_no_more_than_the_past(monkeypatch):
    monkeypatch.delattr(Attention, "visible")
    case = case_of(window(3), {"residual": window(2)})
    may, must = Oracle(case.model, T).logits
    assert torch.equal(may, matrix(back(T))) and not must.any()
    assert reach_is_what_the_masks_say(case) == 0


def test_the_oracle_knows_what_each_leaf_has_read():
    recipe = load_recipe(
        {
            "recipe": 1,
            "dims": DIMS,
            "model": [
                "token_embedding",
                {"repeat": 2, "block": ["rmsnorm", window(2)], "share": True},
                {"lerp": "short_conv"},
                "lm_head",
            ],
        }
    )
    after = Oracle(Case(recipe).model, T).after
    assert torch.equal(after["layers.0.rmsnorm_before_attention", 2][0], matrix(back(1)))
    assert torch.equal(after["layers.0.attention", 2][0], matrix(back(2)))
    joiner = next(leaf.name for leaf in leaves(recipe.graph) if leaf.word == "lerp")
    assert list(after)[-2:] == [(joiner, 1), ("lm_head", 1)]


def test_the_jacobian_of_one_pass_is_that_of_a_pass_for_each_token():
    case = case_of({"residual": ["rmsnorm", "attention"]}, {"residual": ["layernorm", "glu"]})
    model, ids = case.model, case.ids(1)
    table = model.token_embedding.weight.detach()

    def logits(embedded):
        seen = model.token_embedding.register_forward_hook(lambda m, given, out: embedded[None])
        try:
            return model(ids)[0]
        finally:
            seen.remove()

    whole = torch.autograd.functional.jacobian(logits, table[ids[0]])  # (T, vocab, T, dim)
    assert torch.equal(jacobian_of(case) > 0, whole.abs().sum((1, 3)) > 0)


@settings(max_examples=15)
@given(recipe=recipes(), seed=st.integers(0, 999))
def test_reach_of_drawn_recipes_is_what_the_masks_say(recipe, seed):
    reach_is_what_the_masks_say(Case(recipe, seed))


# What it sees


def test_a_mask_that_is_not_applied_is_seen(monkeypatch):
    monkeypatch.setattr(SlidingWindow, "is_causal", lambda mask, first, end: True)
    with pytest.raises(AssertionError, match=r"hidden from it, first after layers\.1\.attention"):
        reach_is_what_the_masks_say(case_of({"repeat": 1, "pattern": ["glu", window(6)]}))


def test_a_window_that_cuts_off_one_too_many_is_seen(monkeypatch):
    narrow = "blocks.attend._seen"
    monkeypatch.setattr(narrow, lambda call, mask, i, j: (j <= i) & (i - j < mask.span - 1))
    with pytest.raises(AssertionError, match="token 3 reads token 0, though all masks let it"):
        reach_is_what_the_masks_say(case_of(window(4)))


def test_chunks_that_begin_elsewhere_are_seen(monkeypatch):
    moved = "blocks.attend._seen"
    monkeypatch.setattr(moved, lambda call, mask, i, j: Chunked.visible(mask, i + 1, j + 1))
    with pytest.raises(AssertionError, match=r"hidden from it, first after layers\.0\.attention"):
        reach_is_what_the_masks_say(case_of(chunk(4)))


def test_a_convolution_over_one_place_less_than_it_says_is_seen(monkeypatch):
    monkeypatch.setattr(ShortConv, "visible", lambda conv, i, j: (j <= i) & (i - j < 5))
    with pytest.raises(AssertionError, match="token 4 reads token 0, though all masks let it"):
        reach_is_what_the_masks_say(case_of({"short_conv": {"kernel": 4}}))


def test_borrowed_keys_read_under_the_owners_mask_are_seen(monkeypatch):
    case, masks = case_of(*LENT, {"scale": 0}, window(4, kv_from="memory")), []

    def attend_as_the_first(q, k, v, call, mask, **options):
        masks.append(mask)
        return attend(q, k, v, call, masks[0], **options)

    monkeypatch.setattr("blocks.attention.attend", attend_as_the_first)
    with pytest.raises(AssertionError, match="though all masks let it"):
        reach_is_what_the_masks_say(case)


def test_a_later_token_that_is_read_is_seen(monkeypatch):
    plain = ShortConv.forward

    def leaky(conv, x, call, cache=None):
        return plain(conv, x, call, cache) + 1e-6 * x.mean(1, keepdim=True)

    monkeypatch.setattr(ShortConv, "forward", leaky)
    message = r"token 0 reads token 1, which is hidden from it, first after layers\.1\.short_conv"
    case = case_of({"repeat": 1, "pattern": ["attention", "short_conv", "attention"]})
    with pytest.raises(AssertionError, match=message):
        reach_is_what_the_masks_say(case)


def test_a_later_token_that_no_gradient_goes_to_is_seen(monkeypatch):
    """By the logits of another text."""
    plain = ShortConv.forward

    def leaky(conv, x, call, cache=None):
        return plain(conv, x, call, cache) + x.mean(1, keepdim=True).round(decimals=2).detach()

    monkeypatch.setattr(ShortConv, "forward", leaky)
    with pytest.raises(AssertionError, match="token 0 reads token 1, which is hidden"):
        reach_is_what_the_masks_say(case_of("short_conv"))
