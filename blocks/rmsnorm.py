from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant
from blocks.registry import register


@register("rmsnorm", kind="norm")
class RMSNorm(nn.Module):
    """Division by the root mean square, and a gain: ``x / sqrt(mean(x^2) + eps) * weight``.

    Shapes: ``(..., dim) -> (..., dim)``.  With ``unit_offset`` the gain is ``1 + weight``, whose
    decay draws it towards 1.
    Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; unit_offset: Gemma,
    arXiv:2403.08295.
    """

    checks = {"not (unit_offset and not weight)": "without a weight there is nothing to offset"}

    def __init__(
        self, dim: int, *, eps: float = 1e-6, weight: bool = True, unit_offset: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.eps, self.unit_offset = dim, eps, unit_offset
        self.weight = constant(0.0 if unit_offset else 1.0, dim) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        gain = 1 + self.weight if self.unit_offset else self.weight
        return F.rms_norm(x, (self.dim,), gain, self.eps)
