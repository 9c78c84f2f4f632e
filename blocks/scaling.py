"""What becomes of rotary angles, so that a model reads texts longer than those of its training.

Each gives the frequencies, how far each pair turns from one position to the next, and a ``gain`` by
which cosines and sines are multiplied.  One that reads the ``length`` of a text says from which on
it gives others: a text that grows past it has been read by other angles than one that is read at
once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.registry import register


def frequencies(theta: float, rotated: int, device: torch.device) -> Tensor:
    """``theta^(-2i / rotated)``, the pairs' own, in float64: (rotated / 2)."""
    exponent = torch.arange(0, rotated, 2, dtype=torch.float64, device=device) / rotated
    return theta**-exponent


@dataclass(frozen=True)
class Unscaled:
    """The angles as they are, and what every scaling has in common."""

    absolute = False

    @property
    def reads_length(self) -> int | None:
        """The length up to which a text's own makes no difference; None if it never does."""
        return None

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        """Of each text of some length, (...) -> (..., rotated / 2), or of all alike."""
        return frequencies(theta, rotated, length.device)

    def gain(self, length: Tensor) -> Tensor | float:
        """What cosines and sines are multiplied by: one number, or (..., 1)."""
        return 1.0


@register("linear", kind="scaling")
@dataclass(frozen=True, kw_only=True)
class Linear(Unscaled):
    """Positions as if they stood closer: every frequency divided by ``factor``.

    Shapes: length ``(...)`` -> frequencies ``(rotated / 2)``.
    Source: Chen et al. 2023, arXiv:2306.15595.
    """

    checks = {"factor >= 1": "factor={factor} is below 1"}

    factor: float

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        return frequencies(theta, rotated, length.device) / self.factor


@register("dynamic", kind="scaling")
@dataclass(frozen=True, kw_only=True)
class Dynamic(Unscaled):
    """A larger base for a text longer than ``original``: ``theta * (factor * length / original -
    factor + 1)^(rotated / (rotated - 2))``.

    Shapes: length ``(...)`` -> frequencies ``(..., rotated / 2)``.
    Source: emozilla 2023, "Dynamically scaled RoPE", after the NTK-aware base of bloc97.
    """

    absolute = True
    checks = {
        "factor >= 1": "factor={factor} is below 1",
        "original >= 1": "original={original} is no number of positions",
        "head_dim * fraction >= 4": "with one rotary pair there is no base to change",
    }

    factor: float
    original: int

    @property
    def reads_length(self) -> int:
        return self.original

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        longer = length.clamp(min=self.original).to(torch.float64) / self.original
        base = theta * (self.factor * longer - (self.factor - 1)) ** (rotated / (rotated - 2))
        exponent = torch.arange(0, rotated, 2, dtype=torch.float64, device=length.device) / rotated
        return base[..., None] ** -exponent


@register("llama3", kind="scaling")
@dataclass(frozen=True, kw_only=True)
class Llama3(Unscaled):
    """Pairs that turn fewer than ``low`` times in ``original`` positions slowed by ``factor``, more
    than ``high`` times as they are, those between by a blend.

    Shapes: length ``(...)`` -> frequencies ``(rotated / 2)``.
    Source: Grattafiori et al. 2024, arXiv:2407.21783, section 3.2; the blend is its code's.
    """

    checks = {
        "factor >= 1": "factor={factor} is below 1",
        "low < high": "low={low} is not below high={high}",
        "original >= 1": "original={original} is no number of positions",
    }

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        own = frequencies(theta, rotated, length.device)
        turns = self.original * own / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return own * (kept + (1 - kept) / self.factor)


