from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import register


@register("sinusoidal_positions", kind="positions")
class SinusoidalPositions(nn.Module):
    """Adds sines and cosines of the position at ``dim / 2`` wavelengths, from ``2 pi`` to ``2 pi
    theta``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; even components hold sines, odd ones cosines.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """

    checks = {"dim % 2 == 0": "sines and cosines come in pairs, and dim={dim} is odd"}

    def __init__(self, dim: int, *, theta: float = 10000.0) -> None:
        super().__init__()
        self.dim, self.theta = dim, theta

    def forward(self, x: Tensor, call: Call) -> Tensor:
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float64, device=x.device) / self.dim
        angles = call.positions[..., None] * self.theta**-exponent  # (1 or B, T, dim / 2)
        return x + torch.stack([angles.sin(), angles.cos()], -1).flatten(-2).to(x.dtype)
