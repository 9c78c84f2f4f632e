from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant
from blocks.registry import register


@register("rmsnorm", kind="norm")
class RMSNorm(nn.Module):
    """Division by the root mean square, and a gain: ``x / sqrt(mean(x^2) + eps) * weight``.

    Shapes: ``(..., dim) -> (..., dim)``.
    Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6, weight: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = constant(1.0, dim) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.dim,), self.weight, self.eps)
