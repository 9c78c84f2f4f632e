"""The mixers that sum up the past: each against its recurrence, and under every law in hybrids."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from blocks import recurrent
from blocks.call import start_call
from blocks.gated_delta import GatedDelta, delta_rule
from blocks.linear_attention import EPS, LinearAttention, sum_up
from blocks.registry import maker
from blocks.short_conv import ShortConv
from builder import build, load_recipe
from builder.errors import RecipeError
from builder.laws import LAWS, Case, perturb

B, DIM = 2, 8
EXACT = {"rtol": 0, "atol": 1e-12}  # sums of a few hundred float64 products
MAKERS = {
    "short_conv": lambda: ShortConv(DIM),
    "short_conv, biased": lambda: ShortConv(DIM, 3, act=maker("silu"), bias=True),
    "short_conv, one place": lambda: ShortConv(DIM, 1),
    "linear_attention": lambda: LinearAttention(DIM, 2, 2, 4),
    "linear_attention, grouped": lambda: LinearAttention(DIM, 4, 2, 3, decay=True),
    "linear_attention, relu": lambda: LinearAttention(DIM, 4, 1, 2, feature="relu"),
    "linear_attention, retention": lambda: LinearAttention(
        DIM, 4, 2, 3, feature=None, decay=True, norm=True, gate=maker("silu")
    ),
    "gated_delta": lambda: GatedDelta(DIM, 2, 4, 2, 4),
    "gated_delta, grouped": lambda: GatedDelta(DIM, 2, 3, 4, 5, 2),
    "gated_delta, no conv": lambda: GatedDelta(DIM, 2, 4, 2, 4, None),
}
MIXERS = pytest.mark.parametrize("maker_of", MAKERS.values(), ids=MAKERS)


def given(module, seed=0):
    """A block in float64 with every weight in general position."""
    return perturb(module.double(), seed).eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call_of(length, start=0, *, padding=None, documents=None, rows=B, device="cpu"):
    ids = torch.zeros(rows, length, dtype=torch.long, device=device)
    return start_call(ids, start, documents, padding)


def whole(block, x, **given):
    """The outputs of one call."""
    return block(x, call_of(x.shape[1], rows=len(x), **given))


@torch.no_grad()
def in_chunks(block, x, sizes, padding=None, documents=None):
    """The outputs of one state's calls, and the state."""
    state, out, at = block.state(), [], 0
    for size in sizes:
        end = at + size
        seen = {
            name: None if mask is None else mask[:, :end]
            for name, mask in (("padding", padding), ("documents", documents))
        }
        out.append(block(x[:, at:end], call_of(size, at, rows=len(x), **seen), state))
        at = end
    return torch.cat(out, 1), state


# Second derivations


def silu(x):
    return x / (1 + (-x).exp())


def convolved(x, weight):
    """Each channel by loops: what lies before the first place is zero."""
    kernel, y = weight.shape[1], torch.zeros_like(x)
    for t in range(x.shape[1]):
        for back in range(min(kernel, t + 1)):
            y[:, t] += weight[:, kernel - 1 - back] * x[:, t - back]
    return y


@torch.no_grad()
def test_short_conv_is_its_sum_over_the_last_places():
    x = noise(B, 9, DIM)
    for kernel in (1, 2, 4, 12):
        block = given(ShortConv(DIM, kernel))
        torch.testing.assert_close(whole(block, x), convolved(x, block.weight), **EXACT)
        padded = F.pad(x.mT, (kernel - 1, 0))
        by_torch = F.conv1d(padded, block.weight[:, None], groups=DIM).mT
        torch.testing.assert_close(whole(block, x), by_torch, **EXACT)
    block = given(ShortConv(DIM, 3, act=maker("silu"), bias=True))
    by_hand = silu(convolved(x, block.weight) + block.bias)
    torch.testing.assert_close(whole(block, x), by_hand, **EXACT)


