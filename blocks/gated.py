from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import drawn
from blocks.registry import register


@register("gated", kind="joiner")
class Gated(nn.Module):
    """What a branch gives, let through as far as the token says: ``sigmoid(weight x) f(x)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; ``weight`` is ``(1, dim)``.  Nothing is added to it.
    Source: Qwen1.5-MoE, Qwen Team 2024 (the gate of its shared expert).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = drawn(1, dim)

    def forward(self, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(x, self.weight).sigmoid() * body(x)