@register("yarn", kind="scaling")
@dataclass(frozen=True, kw_only=True)
class Yarn(Unscaled):
    """Pairs that turn fewer than ``beta_slow`` times in ``original`` positions slowed by
    ``factor``, more than ``beta_fast`` times as they are, and a ramp over the pairs between, whose
    ends are whole if ``truncate``; cosines and sines are larger by ``attention_factor``.

    Without it that is ``0.1 log(factor) + 1``, or with ``mscale`` and ``mscale_all_dim`` the ratio
    of two such numbers, each of which stands before its logarithm.

    Shapes: length ``(...)`` -> frequencies ``(rotated / 2)``.
    Source: Peng et al. 2023, arXiv:2309.00071, sections 3.2 and 3.4; mscale: DeepSeek-V2,
    arXiv:2405.04434, section 3.1.4.
    """

    checks = {
        "factor >= 1": "factor={factor} is below 1",
        "original >= 1": "original={original} is no number of positions",
        "0 < beta_slow and beta_slow < beta_fast": "beta_slow={beta_slow} is not between 0 and "
        "beta_fast={beta_fast}",
        "1 < theta": "theta={theta} is not above 1",
        "not (mscale == none and mscale_all_dim != none)": "mscale_all_dim without mscale",
        "not (mscale != none and mscale_all_dim == none)": "mscale without mscale_all_dim",
        "not (mscale != none and attention_factor != none)": "mscale beside the attention_factor "
        "that it stands for",
    }

    factor: float
    original: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    def gain(self, length: Tensor) -> Tensor | float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is None or self.mscale_all_dim is None:
            return self._grown(1.0)
        return self._grown(self.mscale) / self._grown(self.mscale_all_dim)

    def _grown(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        own = frequencies(theta, rotated, length.device)
        low, high = (
            self._pair(turns, theta, rotated) for turns in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotated - 1)
        pairs = torch.arange(rotated // 2, dtype=torch.float64, device=length.device)
        slowed = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
        return own * (1 - slowed + slowed / self.factor)

    def _pair(self, turns: float, theta: float, rotated: int) -> float:
        """The pair, as a number with a fraction, that turns so often in the original length."""
        return rotated * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))


@register("longrope", kind="scaling")
@dataclass(frozen=True, kw_only=True)
class LongRope(Unscaled):
    """A divisor for each pair: those of ``short``, and of ``long`` for a text longer than
    ``original``; cosines and sines are larger by ``attention_factor``, there by
    ``long_attention_factor``.

    Without them that is 1, or with ``factor`` ``sqrt(1 + log(factor) / log(original))``.

    Shapes: length ``(...)`` -> frequencies ``(..., rotated / 2)``.
    Source: Ding et al. 2024, arXiv:2402.13753; the factor is Phi-3's, arXiv:2404.14219.
    """

    absolute = True
    checks = {
        "original >= 1": "original={original} is no number of positions",
        "not (factor != none and original == 1)": "original=1 is no length that grows by a factor",
        "factor >= 1": "factor={factor} is below 1",
        "len(short) * 2 == floor(head_dim * fraction)": "short has a number for each rotary pair, "
        "and head_dim={head_dim} * fraction={fraction} has other pairs",
        "len(long) * 2 == floor(head_dim * fraction)": "long has a number for each rotary pair, "
        "and head_dim={head_dim} * fraction={fraction} has other pairs",
        "not (factor != none and attention_factor != none)": "a factor beside the attention_factor "
        "that it stands for",
        "not (attention_factor == none and long_attention_factor != none)": "without an "
        "attention_factor there is no other one for long texts",
    }

    short: Sequence[float]
    long: Sequence[float]
    original: int
    factor: float | None = None
    attention_factor: float | None = None
    long_attention_factor: float | None = None

    @property
    def reads_length(self) -> int:
        return self.original

    def gain(self, length: Tensor) -> Tensor | float:
        if self.factor is not None:
            return math.sqrt(1 + math.log(self.factor) / math.log(self.original))
        short = 1.0 if self.attention_factor is None else self.attention_factor
        if self.long_attention_factor is None:
            return short
        gains = torch.tensor(
            [short, self.long_attention_factor], dtype=torch.float64, device=length.device
        )
        return gains[(length > self.original).long()][..., None]

    def frequencies(self, theta: float, rotated: int, length: Tensor) -> Tensor:
        own = frequencies(theta, rotated, length.device)
        short, long = (own / own.new_tensor(divisors) for divisors in (self.short, self.long))
        return torch.where((length > self.original)[..., None], long, short)
