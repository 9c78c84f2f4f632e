from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import register


@register("scale", kind="map")
class Scale(nn.Module):
    """Multiplication by a fixed number: ``factor * x``.

    Shapes: any, unchanged.
    Source: scaled branches in DeepNet (Wang et al. 2022, arXiv:2203.00555) and Granite.
    """

    def __init__(self, factor: float, /) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x