def explicit(block, x):
    """Linear attention as weights of every pair of places, O(T^2), head by head."""
    heads, size = block.q.out_features // block.head_dim, block.head_dim
    outputs = []
    for h in range(heads):
        g = h // (heads // block.kv_heads)
        q = x @ block.q.weight[h * size : (h + 1) * size].T
        k, v = (x @ m.weight[g * size : (g + 1) * size].T for m in (block.k, block.v))
        if block.feature == "elu":
            q, k = (torch.where(y > 0, y + 1, y.exp()) for y in (q, k))
        elif block.feature == "relu":
            q, k = q.clamp(min=0), k.clamp(min=0)
        places = torch.arange(x.shape[1])
        distance = (places[:, None] - places).double()
        rate = 1 - 2.0 ** (-5 - g) if block.decay else 1.0
        weights = (q @ k.mT) * torch.where(distance >= 0, rate**distance, 0.0)
        if block.feature is None:
            weights = weights / math.sqrt(size)
        else:
            weights = weights / (weights.sum(-1, keepdim=True) + EPS)
        y = weights @ v
        if block.norm is not None:
            y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * block.norm.weight
        outputs.append(y)
    y = torch.cat(outputs, -1)
    y = y if block.gate is None else y * silu(x @ block.gate.weight.T)
    return y @ block.o.weight.T


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("linear_attention")])
def test_linear_attention_is_its_weights_of_every_pair(name):
    block, x = given(MAKERS[name]()), noise(B, 150, DIM)
    torch.testing.assert_close(whole(block, x), explicit(block, x), **EXACT)


def recurrence(q, k, v, log_decay, beta):
    """The gated delta rule, one outer product a step; all (B, H, T, ...)."""
    state = q.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    eye, out = torch.eye(k.shape[-1], dtype=q.dtype), []
    for t in range(k.shape[2]):
        key, value, b = k[:, :, t, :, None], v[:, :, t, None], beta[:, :, t, None, None]
        state = log_decay[:, :, t, None, None].exp() * (eye - b * key * key.mT) @ state
        state = state + b * key * value
        out.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(out, 2), state


def stepwise(block, x):
    """Gated DeltaNet by its formulas, from the stream to the stream."""
    values = block.v.out_features
    heads = block.beta.out_features
    q, k, v = (x @ m.weight.T for m in (block.q, block.k, block.v))
    if block.conv is not None:
        q, k, v = (
            convolved(y, w) for y, w in zip((q, k, v), block.conv.split(block.widths), strict=True)
        )
    q, k, v = silu(q), silu(k), silu(v).view(B, -1, heads, values // heads)
    q, k = (y.view(B, x.shape[1], -1, block.head_dim) for y in (q, k))
    q, k = (y / (y.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for y in (q, k))
    each = torch.arange(heads) // (heads // q.shape[2])  # the key head of a value head
    q, k = q[:, :, each] / math.sqrt(block.head_dim), k[:, :, each]
    log_decay = -block.A_log.exp() * (1 + (x @ block.decay.weight.T + block.dt_bias).exp()).log()
    beta = 1 / (1 + (-(x @ block.beta.weight.T)).exp())
    y, _ = recurrence(*(z.transpose(1, 2) for z in (q, k, v, log_decay, beta)))
    y = y.transpose(1, 2)
    y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * block.norm.weight
    return (y.flatten(2) * silu(x @ block.gate.weight.T)) @ block.o.weight.T


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in MAKERS if name.startswith("gated_delta")])
def test_gated_delta_is_its_recurrence(name):
    block, x = given(MAKERS[name]()), noise(B, 150, DIM)
    torch.testing.assert_close(whole(block, x), stepwise(block, x), **EXACT)


