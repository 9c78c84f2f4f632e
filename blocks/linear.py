from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant, drawn
from blocks.registry import register


@register("linear", kind="map")
class Linear(nn.Module):
    """A matrix, the only leaf that changes the stream's width: ``x weight^T + bias``.

    Shapes: ``(..., dim) -> (..., out)``.
    """

    output = "weight"

    def __init__(self, out: int, /, dim: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = drawn(out, dim)
        self.bias = constant(0.0, out) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
