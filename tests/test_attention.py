"""Attention and what goes into it, against loops over heads with their own softmax."""

from __future__ import annotations

import math

import pytest
import torch
from einops import rearrange, repeat

from blocks.attend import attend
from blocks.attention import Attention
from blocks.call import start_call
from blocks.gate import PerChannel, PerHead
from blocks.mask import Causal, Chunked, SlidingWindow
from blocks.registry import maker
from blocks.temperature import LogFloor, Power
from tests.given import DIM, EXACT, HEADS, T, call_of, given, stream

OPTIONS = {
    "plain": {},
    "grouped": {"kv_heads": 2},
    "one key head": {"kv_heads": 1},
    "wide heads": {"head_dim": 6, "value_dim": 6},
    "wide keys": {"head_dim": 4, "value_dim": 3, "kv_heads": 2},
    "biases": {"bias": True, "out_bias": True},
    "scale": {"scale": 0.7},
    "softcap": {"softcap": 0.8},
    "softcap, grouped": {"softcap": 0.8, "kv_heads": 2},
    "clip": {"clip": 0.3, "kv_heads": 2},
    "rope": {"position": maker("rope", theta=50.0)},
    "alibi": {"position": maker("alibi")},
    "alibi, softcap": {"position": maker("alibi"), "softcap": 0.8},
    "qk_norm": {"qk_norm": maker("rmsnorm")},
    "qk_norm, rope": {"qk_norm": maker("rmsnorm"), "position": maker("rope", theta=50.0)},
    "qk_norm over each, then rope": {
        "qk_norm": maker("rmsnorm"),
        "qk_norm_over": "each",
        "position": maker("rope", theta=50.0),
        "kv_heads": 2,
    },
    "qk_norm over all, after rope": {
        "qk_norm": maker("rmsnorm"),
        "qk_norm_over": "all",
        "qk_norm_at": "after",
        "position": maker("rope", theta=50.0),
        "kv_heads": 2,
    },
    "temperature": {"temperature": maker("log_floor", length=2, scale=0.3, offset=1)},
    "sinks": {"sinks": True, "kv_heads": 2},
    "sinks, alibi": {"sinks": True, "position": maker("alibi")},
    "gate for each head": {"gate": maker("per_head")},
    "gate for each channel": {
        "gate": maker("per_channel", act=maker("softplus"), head_bias=True),
        "value_dim": 3,
    },
    "sub_norm": {"sub_norm": maker("rmsnorm"), "value_dim": 3},
}
WINDOWS = {
    "causal": None,
    "window 1": 1,
    "window 2": 2,
    "window 3": 3,
    "window 9": 9,
    "window 20": 20,
}


