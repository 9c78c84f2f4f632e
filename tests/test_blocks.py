"""Every registered block against a second, dumber derivation in plain float64."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from einops import einsum, rearrange, repeat
from torch.nn.functional import softmax

from blocks import registry
from blocks.attend import attend
from blocks.attention import Attention
from blocks.call import start_call
from blocks.gain import Gain
from blocks.glu import GLU
from blocks.layernorm import LayerNorm
from blocks.learned_positions import LearnedPositions
from blocks.linear import Linear
from blocks.lm_head import LMHead
from blocks.mask import Causal, Chunked, SlidingWindow
from blocks.mlp import MLP
from blocks.moe import MoE, Softmax, stack
from blocks.registry import maker
from blocks.rmsnorm import RMSNorm
from blocks.rope import Rope
from blocks.sinusoidal_positions import SinusoidalPositions
from blocks.token_embedding import TokenEmbedding
from builder import build, load_recipe
from builder.index import load_index
from builder.laws import perturb

B, T, DIM, HEADS, FF = 2, 9, 8, 4, 5
EXACT = {"rtol": 0, "atol": 1e-12}  # sums of a few dozen float64 products


def given(module, seed=0):
    """A block in float64 with every weight in general position."""
    return perturb(module.double(), seed).eval()


def stream(seed=0, *shape):
    return torch.randn(
        *(shape or (B, T, DIM)), generator=torch.Generator().manual_seed(seed)
    ).double()


def call_of(padding=None, documents=None, start=0, length=T):
    ids = torch.zeros(B, length, dtype=torch.long)
    return start_call(ids, start, documents, padding)


# Norms, maps, feed-forwards


def check_rmsnorm():
    block, x = given(RMSNorm(DIM, eps=0.5)), stream()
    by_hand = x / (x.pow(2).sum(-1, keepdim=True) / DIM + 0.5).sqrt() * block.weight
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    assert RMSNorm(DIM, weight=False).weight is None
    torch.testing.assert_close(
        RMSNorm(DIM).double()(3 * x), RMSNorm(DIM).double()(x), rtol=0, atol=1e-5
    )


def check_layernorm():
    block, x = given(LayerNorm(DIM, eps=0.5)), stream()
    mean = x.sum(-1, keepdim=True) / DIM
    variance = (x - mean).pow(2).sum(-1, keepdim=True) / DIM
    by_hand = (x - mean) / (variance + 0.5).sqrt() * block.weight + block.bias
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    plain = LayerNorm(DIM, weight=False, bias=False).double()
    torch.testing.assert_close(plain(x + 7), plain(x), **EXACT)


def check_gain():
    block, x = given(Gain(0.5, DIM)), stream()
    torch.testing.assert_close(block(x), einsum(x, block.weight, "b t d, d -> b t d"), **EXACT)
    assert (Gain(0.5, DIM).weight == 0.5).all()


def check_linear():
    block, x = given(Linear(3, DIM, bias=True)), stream()
    by_hand = einsum(x, block.weight, "b t d, o d -> b t o") + block.bias
    torch.testing.assert_close(block(x), by_hand, **EXACT)


def check_scale():
    x = stream()
    assert torch.equal(made("scale", 0.5)(x), x / 2)
    assert torch.equal(made("scale", 1.0)(x), x)
    assert not made("scale", 0.0)(x).any()


def check_softcap():
    x = 10 * stream()
    by_hand = torch.tensor([2 * math.tanh(v / 2) for v in x.flatten().tolist()]).double().view_as(x)
    torch.testing.assert_close(made("softcap", 2.0)(x), by_hand, rtol=0, atol=1e-6)
    assert made("softcap", 2.0)(x).abs().max() < 2
    torch.testing.assert_close(made("softcap", 1e9)(x), x, rtol=0, atol=1e-9)


def check_dropout():
    x = torch.ones(200, 200).double()
    block = made("dropout", 0.25)
    assert torch.equal(block.eval()(x), x)
    torch.manual_seed(0)
    dropped = block.train()(x)
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(float((dropped == 0).double().mean()) - 0.25) < 0.01  # 40,000 coins: five deviations
    assert torch.equal(made("dropout", 0.0).train()(x), x)


def check_mlp():
    block, x = given(MLP(DIM, FF)), stream()
    inner = einsum(x, block.up.weight, "b t d, f d -> b t f") + block.up.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    by_hand = einsum(inner, block.down.weight, "b t f, d f -> b t d") + block.down.bias
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    assert [name for name, _ in MLP(DIM, FF, bias=False).named_parameters()] == [
        "up.weight",
        "down.weight",
    ]


def check_glu():
    block, x = given(GLU(DIM, FF)), stream()
    gate, up = (einsum(x, m.weight, "b t d, f d -> b t f") for m in (block.gate, block.up))
    by_hand = einsum(gate / (1 + (-gate).exp()) * up, block.down.weight, "b t f, d f -> b t d")
    torch.testing.assert_close(block(x), by_hand, **EXACT)


def made(word, *values, **options):
    return registry.construct(registry.load()["node", word], *values, **options)


# Activations, by the formulas of their papers


def activation(word, formula):
    def check():
        x = torch.linspace(-4, 4, 41).double()
        by_hand = torch.tensor([formula(v) for v in x.tolist()]).double()
        torch.testing.assert_close(registry.load()["act", word]()(x), by_hand, rtol=0, atol=1e-6)

    return check


ACTIVATIONS = {
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "gelu_quick": lambda x: x / (1 + math.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


# Embeddings, positions, head


def check_token_embedding():
    block = given(TokenEmbedding(7, DIM))
    ids = torch.tensor([[3, 0, 6]])
    one_hot = torch.eye(7).double()[ids]
    torch.testing.assert_close(block(ids), one_hot @ block.weight, **EXACT)


def check_lm_head():
    block, x = given(LMHead(DIM, 7, bias=True)), stream()
    by_hand = einsum(x, block.weight, "b t d, v d -> b t v") + block.bias
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    page = {"recipe": 1, "dims": {"dim": 8, "vocab": 7, "context": 4}}
    tied = build(load_recipe(page | {"model": ["token_embedding", {"lm_head": {"tie": True}}]}))
    assert tied.lm_head.weight is tied.token_embedding.weight
    assert sum(p.numel() for p in tied.parameters()) == 7 * 8


def check_learned_positions():
    block, x = given(LearnedPositions(DIM, T)), stream()
    torch.testing.assert_close(block(x, call_of()), x + block.weight, **EXACT)
    late = block(x[:, :3], call_of(start=4, length=3))
    torch.testing.assert_close(late, x[:, :3] + block.weight[4:7], **EXACT)
    with pytest.raises(ValueError, match="position 9 is past the 9"):
        block(stream(0, B, T + 1, DIM), call_of(length=T + 1))


def check_sinusoidal_positions():
    block = SinusoidalPositions(DIM, theta=100.0)
    added = block(torch.zeros(B, T, DIM).double(), call_of())
    for t in range(T):
        for pair in range(DIM // 2):
            angle = t / 100.0 ** (2 * pair / DIM)
            assert abs(float(added[0, t, 2 * pair]) - math.sin(angle)) < 1e-12
            assert abs(float(added[0, t, 2 * pair + 1]) - math.cos(angle)) < 1e-12


def check_rope():
    """Pairs as complex numbers, turned by a unit factor; a score depends on the distance."""
    q, k = stream(1, B, HEADS, T, 6), stream(2, B, 1, T, 6)
    for pairs, layout in (("half", "(two i) -> i two"), ("interleaved", "(i two) -> i two")):
        block = Rope(6, theta=100.0, pairs=pairs)
        turned, other = (block.rotate(x, call_of()) for x in (q, k))
        for ours, theirs in ((turned, q), (other, k)):
            number = torch.view_as_complex(
                rearrange(theirs, f"... {layout.split(' -> ')[0]} -> ... i two", two=2).contiguous()
            )
            angles = torch.arange(T).double()[:, None] / 100.0 ** (torch.arange(3).double() / 3)
            expected = torch.view_as_real(number * torch.polar(torch.ones_like(angles), angles))
            back = rearrange(expected, f"... i two -> ... {layout.split(' -> ')[0]}")
            torch.testing.assert_close(ours, back, **EXACT)
    late = Rope(6, theta=100.0)
    here, there = ([late.rotate(x, call_of(start=s)) for x in (q, k)] for s in (0, 50))
    scores = [einsum(a, b, "b h i d, b g j d -> b h g i j") for a, b in (here, there)]
    torch.testing.assert_close(scores[0], scores[1], **EXACT)
    wide = stream(1, B, 1, T, 8)
    partial = Rope(8, fraction=0.5).rotate(wide, call_of())
    assert torch.equal(partial[..., 4:], wide[..., 4:])
    assert not torch.equal(partial[..., :4], wide[..., :4])


def test_rotary_tables_of_one_call_are_each_layer_s_own():
    """Layers of several thetas, fractions or types share what they compute, and no more."""
    x, call = stream(1, B, HEADS, T, 8), call_of()
    blocks = [Rope(8), Rope(8, theta=50.0), Rope(8, fraction=0.5), Rope(8, theta=50.0)]
    for block in blocks:
        assert torch.equal(block.rotate(x, call), block.rotate(x, call_of()))
        assert block.rotate(x.float(), call).dtype == torch.float32


def check_alibi():
    """The slopes of the paper's examples, and its bias by a loop."""
    cls = registry.load()["position", "alibi"]
    assert cls(heads=8).slopes == tuple(2.0**-h for h in range(1, 9))
    assert cls(heads=3).slopes == (2.0**-4, 2.0**-8, 2.0**-2)
    assert cls(heads=6).slopes == tuple(2.0**-h for h in (2, 4, 6, 8, 1, 3))
    places = torch.arange(T)
    bias = cls(heads=HEADS).bias(places[:, None], places[None])
    for h in range(HEADS):
        for i in range(T):
            for j in range(i + 1):
                assert float(bias[h, i, j]) == -(2.0 ** (-8 * (h + 1) / HEADS)) * (i - j)