@torch.no_grad()
def test_heads_begin_with_memories_from_long_to_short():
    """Rates at a stream of zero, between the least and the greatest that the authors draw."""
    block = GatedDelta(DIM, 2, 4, 8, 4).double()
    rates = block.A_log.exp() * (1 + block.dt_bias.exp()).log()
    assert (rates.diff() > 0).all()
    assert 0 < float(rates[0]) < 0.005 and 1.0 < float(rates[-1]) < 1.6  # half-lives of 500, 1/2
    recipe = recipe_of("token_embedding", {"gated_delta": {"value_heads": 8}}, "lm_head")
    layers = build(recipe, dtype=torch.float64).modules()
    built = next(module for module in layers if isinstance(module, GatedDelta))
    torch.testing.assert_close(built.A_log, block.A_log, rtol=0, atol=1e-6)  # drawn in float32
    torch.testing.assert_close(built.dt_bias, block.dt_bias, rtol=0, atol=1e-6)


def delta_inputs(length, heads=3, d=8, e=6, strength=3.0):
    """Queries, unit keys, values, decays and write strengths, (B, heads, T, ...)."""
    q, k = (F.normalize(noise(B, heads, length, d, seed=s), dim=-1) for s in (1, 2))
    v = noise(B, heads, length, e, seed=3)
    log_decay = -strength * noise(B, heads, length, seed=4).abs()
    return q, k, v, log_decay, noise(B, heads, length, seed=5).sigmoid()


@pytest.mark.parametrize("strength", [0.0, 0.1, 3.0, 200.0])  # 200: nearly all is forgotten
def test_the_delta_rule_in_float32_is_its_recurrence_in_float64(strength):
    """A decay of 0.1 after one of e^-500 keeps its digits: no difference of large sums is taken."""
    q, k, v, log_decay, beta = delta_inputs(150, strength=strength)
    expected, last = recurrence(q, k, v, log_decay, beta)
    y, state = delta_rule(*(z.float() for z in (q, k, v, log_decay, beta)), None)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-6)
    torch.testing.assert_close(state.double(), last, rtol=0, atol=2e-6)


@pytest.mark.parametrize("strength", [0.0, 0.1, 3.0])
def test_the_delta_rule_is_that_of_transformers(strength):
    """Its chunked form and its recurrence, both in float32: 1e-5 is a hundred roundings."""
    theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    q, k, v, log_decay, beta = (y.float() for y in delta_inputs(150, strength=strength))
    y, state = delta_rule(q * q.shape[-1] ** -0.5, k, v, log_decay, beta, None)
    for rule in (theirs.torch_chunk_gated_delta_rule, theirs.torch_recurrent_gated_delta_rule):
        expected, last = rule(
            *(z.transpose(1, 2) for z in (q, k, v)),
            g=log_decay.mT,
            beta=beta.mT,
            output_final_state=True,
        )
        torch.testing.assert_close(y, expected.transpose(1, 2), rtol=0, atol=1e-5)
        torch.testing.assert_close(state, last, rtol=0, atol=1e-5)


def test_gated_delta_is_the_layer_of_qwen3_next():
    """The same weights, split and fused as its model wants them, give the same stream."""
    theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    config = theirs.Qwen3NextConfig(
        hidden_size=DIM, linear_num_key_heads=2, linear_num_value_heads=4, rms_norm_eps=1e-6,
        linear_key_head_dim=3, linear_value_head_dim=5, linear_conv_kernel_dim=4,
        num_hidden_layers=1, layer_types=["linear_attention"], hidden_act="silu",
    )  # fmt: skip
    block, layer = given(GatedDelta(DIM, 2, 3, 4, 5)), theirs.Qwen3NextGatedDeltaNet(config, 0)
    by_key_head = [m.weight.unflatten(0, (2, -1)) for m in (block.q, block.k, block.v, block.gate)]
    rates = [m.weight.unflatten(0, (2, -1)) for m in (block.beta, block.decay)]
    state = {
        "in_proj_qkvz.weight": torch.cat(by_key_head, 1).flatten(0, 1),
        "in_proj_ba.weight": torch.cat(rates, 1).flatten(0, 1),
        "conv1d.weight": block.conv[:, None],
        "A_log": block.A_log,
        "dt_bias": block.dt_bias,
        "norm.weight": block.norm.weight,
        "out_proj.weight": block.o.weight,
    }
    layer.load_state_dict(state)
    x = noise(B, 80, DIM)
    with torch.no_grad():
        expected, ours = layer(x.float()).double(), whole(block, x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-5)  # theirs is in float32


