"""Factors on queries that grow with the position, so that long texts are still told apart."""

from __future__ import annotations

import torch
from torch import Tensor

from blocks.registry import register


@register("log_floor", kind="temperature")
class LogFloor:
    """A step up after each ``length`` positions: ``1 + scale * log(1 + floor((position + offset) /
    length))``.

    Shapes: positions ``(...)`` -> factors ``(...)``, in float64.
    Source: Nakanishi 2025, arXiv:2501.19399, in the form of Llama 4's layers without positions.
    """

    absolute = True
    checks = {"length >= 1": "length={length} is no number of positions"}

    def __init__(self, *, length: int = 8192, scale: float = 0.1, offset: int = 0) -> None:
        self.length, self.scale, self.offset = length, scale, offset

    def factor(self, positions: Tensor) -> Tensor:
        steps = (positions + self.offset).div(self.length, rounding_mode="floor")
        return 1 + self.scale * steps.to(torch.float64).log1p()


@register("power", kind="temperature")
class Power:
    """A power of the length read so far: ``(1 + (position + 1) / length) ^ exponent``.

    Shapes: positions ``(...)`` -> factors ``(...)``, in float64.
    Source: Nakanishi 2025, arXiv:2501.19399, with a power in the logarithm's place.
    """

    absolute = True
    checks = {"length >= 1": "length={length} is no number of positions"}

    def __init__(self, *, length: int = 2048, exponent: float = 0.1) -> None:
        self.length, self.exponent = length, exponent

    def factor(self, positions: Tensor) -> Tensor:
        return (1 + (positions.to(torch.float64) + 1) / self.length) ** self.exponent