# Attention


def dense(block, x, *, mask=lambda i, j: j <= i, bias=None, scale=None):
    """Attention by einsum and loops over heads, with its own softmax."""
    group = block.q.out_features // block.k.out_features

    def heads(linear):
        y = einsum(x, linear.weight, "b t d, o d -> b t o")
        y = y if linear.bias is None else y + linear.bias
        return rearrange(y, "b t (h d) -> b h t d", d=block.head_dim)

    q, k, v = heads(block.q), heads(block.k), heads(block.v)
    if block.q_norm is not None:
        q, k = block.q_norm(q), block.k_norm(k)
    if block.position is not None:
        q, k = (block.position.rotate(y, call_of(length=x.shape[1])) for y in (q, k))
    k, v = (repeat(y, "b g t d -> b (g r) t d", r=group) for y in (k, v))
    scores = einsum(q, k, "b h i d, b h j d -> b h i j")
    scores = scores / math.sqrt(block.head_dim) if scale is None else scores * scale
    if block.softcap is not None:
        scores = block.softcap * torch.tanh(scores / block.softcap)
    places = torch.arange(x.shape[1])
    i, j = places[:, None], places[None]
    if bias is not None:
        scores = scores + bias(i, j)
    weights = torch.where(mask(i, j), scores, -torch.inf).exp()
    weights = weights / weights.sum(-1, keepdim=True)
    out = rearrange(einsum(weights, v, "b h i j, b h j d -> b h i d"), "b h t d -> b t (h d)")
    out = einsum(out, block.o.weight, "b t o, d o -> b t d")
    return out if block.o.bias is None else out + block.o.bias


