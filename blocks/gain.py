from __future__ import annotations

from torch import Tensor, nn

from blocks.parameter import constant
from blocks.registry import register


@register("gain", kind="map")
class Gain(nn.Module):
    """A learned gain for each channel, ``initial`` at first: ``weight * x`` (LayerScale).

    Shapes: ``(..., dim) -> (..., dim)``.
    Source: Touvron et al. 2021, arXiv:2103.17239, equation 2.
    """

    def __init__(self, initial: float, /, dim: int) -> None:
        super().__init__()
        self.weight = constant(initial, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x