def attention(**options):
    sizes = {"kv_heads": HEADS, "head_dim": DIM // HEADS, "value_dim": DIM // HEADS}
    return given(Attention(DIM, HEADS, **{**sizes, **options}))


def by_hand(block, x, options, seen):
    """One head after another, one query after another."""
    heads, kv_heads = HEADS, options.get("kv_heads", HEADS)
    q, k, v = (cut(block, x, name) for name in "qkv")  # lists of heads, each (B, T, width)
    rms = options.get("qk_norm"), options.get("qk_norm_over", "head")
    q, k = placed(block, q, "q_norm", *rms, options), placed(block, k, "k_norm", *rms, options)
    if "temperature" in options:
        q = [y * block.temperature.factor(torch.arange(T))[:, None] for y in q]
    scale = options.get("scale", 1 / math.sqrt(block.head_dim))
    outs = []
    for h in range(heads):
        key, value = k[h // (heads // kv_heads)], v[h // (heads // kv_heads)]
        out = torch.zeros(*x.shape[:2], value.shape[-1], dtype=x.dtype)
        for i in range(T):
            there = [j for j in range(T) if seen(i, j)]
            scores = (key[:, there] @ q[h][:, i, :, None])[..., 0] * scale
            if cap := options.get("softcap"):
                scores = cap * torch.tanh(scores / cap)
            if bias := getattr(block.position, "bias", None):
                at = torch.tensor(there)
                scores = scores + bias(torch.full_like(at, i), at, call_of())[h]
            total = scores.exp().sum(-1, keepdim=True)
            if options.get("sinks"):
                total = total + block.sinks[h].exp()
            out[:, i] = ((scores.exp() / total)[..., None] * value[:, there]).sum(1)
        outs.append(out if block.gate is None else out * block.gate(x)[:, h])
    y = torch.cat(outs, -1)
    if "sub_norm" in options:
        y = normed(y, block.sub_norm.weight)
    y = y @ block.o.weight.T
    return y if block.o.bias is None else y + block.o.bias


def cut(block, x, name):
    linear = getattr(block, name)
    y = x @ linear.weight.T
    y = y if linear.bias is None else y + linear.bias
    if block.clip is not None:
        y = y.detach().apply_(lambda n: max(-block.clip, min(block.clip, n)))
    width = {"v": block.o.in_features // HEADS}.get(name, block.head_dim)
    return list(y.split(width, -1))


def placed(block, heads, name, norm, over, options):
    steps = []
    if norm is not None:
        steps.append(lambda heads: all_normed(heads, getattr(block, name).weight, over))
    if block.position is not None:
        at = call_of()
        steps.append(lambda heads: [block.position.rotate(y[:, None], at)[:, 0] for y in heads])
    if options.get("qk_norm_at") == "after":
        steps.reverse()
    for step in steps:
        heads = step(heads)
    return heads


def all_normed(heads, weight, over):
    if over == "all":
        return list(normed(torch.cat(heads, -1), weight).split(heads[0].shape[-1], -1))
    return [normed(y, weight[h] if over == "each" else weight) for h, y in enumerate(heads)]


def normed(y, weight):
    return y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("window", WINDOWS)
def test_attention_is_its_formula(options, window):
    span = WINDOWS[window]
    mask = {} if span is None else {"mask": lambda: SlidingWindow(span)}
    block, x = attention(**OPTIONS[options], **mask), stream()
    expected = by_hand(block, x, OPTIONS[options], lambda i, j: j <= i and i - j < (span or T))
    torch.testing.assert_close(block(x, call_of()), expected, **EXACT)


def test_to_group_heads_is_to_repeat_keys_and_their_order_in_a_group_is_nothing():
    grouped, full = attention(kv_heads=2), attention()
    with torch.no_grad():
        for ours, theirs in ((full.k, grouped.k), (full.v, grouped.v)):
            ours.weight.copy_(repeat(theirs.weight, "(g d) i -> (g r d) i", r=2, d=2))
        full.q.weight.copy_(grouped.q.weight)
        full.o.weight.copy_(grouped.o.weight)
    x = stream()
    torch.testing.assert_close(grouped(x, call_of()), full(x, call_of()), **EXACT)
    order = torch.tensor([1, 0, 3, 2])
    swapped = attention(kv_heads=2)
    with torch.no_grad():
        rows = rearrange(grouped.q.weight, "(h d) i -> h d i", d=2)[order]
        swapped.q.weight.copy_(rearrange(rows, "h d i -> (h d) i"))
        columns = rearrange(grouped.o.weight, "i (h d) -> i h d", d=2)[:, order]
        swapped.o.weight.copy_(rearrange(columns, "i h d -> i (h d)"))
    torch.testing.assert_close(grouped(x, call_of()), swapped(x, call_of()), **EXACT)


def test_a_gate_for_each_head_is_its_formula():
    block, x = given(PerHead(DIM, HEADS)), stream()
    for h in range(HEADS):
        expected = 1 / (1 + torch.exp(-(x @ block.weight[h])))
        torch.testing.assert_close(block(x)[:, h, :, 0], expected, **EXACT)


def test_a_gate_for_each_channel_is_its_formula():
    block, x = given(PerChannel(DIM, HEADS, 3, act=maker("softplus"), head_bias=True)), stream()
    for h in range(HEADS):
        expected = (1 + torch.exp(x @ block.weight[3 * h : 3 * h + 3].T + block.bias[h])).log()
        torch.testing.assert_close(block(x)[:, h], expected, **EXACT)


def test_log_floor_steps_up_after_every_length_positions():
    factors = LogFloor(length=3, scale=0.5, offset=1).factor(torch.arange(9)).tolist()
    expected = [1 + 0.5 * math.log(1 + (position + 1) // 3) for position in range(9)]
    assert factors == pytest.approx(expected, abs=1e-15)


def test_power_is_its_formula():
    factors = Power(length=4, exponent=0.5).factor(torch.arange(9)).tolist()
    assert factors == pytest.approx([math.sqrt((p + 5) / 4) for p in range(9)], abs=1e-15)


def test_causal_is_all_up_to_a_token():
    mask = Causal()
    seen = mask.visible(torch.arange(5)[:, None], torch.arange(5)[None])
    assert torch.equal(seen, torch.ones(5, 5).tril().bool()) and mask.span is None


def test_a_window_reaches_back_as_far_as_it_says():
    """Token j moves position i exactly when i - w < j <= i; a window of T or more is causal."""
    for window in (1, 2, 3, 5):
        block, x = attention(mask=lambda w=window: SlidingWindow(w)), stream()
        for j in range(T):
            changed = x.clone()
            changed[:, j] += 1
            moved = (block(changed, call_of()) - block(x, call_of())).abs().amax((0, 2)) > 1e-9
            assert [i for i in range(T) if moved[i]] == list(range(j, min(T, j + window)))
    wide, full = attention(mask=lambda: SlidingWindow(T)), attention()
    torch.testing.assert_close(wide(stream(), call_of()), full(stream(), call_of()), **EXACT)


def test_a_chunk_sees_itself():
    """Token j moves position i exactly when both stand in one chunk; one of T or more is causal."""
    for size in (1, 2, 4, 5):
        block, x = attention(mask=lambda s=size: Chunked(s)), stream()
        for j in range(T):
            changed = x.clone()
            changed[:, j] += 1
            moved = (block(changed, call_of()) - block(x, call_of())).abs().amax((0, 2)) > 1e-9
            end = (j // size + 1) * size
            assert [i for i in range(T) if moved[i]] == list(range(j, min(T, end)))
    wide, full = attention(mask=lambda: Chunked(T)), attention()
    torch.testing.assert_close(wide(stream(), call_of()), full(stream(), call_of()), **EXACT)


def test_attention_takes_no_mask_tensor_where_causal_order_suffices(monkeypatch):
    given_masks = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, **rest):
        given_masks.append(attn_mask)
        return plain(*args, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    attention(kv_heads=2)(stream(), call_of())
    assert given_masks == [None]


def test_a_window_costs_no_square_of_the_length(monkeypatch):
    """Scores of 4096 positions under a window of 16 are 4096 x 31, not 4096 x 4096."""
    sizes = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, *rest, **options):
        sizes.append(q.shape[0] * q.shape[2] * k.shape[2])
        return plain(q, k, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    q = torch.randn(1, 1, 4096, 2)
    call = start_call(torch.zeros(1, 4096, dtype=torch.long), 0, None, None)
    attend(q, q, q, call, SlidingWindow(16), scale=1.0)
    assert sizes == [4096 * 31]