# Chunks


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 200])
def test_the_size_of_a_chunk_changes_nothing(chunk):
    q, k, v, log_decay, beta = delta_inputs(150)
    documents = torch.bucketize(torch.arange(151), torch.tensor([1, 40, 41, 64, 100]), right=True)
    documents = documents.expand(B, -1)
    before = noise(B, 3, 8, 6, seed=9)
    for rule, given in ((delta_rule, (q, k, v, log_decay, beta)), (sum_up, (q, k, v, log_decay))):
        for expected, ours in zip(
            rule(*given, before, documents), rule(*given, before, documents, chunk), strict=True
        ):
            torch.testing.assert_close(ours, expected, **EXACT)


@MIXERS
def test_any_cutting_into_calls_gives_what_one_call_does(maker_of):
    block, x = given(maker_of()), noise(B, 150, DIM)
    expected = whole(block, x)
    for sizes in ([1] * 150, [64, 64, 22], [1, 2, 3, 70, 74], [149, 1]):
        torch.testing.assert_close(in_chunks(block, x, sizes)[0], expected, **EXACT)


@MIXERS
def test_a_document_begins_as_if_alone(maker_of):
    """Cut within a chunk, at its edge, twice in a row; and in the middle of a cached call."""
    block, x = given(maker_of()), noise(B, 150, DIM)
    cuts = [[0, 40, 41, 64, 150], [0, 1, 2, 100, 150]]
    documents = torch.stack(
        [torch.bucketize(torch.arange(150), torch.tensor(c[1:-1]), right=True) % 2 for c in cuts]
    )
    together = whole(block, x, documents=documents)
    for row, edges in enumerate(cuts):
        for a, b in pairwise(edges):
            alone = whole(block, x[row : row + 1, a:b])
            torch.testing.assert_close(together[row : row + 1, a:b], alone, **EXACT)
    for sizes in ([1] * 150, [63, 50, 37], [41, 1, 108]):
        cached, _ = in_chunks(block, x, sizes, documents=documents)
        torch.testing.assert_close(cached, together, **EXACT)


@MIXERS
def test_padding_is_as_if_it_were_not_there(maker_of):
    block, x = given(maker_of()), noise(4, 100, DIM)
    padding = torch.zeros(4, 100, dtype=torch.bool)
    padding[0, :70], padding[1, 30:], padding[2, :], padding[3, :5], padding[3, 95:] = (True,) * 5
    x = x.masked_fill(padding[..., None], 1e3)  # what stands there is of no account
    for y in (whole(block, x, padding=padding), in_chunks(block, x, [3, 80, 17], padding)[0]):
        assert y.isfinite().all()
        for row, real in ((0, slice(70, None)), (1, slice(0, 30)), (3, slice(5, 95))):
            alone = whole(block, x[row : row + 1, real])
            torch.testing.assert_close(y[row : row + 1, real], alone, **EXACT)


@MIXERS
def test_padding_after_the_tokens_leaves_the_state_alone(maker_of):
    block, x = given(maker_of()), noise(B, 100, DIM)
    padding = (torch.arange(100) >= 60).expand(B, -1)
    _, before = in_chunks(block, x[:, :60], [60])
    _, after = in_chunks(block, x, [100], padding)
    if "state" in before.tensors:
        torch.testing.assert_close(after.tensors["state"], before.tensors["state"], **EXACT)


# Memory

