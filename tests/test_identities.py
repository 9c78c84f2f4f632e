"""What changes no logit: each rewriting is made, holds, and goes red when its block is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import wraps

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from blocks import attend, short_conv
from blocks.attention import Attention
from blocks.dropout import Dropout
from blocks.gain import Gain
from blocks.glu import GLU
from blocks.hyper import Hyper
from blocks.lerp import Lerp
from blocks.linear import Linear
from blocks.lm_head import LMHead
from blocks.mask import Chunked, SlidingWindow
from blocks.mix import Mix
from blocks.moe import MoE
from blocks.rmsnorm import RMSNorm
from blocks.rope import Rope
from blocks.router import Softmax
from blocks.scale import Scale
from blocks.sinusoidal_positions import SinusoidalPositions
from blocks.softcap import Softcap
from blocks.sum_streams import SumStreams
from builder import load_recipe
from builder.assemble import ResidualRun
from builder.graph import Chain, leaves, walk
from builder.laws import identities, recipes
from builder.laws.case import Case
from builder.laws.identities import identities_hold, rewritten
from builder.laws.rewrite import over, unshared
from builder.laws.rewritings import IDENTITIES

DIMS = {"dim": 8, "heads": 4, "kv_heads": 2, "ff": 6, "experts": 3, "vocab": 11, "context": 24}
TURNED = {"position": "rope", "qk_norm": "rmsnorm"}
RICH = {  # something to rewrite for each of them
    "recipe": 1,
    "dims": DIMS,
    "blocks": {
        "full": [
            {"residual": ["layernorm", {"attention": {"head_dim": 4, **TURNED}}]},
            {"residual": ["rmsnorm", {"moe": {"expert": ["rmsnorm", "mlp"]}}, {"scale": 0.5}]},
        ],
        "state": [
            {"residual": ["rmsnorm", {"gated_delta": {"heads": 2, "value_heads": 4}}]},
            {"lerp": ["layernorm", {"mlp": {"act": "relu2"}}, {"gain": 0.5}]},
        ],
        "state_by_feature": [
            {"residual": ["rmsnorm", {"linear_attention": {"gate": "silu"}}]},
            {"residual": ["rmsnorm", "short_conv", "glu"], "as": "skip"},
        ],
    },
    "model": [
        "token_embedding",
        "sinusoidal_positions",
        {"repeat": 2, "pattern": ["full", "state", "state_by_feature"], "share": "full"},
        {"add": "skip(0)"},
        "rmsnorm",
        {"lm_head": {"tie": True}},
    ],
}
LENT = {
    "recipe": 1,
    "dims": DIMS,
    "model": [
        "token_embedding",
        {"attention": {"position": "rope", "qk_norm": "layernorm", "bias": True}, "as": "memory"},
        {"residual": ["rmsnorm", {"attention": {"position": "rope", "kv_from": "memory"}}]},
        {"residual": {"attention": {"value_from": "memory", "softcap": 3.0}}},
        "lm_head",
    ],
}


def case_of(page=RICH, seed=0):
    return Case(load_recipe(page), seed)


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_holds_where_there_is_something_to_rewrite(name):
    for seed in (0, 1):  # one text in a row, and two
        case = case_of(seed=seed)
        assert rewritten(case, [name])[1] == [name]
        assert identities_hold(case, [name]) < 1e-12


@pytest.mark.parametrize("name", ["grouped keys", "heads may", "the query", "rotary", "a bias"])
def test_identity_holds_for_who_lends_and_who_borrows(name):
    (name,) = (full for full in IDENTITIES if full.startswith(name))
    case = case_of(LENT)
    assert rewritten(case, [name])[1] == [name]
    assert identities_hold(case, [name]) < 1e-12


def test_all_identities_hold_one_upon_the_other():
    for page in (RICH, LENT):
        names = list(IDENTITIES)
        for order in (names, names[::-1]):
            assert identities_hold(case_of(page), order) < 1e-12


@settings(max_examples=15)
@given(recipe=recipes(), seed=st.integers(0, 999))
def test_identities_hold_for_drawn_recipes(recipe, seed):
    identities_hold(Case(recipe, seed))


@pytest.mark.slow
def test_every_identity_is_made_to_some_drawn_recipe():
    made = Counter()

    @settings(max_examples=150)
    @given(recipe=recipes())
    def draw(recipe):
        case = Case(recipe)
        for name in IDENTITIES:
            made[name] = made[name] or name in rewritten(case, [name])[1]

    draw()
    assert not [name for name in IDENTITIES if not made[name]]


def test_the_law_makes_a_few_of_those_that_apply(monkeypatch):
    made = []

    def remember(case, names, most=None):
        pair, applied = rewritten(case, names, most)
        made.append(applied)
        return pair, applied

    monkeypatch.setattr(identities, "rewritten", remember)
    for seed in range(40):
        identities_hold(case_of(seed=seed))
    assert {len(names) for names in made} == {identities.FEW}
    assert {name for names in made for name in names} == set(IDENTITIES)


def test_a_case_that_nothing_applies_to_holds():
    assert identities_hold(case_of(), []) == 0


# Graphs and weights


def test_unshared_weights_are_those_of_the_first_place():
    case = case_of()
    graph, state = unshared(case.recipe.graph, case.model.state_dict())
    every = list(leaves(graph))
    assert all(leaf.name == leaf.weights for leaf in every)
    assert torch.equal(state["layers.3.attention.q.weight"], state["layers.0.attention.q.weight"])
    expert = "moe.experts.mlp.up.weight"
    assert torch.equal(state[f"layers.3.{expert}"], state[f"layers.0.{expert}"])
    assert set(case.model.state_dict()) < set(state)


def test_a_graph_rebuilt_by_nothing_is_itself():
    graph = load_recipe(RICH).graph
    seen = []
    again = over(graph, lambda node: seen.append(node) or node)
    assert again == graph
    assert sorted(map(repr, seen)) == sorted(map(repr, list(walk(graph))[1:]))


def test_a_rebuilt_chain_holds_no_chains():
    page = {**RICH, "model": ["token_embedding", {"residual": ["rmsnorm", "glu"]}, "lm_head"]}
    case = Case(load_recipe({**page, "blocks": {}}))
    (graph, _), _ = rewritten(case, ["half the sum of two streams is the stream"])
    chains = [node for node in walk(graph) if isinstance(node, Chain)]
    assert [len(chain.items) for chain in chains] == [5]  # the norm, the glu and three behind it
    assert not any(isinstance(item, Chain) for chain in chains for item in chain.items)


# Each goes red when a block is broken: (what, which method, what becomes of it)


def with_attribute(name, value):
    """The method, of an object whose attribute has become this value."""

    def becomes(plain):
        @wraps(plain)  # what a forward asks for is read from its signature
        def method(self, *given, **named):
            setattr(self, name, value)
            return plain(self, *given, **named)

        return method

    return becomes


def tiled(plain):
    """Attention whose query head ``h`` reads key head ``h % kv_heads``."""

    def attend(q, k, v, enable_gqa=False, **options):
        k, v = (x.repeat(1, q.shape[1] // x.shape[1], 1, 1) for x in (k, v))
        return plain(q, k, v, **options)

    return attend


def numbered(plain):
    """Attention whose scores grow with the number of the head."""

    def attend(q, k, v, **options):
        return plain(q * torch.arange(1, q.shape[1] + 1)[:, None, None], k, v, **options)

    return attend


def unscaled(plain):
    """Attention that forgets its scale where it has a soft cap."""

    def weigh(*tensors, softcap, scale, **options):
        return plain(*tensors, softcap=softcap, scale=1.0 if softcap else scale, **options)

    return weigh


def one_later(plain):
    def method(self, x, call):
        return plain(self, x, replace(call, positions=call.positions + 1))

    return method


SCORES = (F, "scaled_dot_product_attention")
FORWARD = "forward"
BROKEN = {
    "a scale of one is nothing": (Scale, FORWARD, lambda f: lambda s, x: (s.factor + 1e-6) * x),
    "a gain of ones is nothing": (Gain, FORWARD, lambda f: lambda g, x: (1 + g.weight) * x),
    "the identity matrix is nothing": (
        *(Linear, FORWARD),
        lambda f: lambda m, x: F.linear(x, m.weight.flip(0), m.bias),
    ),
    "a huge soft cap is nothing": (Softcap, FORWARD, lambda f: lambda s, x: (x / s.cap).tanh()),
    "dropout is nothing in an evaluated model": (
        Dropout,
        FORWARD,
        with_attribute("training", True),
    ),
    "half the sum of two streams is the stream": (
        *(SumStreams, FORWARD),
        lambda f: lambda s, x: f(s, x) / s.count,
    ),
    "a branch scaled by zero is nothing": (
        *(Scale, FORWARD),
        lambda f: lambda s, x: (s.factor or 1.0) * x,
    ),
    "a lerp of rate 1 is its branch": (
        *(Lerp, FORWARD),
        lambda f: lambda j, x, body: x + j.rate * body(x),
    ),
    "a residual is a parallel with nothing": (
        *(ResidualRun, "__call__"),
        lambda f: lambda run, *given: run.body(*given),
    ),
    "a static hyper-connection of one stream is a residual": (
        *(Hyper, FORWARD),
        lambda f: lambda j, x, body: f(j, x, lambda inner: body(2 * inner)),
    ),
    "grouped keys are repeated keys": (*SCORES, tiled),
    "heads may come in any order": (*SCORES, numbered),
    "the query heads of a group may come in any order": (*SCORES, numbered),
    "rotary layouts are orders of the components": (
        *(Rope, "rotate"),
        with_attribute("pairs", "half"),
    ),
    "a window of the whole context is causal": (
        *(SlidingWindow, "__init__"),
        lambda f: lambda mask, window: f(mask, window // 8),
    ),
    "one chunk of the whole context is causal": (
        *(Chunked, "__init__"),
        lambda f: lambda mask, size: f(mask, size // 8),
    ),
    "a huge soft cap of the scores is none": (attend, "_weigh", unscaled),
    "dropout of attention is nothing in an evaluated model": (
        *(Attention, FORWARD),
        with_attribute("training", True),
    ),
    "a convolution may read one place more by the weight 0": (
        *(short_conv, "convolve"),
        lambda f: lambda x, weight, before, call: f(x, weight.flip(1), before, call),
    ),
    "one expert is a feed-forward": (
        *(Softmax, FORWARD),
        lambda f: lambda router, x: (f(router, x)[0] / 2, *f(router, x)[1:]),
    ),
    "experts may come in any order": (
        *(MoE, "_assigned"),
        lambda f: lambda moe, chosen: f(moe, (chosen + 1) % moe.count),
    ),
    "a feed-forward is gated by ones": (
        *(GLU, FORWARD),
        lambda f: lambda glu, x: glu.down(glu.act(glu.up(x)) * glu.gate(x)),
    ),
    "a bias of zeros is none": (
        *(LMHead, FORWARD),
        lambda f: lambda head, x: f(head, x) + (0.0 if head.bias is None else 1.0),
    ),
    "a norm's weight is a gain": (
        *(RMSNorm, FORWARD),
        lambda f: lambda norm, x: f(norm, x) + (0.0 if norm.weight is None else x),
    ),
    "a layer norm is the root mean square norm of what is centred": (
        *(RMSNorm, FORWARD),
        lambda f: lambda norm, x: x / (x.square().mean(-1, True).sqrt() + norm.eps),
    ),
    "a scale is a gain": (Scale, FORWARD, lambda f: lambda s, x: (s.factor + 1e-6) * x),
    "a gain is a diagonal matrix": (Gain, FORWARD, lambda f: lambda g, x: (1 + g.weight) * x),
    "a sum is a mix by ones": (
        *(Mix, FORWARD),
        lambda f: lambda mix, x, sources: f(mix, 0 * x, sources),
    ),
    "sinusoidal positions are a table": (SinusoidalPositions, FORWARD, one_later),
    "a tied head is a copy": (
        *(LMHead, FORWARD),
        lambda f: lambda head, x: f(head, 2 * x if head.tie else x),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_goes_red_when_its_block_is_broken(name, monkeypatch):
    case = case_of()
    owner, method, becomes = BROKEN[name]
    monkeypatch.setattr(owner, method, becomes(getattr(owner, method)))
    with pytest.raises(AssertionError, match=f"it is not so that {name}: the logits differ by"):
        identities_hold(case, [name])


def test_shared_weights_that_are_not_used_alike_are_seen(monkeypatch):
    """An attention that turns its queries more at each use of its weights."""
    uses = Counter()

    def placed(block, x, norm, call):
        uses[id(block)] += 1
        return PLACED(block, x, norm, call) * uses[id(block)]

    PLACED = Attention._placed
    case = case_of()
    monkeypatch.setattr(Attention, "_placed", placed)
    with pytest.raises(AssertionError, match=f"it is not so that {identities.COPIES}"):
        identities_hold(case, ["a scale of one is nothing"])


def test_the_message_names_the_identity_that_is_broken_among_several(monkeypatch):
    case = case_of()
    monkeypatch.setattr(Lerp, FORWARD, lambda lerp, x, body: x + lerp.rate * body(x))
    names = ["a scale of one is nothing", "a lerp of rate 1 is its branch", "a scale is a gain"]
    message = r"that a lerp of rate 1 is its branch: .*, first after layers\.0\.rmsnorm_before_moe"
    with pytest.raises(AssertionError, match=message):
        identities_hold(case, names)
