"""Scaled rotary angles: against the library's own, and where they read the length of a text."""

from __future__ import annotations

import math

import pytest
import torch

from blocks.call import start_call
from blocks.scaling import Dynamic, Linear, Llama3, LongRope, Yarn
from builder import build, load_recipe
from builder.index import load_index
from builder.laws import perturb
from tests.hf_folders import needs_tool, tool

THETA, HEAD_DIM, CONTEXT = 500.0, 16, 64
SHORT, LONG = [1.0 + 0.1 * i for i in range(8)], [1.0 + 0.7 * i for i in range(8)]
SCALINGS = {  # ours, the fields that say so, and the length of a text
    "linear": (Linear(factor=2.5), {"rope_type": "linear", "factor": 2.5}, 24),
    "dynamic, short": (
        Dynamic(factor=2.5, original=CONTEXT),
        {"rope_type": "dynamic", "factor": 2.5},
        40,
    ),
    "dynamic, long": (
        Dynamic(factor=2.5, original=CONTEXT),
        {"rope_type": "dynamic", "factor": 2.5},
        100,
    ),
    "llama3": (
        Llama3(factor=4.0, low=1.0, high=3.0, original=50),
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
            "original_max_position_embeddings": 50,
        },
        24,
    ),
    "yarn": (
        Yarn(factor=4.0, original=256, beta_fast=8.0),
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 8.0,
        },
        24,
    ),
    "yarn, its ends not whole": (
        Yarn(factor=4.0, original=256, beta_fast=8.0, truncate=False, attention_factor=0.7),
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 8.0,
            "truncate": False,
            "attention_factor": 0.7,
        },
        24,
    ),
    "yarn, mscale": (
        Yarn(factor=4.0, original=256, mscale=0.8, mscale_all_dim=0.6),
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "mscale": 0.8,
            "mscale_all_dim": 0.6,
        },
        24,
    ),
    **{
        f"longrope, {length}": (
            LongRope(short=SHORT, long=LONG, original=32, factor=4.0),
            {
                "rope_type": "longrope",
                "factor": 4.0,
                "short_factor": SHORT,
                "long_factor": LONG,
                "original_max_position_embeddings": 32,
            },
            length,
        )
        for length in (32, 33)
    },
}


@needs_tool
@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaling_is_what_the_library_makes_of_its_fields(name):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours, fields, length = SCALINGS[name]
    config = LlamaConfig(
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": THETA, **fields},
    )
    with tool().full_float64():
        theirs, gain = ROPE_INIT_FUNCTIONS[fields["rope_type"]](config, "cpu", seq_len=length)
    found = ours.frequencies(THETA, HEAD_DIM, torch.tensor([[length]])).expand(1, 1, -1)[0, 0]
    torch.testing.assert_close(found, theirs.double(), rtol=1e-14, atol=0)
    assert ours.gain(torch.tensor([[length]])) == pytest.approx(gain, rel=1e-15)


GROWN = 0.1 * math.log(4.0)
GAINS = {
    "yarn": GROWN + 1,
    "yarn, its ends not whole": 0.7,
    "yarn, mscale": (0.8 * GROWN + 1) / (0.6 * GROWN + 1),
    **dict.fromkeys(("longrope, 32", "longrope, 33"), math.sqrt(1 + math.log(4) / math.log(32))),
}


def by_hand(name, length, i):
    """How far one pair turns from a position to the next."""
    own = THETA ** (-2 * i / HEAD_DIM)
    match name.partition(",")[0]:
        case "linear":
            return own / 2.5
        case "dynamic":
            grown = 2.5 * max(length, CONTEXT) / CONTEXT - 1.5
            return (THETA * grown ** (HEAD_DIM / (HEAD_DIM - 2))) ** (-2 * i / HEAD_DIM)
        case "llama3":
            kept = min(max((50 * own / (2 * math.pi) - 1) / (3 - 1), 0), 1)
            return own * kept + own / 4 * (1 - kept)
        case "longrope":
            return own / (LONG if length > 32 else SHORT)[i]
    most = 32 if "mscale" in name else 8
    first, last = (HEAD_DIM / 2 * math.log(256 / (n * 2 * math.pi), THETA) for n in (most, 1))
    if "not whole" not in name:
        first, last = math.floor(first), math.ceil(last)
    slowed = min(max((i - max(first, 0)) / (last - max(first, 0)), 0), 1)
    return own * (1 - slowed) + own / 4 * slowed