OPTIONS = {
    "plain": {},
    "grouped": {"kv_heads": 2},
    "one key head": {"kv_heads": 1},
    "wide heads": {"head_dim": 6},
    "biases": {"bias": True, "out_bias": True},
    "scale": {"scale": 0.7},
    "softcap": {"softcap": 0.8},
    "softcap, grouped": {"softcap": 0.8, "kv_heads": 2},
    "rope": {"position": maker("rope", theta=50.0)},
    "alibi": {"position": maker("alibi")},
    "alibi, softcap": {"position": maker("alibi"), "softcap": 0.8},
    "qk_norm": {"qk_norm": maker("rmsnorm")},
    "qk_norm, rope": {"qk_norm": maker("rmsnorm"), "position": maker("rope", theta=50.0)},
}
WINDOWS = {
    "causal": None,
    "window 1": 1,
    "window 2": 2,
    "window 3": 3,
    "window 9": 9,
    "window 20": 20,
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("window", WINDOWS)
def test_attention_is_its_formula(options, window):
    span = WINDOWS[window]
    mask = {} if span is None else {"mask": lambda: SlidingWindow(span)}
    sizes = {"kv_heads": HEADS, "head_dim": DIM // HEADS}
    block = given(Attention(DIM, HEADS, **{**sizes, **OPTIONS[options], **mask}))
    x = stream()

    def seen(i, j):
        return (j <= i) & (i - j < (span or T))

    bias = getattr(block.position, "bias", None)
    by_hand = dense(block, x, mask=seen, bias=bias, scale=OPTIONS[options].get("scale"))
    torch.testing.assert_close(block(x, call_of()), by_hand, **EXACT)


def check_attention():
    """GQA is MHA with repeated keys; to permute heads in a group is nothing."""
    grouped = given(Attention(DIM, HEADS, 2, 2))
    full = given(Attention(DIM, HEADS, HEADS, 2))
    with torch.no_grad():
        for ours, theirs in ((full.k, grouped.k), (full.v, grouped.v)):
            ours.weight.copy_(repeat(theirs.weight, "(g d) i -> (g r d) i", r=2, d=2))
        full.q.weight.copy_(grouped.q.weight)
        full.o.weight.copy_(grouped.o.weight)
    x = stream()
    torch.testing.assert_close(grouped(x, call_of()), full(x, call_of()), **EXACT)
    order = torch.tensor([1, 0, 3, 2])
    swapped = given(Attention(DIM, HEADS, 2, 2))
    with torch.no_grad():
        rows = rearrange(grouped.q.weight, "(h d) i -> h d i", d=2)[order]
        swapped.q.weight.copy_(rearrange(rows, "h d i -> (h d) i"))
        columns = rearrange(grouped.o.weight, "i (h d) -> i h d", d=2)[:, order]
        swapped.o.weight.copy_(rearrange(columns, "i h d -> i (h d)"))
    torch.testing.assert_close(grouped(x, call_of()), swapped(x, call_of()), **EXACT)


def check_causal():
    mask = Causal()
    seen = mask.visible(torch.arange(5)[:, None], torch.arange(5)[None])
    assert torch.equal(seen, torch.ones(5, 5).tril().bool()) and mask.span is None


def check_sliding_window():
    """Token j moves position i exactly when i - w < j <= i; a window of T or more is causal."""
    for window in (1, 2, 3, 5):
        block, x = (
            given(Attention(DIM, HEADS, HEADS, 2, mask=lambda w=window: SlidingWindow(w))),
            stream(),
        )
        for j in range(T):
            changed = x.clone()
            changed[:, j] += 1
            moved = (block(changed, call_of()) - block(x, call_of())).abs().amax((0, 2)) > 1e-9
            assert [i for i in range(T) if moved[i]] == list(range(j, min(T, j + window)))
    wide = given(Attention(DIM, HEADS, HEADS, 2, mask=lambda: SlidingWindow(T)))
    full = given(Attention(DIM, HEADS, HEADS, 2))
    torch.testing.assert_close(wide(x, call_of()), full(x, call_of()), **EXACT)


def check_chunked():
    """Token j moves position i exactly when both stand in one chunk; one of T or more is causal."""
    for size in (1, 2, 4, 5):
        block, x = given(Attention(DIM, HEADS, HEADS, 2, mask=lambda s=size: Chunked(s))), stream()
        for j in range(T):
            changed = x.clone()
            changed[:, j] += 1
            moved = (block(changed, call_of()) - block(x, call_of())).abs().amax((0, 2)) > 1e-9
            end = (j // size + 1) * size
            assert [i for i in range(T) if moved[i]] == list(range(j, min(T, end)))
    wide = given(Attention(DIM, HEADS, HEADS, 2, mask=lambda: Chunked(T)))
    full = given(Attention(DIM, HEADS, HEADS, 2))
    torch.testing.assert_close(wide(x, call_of()), full(x, call_of()), **EXACT)


def test_attention_takes_no_mask_tensor_where_causal_order_suffices(monkeypatch):
    given_masks = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, attn_mask=None, **rest):
        given_masks.append(attn_mask)
        return plain(*args, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    given(Attention(DIM, HEADS, 2, 2))(stream(), call_of())
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


# Experts


def experts_by_loop(block, x):
    """Each token through each expert, one at a time, weighed by the router's formula."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            token = x[b, t]
            scores = softmax(block.router.score.weight @ token, 0)
            order = sorted(range(block.count), key=lambda e: -float(scores[e]))[
                : block.router.top_k
            ]
            total = sum(float(scores[e]) for e in order) if block.router.normalise else 1.0
            for e in order:
                gate, up, down = (
                    getattr(block.experts, n).weight[e] for n in ("gate", "up", "down")
                )
                inner = gate @ token
                inner = inner / (1 + (-inner).exp()) * (up @ token)
                out[b, t] += float(scores[e]) / total * (down @ inner)
    return out


def glu_expert(dim):
    return GLU(dim, FF)


@torch.no_grad()
def check_moe():
    """One expert is its feed-forward; several are a loop over tokens and experts."""
    alone = given(MoE(DIM, 1, expert=glu_expert, router=maker("softmax", top_k=1)))
    single = GLU(DIM, FF).double()
    for name, parameter in single.named_parameters():
        parameter.copy_(alone.experts.get_parameter(name)[0])
    torch.testing.assert_close(alone(stream(), call_of()), single(stream()), **EXACT)
    for normalise in (True, False):
        router = maker("softmax", top_k=2, normalise=normalise)
        block = given(MoE(DIM, 4, expert=glu_expert, router=router))
        expected = experts_by_loop(block, stream())
        torch.testing.assert_close(block(stream(), call_of()), expected, **EXACT)


def check_softmax():
    block, x = given(Softmax(DIM, 5, top_k=2)), stream()[0]
    weights, chosen, scores = block(x)
    by_hand = (x @ block.score.weight.T).exp()
    by_hand = by_hand / by_hand.sum(-1, keepdim=True)
    torch.testing.assert_close(scores, by_hand, **EXACT)
    torch.testing.assert_close(weights.sum(-1), torch.ones(T).double(), **EXACT)
    assert torch.equal(chosen, by_hand.argsort(-1, descending=True)[:, :2])
    weights, chosen, _ = given(Softmax(DIM, 5, top_k=2, normalise=False))(x)
    torch.testing.assert_close(weights, by_hand.gather(1, chosen), **EXACT)


@torch.no_grad()
def test_the_balance_loss_is_one_when_experts_are_chosen_alike():
    block = MoE(4, 4, expert=lambda dim: GLU(dim, 3), router=maker("softmax", top_k=1), balance=1.0)
    block = block.double().train()
    with torch.no_grad():
        block.router.score.weight.copy_(1e-9 * torch.eye(4))
        for parameter in block.experts.parameters():
            parameter.zero_()
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block(torch.eye(4).double()[None], call)
    assert abs(float(call.losses[0]) - 1) < 1e-6
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block(1e12 * torch.eye(4).double()[:1].expand(1, 4, 4), call)  # every token takes expert 0
    assert abs(float(call.losses[0]) - 4) < 1e-6
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block.eval()(torch.eye(4).double()[None], call)
    assert call.losses == []


@torch.no_grad()
def test_the_balance_loss_is_its_formula():
    """By a loop: each token's choices count as one, and padding as none."""
    count, top_k = 5, 2
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, :3] = True
    router = maker("softmax", top_k=top_k)
    block = given(MoE(DIM, count, expert=glu_expert, router=router, balance=0.3)).train()
    for hidden in (None, padding):
        call, x = call_of(hidden), stream()
        block(x, call)
        places = [(b, t) for b in range(B) for t in range(T) if hidden is None or not hidden[b, t]]
        share, mean = [0.0] * count, [0.0] * count
        for place in places:
            scores = softmax(block.router.score.weight @ x[place], 0).tolist()
            for e in sorted(range(count), key=lambda e: -scores[e])[:top_k]:
                share[e] += 1 / top_k / len(places)
            mean = [m + score / len(places) for m, score in zip(mean, scores, strict=True)]
        by_hand = 0.3 * count * sum(s * m for s, m in zip(share, mean, strict=True))
        (loss,) = call.losses
        assert abs(float(loss) - by_hand) < 1e-12


def test_stacked_experts_have_room_in_front_of_every_parameter():
    stacked = stack(GLU(DIM, FF), 3)
    assert stacked.gate.weight.shape == (3, FF, DIM) and stacked.gate.weight.stacked is True


# The table

CHECKS = {
    ("node", "attention"): check_attention,
    ("node", "dropout"): check_dropout,
    ("node", "gain"): check_gain,
    ("node", "glu"): check_glu,
    ("node", "layernorm"): check_layernorm,
    ("node", "learned_positions"): check_learned_positions,
    ("node", "linear"): check_linear,
    ("node", "lm_head"): check_lm_head,
    ("node", "mlp"): check_mlp,
    ("node", "moe"): check_moe,
    ("node", "rmsnorm"): check_rmsnorm,
    ("node", "scale"): check_scale,
    ("node", "sinusoidal_positions"): check_sinusoidal_positions,
    ("node", "softcap"): check_softcap,
    ("node", "token_embedding"): check_token_embedding,
    ("mask", "causal"): check_causal,
    ("mask", "sliding_window"): check_sliding_window,
    ("mask", "chunked"): check_chunked,
    ("position", "alibi"): check_alibi,
    ("position", "rope"): check_rope,
    ("router", "softmax"): check_softmax,
    **{("act", word): activation(word, formula) for word, formula in ACTIVATIONS.items()},
}
OF_TRAINING = {
    "data",
    "init",
    "optimizer",
    "schedule",
    "section",
    "tokenizer",
}  # tests of their own
ELSEWHERE = {  # whose second derivations have files of their own
    "test_mixers.py": {"gated_delta", "linear_attention", "short_conv"},
    "test_wiring.py": {"add", "mix", "lerp", "hyper", "open_streams", "sum_streams"},
}


@pytest.mark.parametrize("word", CHECKS, ids=".".join)
def test_block_is_its_formula(word):
    CHECKS[word]()


PROMISED = {  # by the papers; a page that leaves an option out means this
    "attention": {"bias": False, "out_bias": False, "scale": None, "softcap": None, "dropout": 0.0},
    "gated_delta": {"kernel": 4, "eps": 1e-6},
    "glu": {"act": "silu", "bias": False},
    "hyper": {"streams": 4, "first": 0, "dynamic": True},
    "layernorm": {"eps": 1e-5, "weight": True, "bias": True},
    "lerp": {"initial": 0.05},
    "linear": {"bias": False},
    "linear_attention": {"feature": "elu", "decay": False, "norm": False, "gate": None},
    "lm_head": {"tie": False, "bias": False},
    "mlp": {"act": "gelu", "bias": True},
    "moe": {"expert": "glu", "router": "softmax", "balance": 0.0},
    "rmsnorm": {"eps": 1e-6, "weight": True},
    "rope": {"theta": 10_000.0, "fraction": 1.0, "pairs": "half"},
    "short_conv": {"kernel": 4, "act": None, "bias": False},
    "sinusoidal_positions": {"theta": 10_000.0},
    "softmax": {"top_k": 2, "normalise": True, "bias": False},
}


def test_an_option_that_is_left_out_is_what_the_papers_say():
    found = {entry.word: entry for entry in load_index() if entry.namespace not in OF_TRAINING}
    for word, promised in PROMISED.items():
        defaults = {p.name: getattr(p.default, "word", p.default) for p in found[word].parameters}
        assert promised == {name: defaults[name] for name in promised}, word


def test_every_registered_block_has_a_second_derivation():
    registered = {(e.namespace, e.word) for e in load_index() if e.namespace not in OF_TRAINING}
    elsewhere = {("node", word) for words in ELSEWHERE.values() for word in words}
    assert registered == {*CHECKS, *elsewhere}


def test_the_index_knows_which_blocks_ask_for_the_call():
    for entry in load_index():
        if entry.namespace == "node":
            forward = registry.load()["node", entry.word].forward
            assert entry.calls == ("call" in inspect.signature(forward).parameters), entry.word
