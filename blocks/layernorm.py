from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant
from blocks.registry import register


@register("layernorm", kind="norm")
class LayerNorm(nn.Module):
    """Zero mean, unit variance, a gain and a shift: ``(x - mean) / sqrt(variance + eps) * weight +
    bias``.

    Shapes: ``(..., dim) -> (..., dim)``.  With ``unit_offset`` the gain is ``1 + weight``, whose
    decay draws it towards 1.
    Source: Ba et al. 2016, arXiv:1607.06450, equation 4; unit_offset: Nemotron-4,
    arXiv:2402.16819.
    """

    checks = {"not (unit_offset and not weight)": "without a weight there is nothing to offset"}

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-5,
        weight: bool = True,
        bias: bool = True,
        unit_offset: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.eps, self.unit_offset = dim, eps, unit_offset
        self.weight = constant(0.0 if unit_offset else 1.0, dim) if weight else None
        self.bias = constant(0.0, dim) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        gain = 1 + self.weight if self.unit_offset else self.weight
        return F.layer_norm(x, (self.dim,), gain, self.bias, self.eps)
