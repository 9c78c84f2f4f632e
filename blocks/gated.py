from __future__ import annotations

from torch import Tensor, nn

from blocks.parameter import drawn
from blocks.registry import Node, register


@register("gated", kind="ffn")
class Gated(nn.Module):
    """What a node gives, let through as far as the token says: ``sigmoid(weight x) f(x)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; ``weight`` is ``(1, dim)``.
    Source: Qwen1.5-MoE, Qwen Team 2024 (the gate of its shared expert).
    """

    def __init__(self, f: Node, /, dim: int) -> None:
        super().__init__()
        self.weight = drawn(1, dim)
        self.body = f(dim)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight).sigmoid() * self.body(x)