BYTES = {  # of two rows in float64
    "short_conv": 2 * 3 * 8 * 8,
    "short_conv, biased": 2 * 2 * 8 * 8,
    "short_conv, one place": 0,
    "linear_attention": 2 * 2 * 4 * 5 * 8,
    "linear_attention, grouped": 2 * 2 * 3 * 4 * 8,
    "linear_attention, relu": 2 * 1 * 2 * 3 * 8,
    "linear_attention, retention": 2 * 2 * 3 * 3 * 8,
    "gated_delta": 2 * (2 * 4 * 4 + 3 * 24) * 8,
    "gated_delta, grouped": 2 * (4 * 3 * 5 + 1 * 32) * 8,
    "gated_delta, no conv": 2 * 2 * 4 * 4 * 8,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_holds_the_same_bytes_after_any_number_of_tokens(name):
    block = given(MAKERS[name]())
    assert block.state().nbytes == 0 and block.state().fixed
    for length in (1, 2, 5, 70):
        _, state = in_chunks(block, noise(B, length, DIM), [length])
        assert state.nbytes == BYTES[name]
        held = state.tensors.values()
        assert sum(t.untyped_storage().nbytes() for t in held) == BYTES[name]  # and no more


@MIXERS
def test_a_state_can_be_copied_reordered_and_reset_but_not_wound_back(maker_of):
    block, x = given(maker_of()), noise(B, 12, DIM)
    _, state = in_chunks(block, x[:, :9], [9])
    with torch.no_grad():
        onward = block(x[:, 9:], call_of(3, 9), copy.deepcopy(state))
        assert state.crop(9) and not state.crop(8)
        torch.testing.assert_close(block(x[:, 9:], call_of(3, 9), copy.deepcopy(state)), onward)
        state.reorder(torch.tensor([1, 1, 0]))
        moved = block(x[[1, 1, 0], 9:], call_of(3, 9, rows=3), state)
        torch.testing.assert_close(moved, onward[[1, 1, 0]], **EXACT)
        state.reset()
        assert state.nbytes == 0 and state.crop(0)
        fresh = block(x, call_of(12), state)
    torch.testing.assert_close(fresh, whole(block, x), **EXACT)


# Numbers

LONG = 4096
ERRORS = {torch.float32: 5e-6, torch.bfloat16: 0.05}  # of the largest output: ten roundings or so


@torch.no_grad()
@pytest.mark.parametrize("dtype", ERRORS, ids=str)
@pytest.mark.parametrize(
    "name", ["short_conv", "linear_attention", "linear_attention, retention", "gated_delta"]
)
def test_rounding_stays_small_over_a_long_text(name, dtype, record_property):
    block, x = given(MAKERS[name]()).to(dtype), noise(1, LONG, DIM).to(dtype)
    exact = whole(copy.deepcopy(block).double(), x.double())
    y, state = in_chunks(block, x, [LONG])
    assert y.dtype == dtype
    assert state.tensors.get("state", x.float()).dtype == torch.float32
    error = float((y.double() - exact).abs().max() / exact.abs().max())
    record_property("error", error)
    assert error < ERRORS[dtype]


@torch.no_grad()
@pytest.mark.parametrize("rate", [-20.0, 0.0, 60.0])  # remembers all; forgets all
def test_no_decay_over_or_underflows(rate):
    block = given(GatedDelta(DIM, 2, 4, 2, 4)).float()
    block.dt_bias.fill_(rate)
    x = 3 * noise(1, LONG, DIM).float()
    y = whole(block, x)
    exact = whole(copy.deepcopy(block).double(), x.double())
    assert y.isfinite().all()
    assert float((y - exact).abs().max() / exact.abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["linear_attention", "gated_delta"])
def test_gradients_stay_finite_where_decay_is_extreme(name):
    block = given(MAKERS[name]()).float().train()
    if name == "gated_delta":
        with torch.no_grad():
            block.dt_bias.copy_(torch.tensor([-80.0, 80.0]))
    x = (30 * noise(1, 300, DIM)).float().requires_grad_()
    whole(block, x, documents=(torch.arange(300) >= 100)[None].long()).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@torch.no_grad()
@pytest.mark.parametrize("name", MAKERS)
def test_autocast_changes_outputs_by_its_rounding_alone(name):
    """Products in bfloat16, each rounded by 4e-3; the state itself stays in float32."""
    block, x = given(MAKERS[name]()).float(), noise(1, 300, DIM).float()
    exact = whole(block, x)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = in_chunks(block, x, [300])
    assert float((y - exact).abs().max() / exact.abs().max()) < 0.1
    assert state.tensors.get("state", x).dtype == torch.float32


# Shapes and costs


@MIXERS
def test_twice_the_text_costs_twice_the_flops(maker_of):
    """Counted on meta, where nothing may depend on a value; three chunks against six."""
    block = maker_of().to("meta")

    def flops(length):
        x = torch.empty(B, length, DIM, device="meta")
        documents = torch.zeros(B, length, dtype=torch.long, device="meta")
        padding = torch.zeros(B, length, dtype=torch.bool, device="meta")
        call = call_of(length, device="meta", documents=documents, padding=padding)
        with FlopCounterMode(display=False) as counter:
            assert block(x, call, block.state()).shape == x.shape
        return counter.get_total_flops()

    assert flops(6 * recurrent.CHUNK) == 2 * flops(3 * recurrent.CHUNK)


@pytest.mark.parametrize("name", ["short_conv", "linear_attention, retention", "gated_delta"])
def test_a_compiler_sees_one_graph(name):
    block, x = given(MAKERS[name]()), noise(B, 100, DIM)
    call = call_of(100, documents=(torch.arange(100) >= 30).expand(B, -1).long())
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, call), block(x, call), **EXACT)


