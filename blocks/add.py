from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import Reference, register


@register("add", kind="map")
class Add(nn.Module):
    """What an earlier node gave, added: ``x + source``.

    Shapes: ``(..., dim) -> (..., dim)``, and the source's is the same.
    Source: Ronneberger et al. 2015, arXiv:1505.04597, for skips across depth (there concatenated).
    """

    def __init__(self, source: Reference, /) -> None:
        super().__init__()

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        return x + source
