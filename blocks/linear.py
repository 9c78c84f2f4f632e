from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import register


@register("linear", kind="map")
class Linear(nn.Module):
    """A matrix, the only leaf that changes the stream's width: ``x weight^T + bias``.

    Shapes: ``(..., dim) -> (..., out)``.
    """

    output = "map"

    def __init__(self, out: int, /, dim: int, *, bias: bool = False) -> None:
        super().__init__()
        self.map = nn.Linear(dim, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)
