"""Positions are exact to the last place that a half can hold, as far as the longest contexts go."""

from __future__ import annotations

import math
import random

import mpmath
import pytest
import torch

from blocks.alibi import Alibi
from blocks.call import start_call
from blocks.registry import load
from blocks.rope import Rope
from blocks.sinusoidal_positions import SinusoidalPositions

LAST = 131_071
HALVES = (torch.bfloat16, torch.float16)
PLACES = sorted({0, 1, 2, 3, 255, 256, 257, 4095, 65_535, LAST - 1, LAST}) + random.Random(
    0
).sample(range(LAST), 60)
POSITIONS = torch.tensor(PLACES)
ROPES = {
    "as published": {"head_dim": 64},
    "neighbours in pairs": {"head_dim": 32, "pairs": "interleaved"},
    "far apart": {"head_dim": 128, "theta": 1_000_000.0},
    "close together": {"head_dim": 16, "theta": 100.0},
    "in part": {"head_dim": 40, "fraction": 0.4},
    "in part, neighbours in pairs": {"head_dim": 24, "fraction": 0.5, "pairs": "interleaved"},
}
CHECKED = {"rope", "sinusoidal_positions", "alibi"}
LEARNED = {"learned_positions"}  # as exact as their weights
ROUNDED = {"alibi_rounded"}  # on purpose


def call_at(positions):
    call = start_call(torch.zeros(1, len(positions), dtype=torch.long), 0, None, None)
    call.positions = positions[None]
    return call


def exactly(function, theta, pairs):
    """``function(position * theta^(-i / pairs))`` to forty digits, then in float64."""
    with mpmath.workdps(40):
        rates = [mpmath.mpf(theta) ** (-mpmath.mpf(i) / pairs) for i in range(pairs)]
        rows = [[float(function(place * rate)) for rate in rates] for place in PLACES]
    return torch.tensor(rows, dtype=torch.float64)


def ulps(found, exact):
    """The largest error, in steps of ``found``'s type at the exact value."""
    info = torch.finfo(found.dtype)
    exponent = torch.frexp(exact).exponent - 1
    step = info.eps * torch.exp2(exponent.double())
    smallest = info.smallest_normal * info.eps
    return float(((found.double() - exact).abs() / step.clamp(min=smallest)).max())


def turned(rope, dtype):
    """Cosines and sines as a head meets them: each pair (1, 0) is turned by its angle."""
    pairs = rope.rotated // 2
    head = torch.full((1, 1, len(PLACES), rope.rotated + 2), 7.0, dtype=dtype)
    if rope.pairs == "half":
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    else:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    head[..., first], head[..., second] = 1.0, 0.0
    out = rope.rotate(head, call_at(POSITIONS))
    assert out.dtype == dtype and (out[..., rope.rotated :] == 7.0).all()
    return out[0, 0, :, first], out[0, 0, :, second]


def worst_of_rope(rope, dtype):
    cos, sin = turned(rope, dtype)
    pairs = rope.rotated // 2
    return max(
        ulps(cos, exactly(mpmath.cos, rope.theta, pairs)),
        ulps(sin, exactly(mpmath.sin, rope.theta, pairs)),
    )


def worst_of_sinusoids(block, dtype):
    stream = torch.zeros(1, len(PLACES), 2 * block.pairs, dtype=dtype)
    out = block(stream, call_at(POSITIONS))[0]
    assert out.dtype == dtype
    pairs = 2 * block.pairs // 2
    return max(
        ulps(out[:, 0::2], exactly(mpmath.sin, block.theta, pairs)),
        ulps(out[:, 1::2], exactly(mpmath.cos, block.theta, pairs)),
    )


def test_every_registered_position_is_checked_here():
    kinds = {"position", "positions"}
    registered = {word for (_, word), cls in load().items() if cls.kind in kinds}
    assert registered == CHECKED | LEARNED | ROUNDED


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ROPES)
def test_rotary_angles_are_exact_to_one_ulp(name, dtype):
    assert worst_of_rope(Rope(**ROPES[name]), dtype) <= 1


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("theta", [100.0, 10_000.0])
def test_sinusoids_are_exact_to_one_ulp(theta, dtype):
    assert worst_of_sinusoids(SinusoidalPositions(48, theta=theta), dtype) <= 1


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_positions_are_as_exact_where_training_computes_in_halves(dtype):
    with torch.autocast("cpu", dtype):
        assert worst_of_rope(Rope(64), dtype) <= 1
        assert worst_of_sinusoids(SinusoidalPositions(48), dtype) <= 1


@pytest.mark.parametrize("heads", [1, 6, 8])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_linear_biases_are_exact_to_one_ulp(dtype, heads):
    """As attention casts them; past what fp16 holds they are infinite, and such a key is unseen."""
    power = 2 ** math.floor(math.log2(heads))
    exponents = [mpmath.mpf(8 * (h + 1)) / power for h in range(power)]
    exponents += [mpmath.mpf(8 * (2 * h + 1)) / (2 * power) for h in range(heads - power)]
    with mpmath.workdps(40):
        rows = [[float(-place * mpmath.mpf(2) ** -e) for place in PLACES] for e in exponents]
    exact = torch.tensor(rows, dtype=torch.float64)
    found = Alibi(heads).bias(
        POSITIONS[:, None], torch.zeros(1, 1, dtype=torch.long), call_at(POSITIONS)
    )
    found = found.to(dtype)[..., 0]
    held = exact.abs() <= torch.finfo(dtype).max
    assert ulps(found[held], exact[held]) <= 1
    assert (found[~held] == -math.inf).all()


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_tables_computed_in_fewer_bits_are_seen(monkeypatch, narrow):
    """What the field has shipped: angles in the model's own type, or in float32."""
    arange = torch.arange
    fewer = {torch.float64: narrow}

    def fewer_bits(*given, dtype=None, **where):
        return arange(*given, dtype=fewer.get(dtype, dtype), **where)

    monkeypatch.setattr(torch, "arange", fewer_bits)
    assert not worst_of_rope(Rope(64), torch.bfloat16) <= 1  # it may be no number
    assert not worst_of_sinusoids(SinusoidalPositions(64), torch.bfloat16) <= 1
