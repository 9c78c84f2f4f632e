"""The laws of half precision see what goes wrong in it."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F

from blocks.attention import Attention
from blocks.cache import KeyValues
from blocks.glu import GLU
from blocks.registry import load
from blocks.rmsnorm import RMSNorm
from blocks.rope import Rope
from builder import load_recipe
from builder.laws import Case
from builder.laws.positions import positions_may_shift
from builder.laws.precision import WORSE, dtypes_are_kept, half_precision_is_no_worse_on_any_path

DIMS = {"dim": 16, "heads": 4, "kv_heads": 2, "ff": 24, "vocab": 31, "context": 40}
ATTENTIONS = {
    "rope": {"position": "rope"},
    "window": {"position": "rope", "mask": {"sliding_window": 4}},
    "alibi": {"position": "alibi"},
    "softcap": {"softcap": 2.0},
}


def recipe_of(*branches):
    block = [{"residual": ["rmsnorm", branch]} for branch in branches]
    model = ["token_embedding", {"repeat": 2, "block": block}, "rmsnorm", "lm_head"]
    return load_recipe({"recipe": 1, "dims": DIMS, "model": model})


def attending(**options):
    return recipe_of({"attention": options}, "glu")


@pytest.mark.parametrize("name", ATTENTIONS)
def test_half_precision_is_as_good_on_every_path(name):
    cases = [Case(attending(**ATTENTIONS[name]), number) for number in range(4)]
    assert max(map(half_precision_is_no_worse_on_any_path, cases)) <= WORSE - 1
    assert max(map(dtypes_are_kept, cases)) == 0


# A type that is not kept


def turned_into(dtype, forward):
    """A forward whose output is of another type, where the model is a half."""

    def other(self, x, *given, **named):
        out = forward(self, x, *given, **named)
        return out.to(dtype) if x.dtype == torch.bfloat16 else out

    return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("leaf", "name"),
    [(RMSNorm, "rmsnorm_before_attention"), (Attention, "attention"), (GLU, "glu")],
    ids=["norm", "mixer", "ffn"],
)
def test_law_names_the_leaf_whose_output_is_of_another_type(leaf, name, dtype, monkeypatch):
    case = Case(attending())
    monkeypatch.setattr(F, "linear", forgiving(F.linear))
    monkeypatch.setattr(F, "rms_norm", forgiving(F.rms_norm))
    assert dtypes_are_kept(case) == 0
    monkeypatch.setattr(leaf, "forward", turned_into(dtype, leaf.forward))
    with pytest.raises(AssertionError, match=rf"layers\.0\.{name} gives {dtype}"):
        dtypes_are_kept(case)


def forgiving(function):
    """Torch would refuse to mix types; autocast does not, and then nobody notices."""

    def mixed(x, *given):
        weight = next(y for y in given if isinstance(y, torch.Tensor))
        return function(x.to(weight.dtype), *given)

    return mixed


# A path that is worse


def coarse(x):
    """With four bits where bf16 has eight."""
    return x.to(torch.float8_e4m3fn).to(x.dtype) if x.dtype == torch.bfloat16 else x


def test_law_sees_a_kernel_that_is_coarser():
    kernel = F.scaled_dot_product_attention

    def coarser(q, k, v, **options):
        return kernel(coarse(q), coarse(k), v, **options)

    case = Case(attending(scale=2.0))
    assert half_precision_is_no_worse_on_any_path(case) <= WORSE - 1
    claim = pytest.raises(AssertionError, match="in bf16, by MATH, errors are")
    with patch.object(F, "scaled_dot_product_attention", coarser), claim:
        half_precision_is_no_worse_on_any_path(case)


def test_law_sees_a_cache_that_is_coarser():
    append = KeyValues.append

    def coarser(self, k, v):
        return append(self, coarse(k), coarse(v))

    claim = pytest.raises(AssertionError, match="in bf16, cached token by token, errors are")
    with patch.object(KeyValues, "append", coarser), claim:
        half_precision_is_no_worse_on_any_path(Case(attending()))


# What is the same on every path, and so for other checks


def test_rotary_tables_in_bf16_are_seen_even_in_a_model_of_float64():
    """A shift then changes distances; in a half, tests/test_positions.py counts their errors."""
    table = Rope.table

    def narrow(self, positions, lengths, dtype):
        cos, sin = table(self, positions, lengths, torch.bfloat16)
        return cos.to(dtype), sin.to(dtype)

    case = Case(attending(position="rope"))
    claim = pytest.raises(AssertionError, match=r"a text that begins at \d+ is not what it is at 0")
    assert positions_may_shift(case) < 1e-9
    with patch.object(Rope, "table", narrow), claim:
        positions_may_shift(case)


NORMS = sorted(word for (_, word), cls in load().items() if cls.kind == "norm")


@torch.no_grad()
def roundings(word, forward=None):
    """How far a norm in bf16 is from the same in float64, in roundings of its output."""
    (cls,) = (cls for (_, known), cls in load().items() if known == word)
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    block = cls(512).bfloat16()
    exact = cls(512).double()(x.double())
    found = (forward or cls.forward)(block, x)
    assert found.dtype == torch.bfloat16
    step = torch.finfo(torch.bfloat16).eps / 2 * exact.abs().clamp(min=0.01)  # a mean is near some
    return float(((found.double() - exact).abs() / step).max())


@pytest.mark.parametrize("word", NORMS)
def test_a_norm_in_bf16_is_rounded_once(word):
    """At the end: its sums are in float32, whose own rounding is the hundredth."""
    assert roundings(word) <= 1.01


def test_a_norm_that_is_computed_in_bf16_is_seen():
    def narrow(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight

    assert roundings("rmsnorm", narrow) > 1.5
