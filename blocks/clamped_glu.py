from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.registry import register


@register("clamped_glu", kind="ffn")
class ClampedGLU(nn.Module):
    """Gated feed-forward of bounded parts: ``down(g * sigmoid(alpha * g) * (1 + u))``, where ``g``
    is ``gate(x)`` cut off above ``limit``, and ``u`` is ``up(x)`` cut off beyond ``-limit`` and
    ``limit``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, inner width ``ff``.
    Source: OpenAI 2025, arXiv:2508.10925, section 2.2 (gpt-oss).
    """

    output = "down.weight"
    checks = {"limit > 0": "limit={limit} is not above 0"}

    def __init__(
        self, dim: int, ff: int, *, alpha: float = 1.702, limit: float = 7.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, ff, bias=bias)
        self.up = nn.Linear(dim, ff, bias=bias)
        self.down = nn.Linear(ff, dim, bias=bias)
        self.alpha, self.bound = alpha, limit

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).clamp(max=self.bound)
        up = self.up(x).clamp(-self.bound, self.bound)
        return self.down(gate * torch.sigmoid(self.alpha * gate) * (1 + up))
