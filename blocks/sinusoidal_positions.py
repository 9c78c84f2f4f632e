from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import register


@register("sinusoidal_positions", kind="positions")
class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position at ``dim / 2`` wavelengths, from ``2 pi`` to ``2 pi
    theta``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; even components hold sines, odd ones cosines, or with
    ``layout: halves`` the first half sines and the second cosines.  The longest wavelength is the
    next after the last, or with ``reaches_theta`` the last.  ``offset`` is added to positions.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; halves: tensor2tensor, whose last
    wavelength reaches theta; offset: fairseq.
    """

    checks = {
        "dim % 2 == 0": "sines and cosines come in pairs, and dim={dim} is odd",
        "not (reaches_theta and dim < 4)": "one wavelength cannot be the shortest and the longest",
    }

    def __init__(
        self,
        dim: int,
        *,
        theta: float = 10000.0,
        layout: Literal["interleaved", "halves"] = "interleaved",
        reaches_theta: bool = False,
        offset: int = 0,
    ) -> None:
        super().__init__()
        self.pairs, self.theta, self.layout, self.offset = dim // 2, theta, layout, offset
        self.steps = self.pairs - 1 if reaches_theta else self.pairs

    def forward(self, x: Tensor, call: Call) -> Tensor:
        exponent = torch.arange(self.pairs, dtype=torch.float64, device=x.device) / self.steps
        positions = (call.positions + self.offset)[..., None]
        angles = positions * self.theta**-exponent  # (1 or B, T, dim / 2)
        axis = -1 if self.layout == "interleaved" else -2
        return x + torch.stack([angles.sin(), angles.cos()], axis).flatten(-2).to(x.dtype)