# Recipes


def recipe_of(*model, **dims):
    dims = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 160} | dims
    return load_recipe({"recipe": 1, "dims": dims, "model": list(model)})


def hybrid(mixer, times=1):
    layers = [{"residual": ["rmsnorm", node]} for node in (mixer, "attention", "glu")]
    return ["token_embedding", {"repeat": times, "block": layers}, "rmsnorm", "lm_head"]


HYBRIDS = {
    "canon": hybrid("short_conv", 2),
    "primer": hybrid([{"short_conv": {"kernel": 3}}, {"attention": {"position": "rope"}}]),
    "conv with options": hybrid({"short_conv": {"kernel": 2, "act": "silu", "bias": True}}),
    "linear": hybrid("linear_attention", 2),
    "relu features": hybrid({"linear_attention": {"feature": "relu", "kv_heads": 1}}),
    "retention": hybrid(
        {"linear_attention": {"feature": "none", "decay": True, "norm": True, "gate": "silu"}}
    ),
    "decayed": hybrid({"linear_attention": {"decay": True, "head_dim": 3}}),
    "delta": hybrid("gated_delta", 2),
    "delta, grouped": hybrid(
        {"gated_delta": {"head_dim": 3, "value_heads": 4, "value_dim": 1, "kernel": "none"}}
    ),
    "shared": [
        "token_embedding",
        {"repeat": 2, "block": ["gated_delta", "linear_attention", "short_conv"], "share": True},
        "lm_head",
    ],
    "all in parallel": [
        "token_embedding",
        {"residual": {"parallel": ["short_conv", "linear_attention", "gated_delta", "attention"]}},
        "lm_head",
    ],
    "windowed beside": hybrid(
        [{"attention": {"mask": {"sliding_window": 3}}}, {"gated_delta": {"kernel": 6}}]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", HYBRIDS.values(), ids=HYBRIDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_hybrid_keeps_every_law(model, seed):
    recipe = recipe_of(*model)
    for law in LAWS.values():
        law(Case(recipe, seed))


def test_a_whole_model_agrees_with_its_cache_past_a_chunk():
    model = perturb(build(recipe_of(*hybrid("gated_delta", 2)), dtype=torch.float64), 0).eval()
    ids = torch.randint(11, (2, 160), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(2)
    parts = [model(part, cache=cache) for part in ids.split([100, 1, 59], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=0, atol=1e-10)
    cache.crop(70)
    again = model(ids[:, 70:], cache=cache)
    torch.testing.assert_close(again, model(ids)[:, 70:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"linear_attention": {"kv_heads": 3}}, "heads=2 is not a multiple of kv_heads=3"),
        ({"gated_delta": {"value_heads": 3}}, "value_heads=3 is not a multiple of heads=2"),
        ({"short_conv": {"kernel": 0}}, "0"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(node, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of("token_embedding", node, "lm_head")
