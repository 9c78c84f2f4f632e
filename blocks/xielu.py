from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant
from blocks.registry import register


@register("xielu", kind="act")
class XIELU(nn.Module):
    """``a x^2 + beta x`` above 0, ``b (exp(min(x, eps)) - 1 - x) + beta x`` below it, where ``a =
    softplus(alpha_p)`` and ``b = beta + softplus(alpha_n)`` are learned.

    Shapes: as given; both weights are ``(1)``, and ``a`` and ``b`` 0.8 at first.
    Source: Huang and Schlag 2024, arXiv:2411.13010, equation 10.
    """

    checks = {
        "0 < beta and beta < 0.8": "beta={beta} is not between 0 and 0.8",
        "eps <= 0": "eps={eps} is above 0",
    }

    def __init__(self, *, beta: float = 0.5, eps: float = -1e-6) -> None:
        super().__init__()
        self.alpha_p = constant(math.log(math.expm1(0.8)), 1)
        self.alpha_n = constant(math.log(math.expm1(0.8 - beta)), 1)
        self.beta, self.eps = beta, eps

    def forward(self, x: Tensor) -> Tensor:
        above = F.softplus(self.alpha_p) * x * x
        bend = torch.expm1(x.clamp(max=self.eps)) - x
        below = (self.beta + F.softplus(self.alpha_n)) * bend
        return torch.where(x > 0, above, below) + self.beta * x
