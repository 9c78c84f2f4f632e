"""Every registered block against a second, dumber derivation in plain float64."""

from __future__ import annotations

import inspect
import math
from functools import partial

import pytest
import torch
from einops import einsum, rearrange

from blocks import registry
from blocks.alibi import AlibiRounded
from blocks.clamped_glu import ClampedGLU
from blocks.gain import Gain
from blocks.glu import GLU
from blocks.layernorm import LayerNorm
from blocks.learned_positions import LearnedPositions
from blocks.linear import Linear
from blocks.lm_head import LMHead
from blocks.mlp import MLP
from blocks.rmsnorm import RMSNorm
from blocks.rope import Rope
from blocks.sinusoidal_positions import SinusoidalPositions
from blocks.token_embedding import TokenEmbedding
from blocks.xielu import XIELU
from builder import build, load_recipe
from builder.index import load_index
from tests.given import DIM, EXACT, FF, HEADS, B, T, call_of, given, stream

# Norms, maps, feed-forwards


def check_rmsnorm():
    block, x = given(RMSNorm(DIM, eps=0.5)), stream()
    by_hand = x / (x.pow(2).sum(-1, keepdim=True) / DIM + 0.5).sqrt() * block.weight
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    assert RMSNorm(DIM, weight=False).weight is None
    above_one = given(RMSNorm(DIM, eps=0.5, unit_offset=True))
    expected = x / (x.pow(2).sum(-1, keepdim=True) / DIM + 0.5).sqrt() * (1 + above_one.weight)
    torch.testing.assert_close(above_one(x), expected, **EXACT)
    torch.testing.assert_close(
        RMSNorm(DIM).double()(3 * x), RMSNorm(DIM).double()(x), rtol=0, atol=1e-5
    )


def check_layernorm():
    block, x = given(LayerNorm(DIM, eps=0.5)), stream()
    mean = x.sum(-1, keepdim=True) / DIM
    variance = (x - mean).pow(2).sum(-1, keepdim=True) / DIM
    by_hand = (x - mean) / (variance + 0.5).sqrt() * block.weight + block.bias
    torch.testing.assert_close(block(x), by_hand, **EXACT)
    above_one = given(LayerNorm(DIM, eps=0.5, bias=False, unit_offset=True))
    expected = (x - mean) / (variance + 0.5).sqrt() * (1 + above_one.weight)
    torch.testing.assert_close(above_one(x), expected, **EXACT)
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


def check_act():
    x = stream()
    assert torch.equal(made("act", registry.maker("relu"))(x), x.clamp(min=0))


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
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log(1 + math.exp(x)),
}


# Embeddings, positions, head


def check_clamped_glu():
    block, x = given(ClampedGLU(DIM, FF, alpha=0.9, limit=0.3)), stream()
    gate = x @ block.gate.weight.T + block.gate.bias
    up = (x @ block.up.weight.T + block.up.bias).detach()
    gate = gate.detach().apply_(lambda n: min(n, 0.3))
    up = up.apply_(lambda n: max(-0.3, min(n, 0.3)))
    inner = gate / (1 + torch.exp(-0.9 * gate)) * (up + 1)
    expected = inner @ block.down.weight.T + block.down.bias
    torch.testing.assert_close(block(x), expected, **EXACT)


def check_xielu():
    act = given(XIELU(beta=0.4, eps=-0.1))
    above, below = (math.log(1 + math.exp(a.item())) for a in (act.alpha_p, act.alpha_n))

    def formula(x):
        if x > 0:
            return above * x * x + 0.4 * x
        return (0.4 + below) * (math.exp(min(x, -0.1)) - 1 - x) + 0.4 * x

    x = stream(0, 50) * 3
    torch.testing.assert_close(act(x), x.clone().apply_(formula), **EXACT)


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
    """Layers of several thetas, fractions, scalings or types share what they compute."""
    x, call = stream(1, B, HEADS, T, 8), call_of()
    linear = partial(registry.load()["scaling", "linear"], factor=2.0)
    blocks = [Rope(8), Rope(8, theta=50.0), Rope(8, fraction=0.5), Rope(8, theta=50.0)]
    blocks += [Rope(8, reversed=True), Rope(8, scaling=linear)]
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
    bias = cls(heads=HEADS).bias(places[:, None], places[None], call_of())
    for h in range(HEADS):
        for i in range(T):
            for j in range(i + 1):
                assert float(bias[h, i, j]) == -(2.0 ** (-8 * (h + 1) / HEADS)) * (i - j)