@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaling_is_its_formula(name):
    ours, _, length = SCALINGS[name]
    found = ours.frequencies(THETA, HEAD_DIM, torch.tensor([[length]])).flatten().tolist()
    expected = [by_hand(name, length, i) for i in range(HEAD_DIM // 2)]
    assert found == pytest.approx(expected, rel=1e-14)
    gain = ours.gain(torch.tensor([[length]]))
    assert gain == pytest.approx(GAINS.get(name, 1.0), rel=1e-15)


def test_every_scaling_is_compared():
    words = {entry.word for entry in load_index() if entry.namespace == "scaling"}
    assert words == {name.partition(",")[0] for name in SCALINGS}


def test_long_texts_may_have_a_gain_of_their_own():
    ours = LongRope(
        short=SHORT, long=SHORT, original=32, attention_factor=1.2, long_attention_factor=1.3
    )
    assert ours.gain(torch.tensor([[32, 33]])).flatten().tolist() == [1.2, 1.3]


def test_the_length_of_a_text_counts_its_own_tokens_alone():
    ids = torch.zeros(2, 6, dtype=torch.long)
    assert start_call(ids[:, 4:], 4, None, None).lengths().tolist() == [[6]]
    padding = torch.tensor([[True, True, *[False] * 4], [False] * 6])
    assert start_call(ids, 0, None, padding).lengths().tolist() == [[4], [6]]
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0] * 6])
    lengths = start_call(ids, 0, documents, None).lengths().tolist()
    assert lengths == [[2, 2, 3, 3, 3, 1], [6] * 6]
    lengths = start_call(ids, 0, documents, padding).lengths().tolist()
    assert lengths[0][2:] == [3, 3, 3, 1]


def model_of(scaling):
    page = {
        "recipe": 1,
        "dims": {"dim": 16, "heads": 2, "ff": 6, "vocab": 11, "context": 40},
        "model": [
            "token_embedding",
            {"residual": ["rmsnorm", {"attention": {"position": {"rope": {"scaling": scaling}}}}]},
            "lm_head",
        ],
    }
    return perturb(build(load_recipe(page), dtype=torch.float64), 0).eval()


ALIKE = {"short": [1.0, 1.1, 1.2, 1.3], "long": [2.0, 3.0, 4.0, 5.0], "original": 8}


@torch.no_grad()
@pytest.mark.parametrize("first", [8, 9, 20])
def test_long_texts_are_cached_as_long_ones_and_short_ones_as_short(first):
    """On one side of the original length a cache is exact; across it, other angles were read."""
    model, ids = model_of({"longrope": ALIKE}), torch.arange(24)[None] % 11
    length = 8 if first == 8 else 24
    cache = model.new_cache(1)
    parts = [model(ids[:, : first - 2], cache=cache)] if first == 8 else []
    parts += [model(ids[:, len(cache) : first], cache=cache)]
    parts += [model(ids[:, i : i + 1], cache=cache) for i in range(first, length)]
    error = (torch.cat(parts, 1) - model(ids[:, :length])).abs().max()
    assert error < 1e-12


@torch.no_grad()
@pytest.mark.parametrize(
    "scaling", [{"dynamic": {"factor": 4.0, "original": 8}}, {"longrope": ALIKE}]
)
def test_a_text_that_grows_past_the_original_length_is_not_what_it_is_at_once(scaling):
    model, ids = model_of(scaling), torch.arange(12)[None] % 11
    cache = model.new_cache(1)
    steps = torch.cat([model(ids[:, i : i + 1], cache=cache) for i in range(12)], 1)
    assert (steps[:, :8] - model(ids[:, :8])).abs().max() < 1e-12
    assert (steps[:, 8:] - model(ids)[:, 8:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_longer_row_changes_no_other_row_s_angles():
    model = model_of({"dynamic": {"factor": 4.0, "original": 8}})
    ids = torch.arange(24).view(2, 12) % 11
    padding = torch.zeros(2, 12, dtype=torch.bool)
    padding[0, :3] = True
    both = model(ids, padding=padding)
    assert (both[0, 3:] - model(ids[:1, 3:])[0]).abs().max() < 1e-12
    assert (both[1] - model(ids[1:])[0]).abs().max() < 1e-12


def test_reversed_turns_the_other_way():
    from blocks.rope import Rope

    x = torch.randn(1, 1, 5, 4, dtype=torch.float64)
    call = start_call(torch.zeros(1, 5, dtype=torch.long), 0, None, None)
    there = Rope(4, theta=7.0).rotate(x, call)
    assert (Rope(4, theta=7.0, reversed=True).rotate(there, call) - x).abs().max() < 1e-12
    angle = 7.0**-0.5 * 4
    turned = x[0, 0, 4, 1] * math.cos(angle) - x[0, 0, 4, 3] * math.sin(angle)
    assert float(there[0, 0, 4, 1] - turned) == pytest.approx(0, abs=1e-12)
