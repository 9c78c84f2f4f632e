from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant
from blocks.registry import register


@register("layernorm", kind="norm")
class LayerNorm(nn.Module):
    """Zero mean, unit variance, a gain and a shift: ``(x - mean) / sqrt(variance + eps) * weight +
    bias``.

    Shapes: ``(..., dim) -> (..., dim)``.
    Source: Ba et al. 2016, arXiv:1607.06450, equation 4.
    """

    def __init__(
        self, dim: int, *, eps: float = 1e-5, weight: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = constant(1.0, dim) if weight else None
        self.bias = constant(0.0, dim) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps)