# Attention


def check_alibi_rounded():
    """Each product has eight significant bits, and begins with each row's own first token."""
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[1, :2] = True
    place = torch.arange(T)
    bias = AlibiRounded(4, 16).bias(place[:, None], place[None], call_of(padding))
    for h, slope in enumerate([0.25, 0.0625, 0.015625, 0.00390625]):
        assert (bias[h, 0, 0] == slope * place / 4).all()
        assert (bias[h, 1, 0, 2:] == slope * (place[2:] - 2) / 4).all()
    far = torch.tensor([[257]])
    call = call_of()
    assert float(AlibiRounded(4, 16).bias(far, far, call)[0]) == 64.0 / 4  # 64.25 is rounded


# The table

CHECKS = {
    ("act", "xielu"): check_xielu,
    ("node", "act"): check_act,
    ("node", "clamped_glu"): check_clamped_glu,
    ("node", "dropout"): check_dropout,
    ("node", "gain"): check_gain,
    ("node", "glu"): check_glu,
    ("node", "layernorm"): check_layernorm,
    ("node", "learned_positions"): check_learned_positions,
    ("node", "linear"): check_linear,
    ("node", "lm_head"): check_lm_head,
    ("node", "mlp"): check_mlp,
    ("node", "rmsnorm"): check_rmsnorm,
    ("node", "scale"): check_scale,
    ("node", "sinusoidal_positions"): check_sinusoidal_positions,
    ("node", "softcap"): check_softcap,
    ("node", "token_embedding"): check_token_embedding,
    ("position", "alibi"): check_alibi,
    ("position", "alibi_rounded"): check_alibi_rounded,
    ("position", "rope"): check_rope,
    **{("act", word): activation(word, formula) for word, formula in ACTIVATIONS.items()},
}
APART = {
    "data",
    "init",
    "optimizer",
    "scaling",
    "schedule",
    "section",
    "tokenizer",
}  # tests of their own
ELSEWHERE = {  # whose second derivations have files of their own
    "test_attention.py": {
        ("node", "attention"),
        *(("mask", word) for word in ("causal", "sliding_window", "chunked")),
        *(("gate", word) for word in ("per_head", "per_channel")),
        *(("temperature", word) for word in ("log_floor", "power")),
    },
    "test_latent_attention.py": {("node", "latent_attention")},
    "test_mixers.py": {("node", w) for w in ("gated_delta", "linear_attention", "short_conv")},
    "test_moe.py": {
        *(("node", word) for word in ("gated", "moe")),
        *(("router", word) for word in ("sigmoid", "softmax", "sparsemixer")),
    },
    "test_wiring.py": {
        *(("node", word) for word in ("add", "mix", "lerp", "hyper")),
        *(("node", word) for word in ("open_streams", "sum_streams")),
    },
}


@pytest.mark.parametrize("word", CHECKS, ids=".".join)
def test_block_is_its_formula(word):
    CHECKS[word]()


PROMISED = {  # by the papers; a page that leaves an option out means this
    "attention": {
        "qk_norm_over": "head",
        "qk_norm_at": "before",
        "sinks": False,
        "clip": None,
        "gate": None,
        "bias": False,
        "out_bias": False,
        "scale": None,
        "softcap": None,
        "dropout": 0.0,
    },
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
    found = {entry.word: entry for entry in load_index() if entry.namespace not in APART}
    for word, promised in PROMISED.items():
        defaults = {p.name: getattr(p.default, "word", p.default) for p in found[word].parameters}
        assert promised == {name: defaults[name] for name in promised}, word


def test_every_registered_block_has_a_second_derivation():
    registered = {(e.namespace, e.word) for e in load_index() if e.namespace not in APART}
    elsewhere = set().union(*ELSEWHERE.values())
    assert {pair for pair in registered if pair not in CHECKS} == elsewhere


def test_the_index_knows_which_blocks_ask_for_the_call():
    for entry in load_index():
        if entry.namespace == "node":
            forward = registry.load()["node", entry.word].forward
            assert entry.calls == ("call" in inspect.signature(forward).parameters), entry.word
