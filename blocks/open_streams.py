from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import register


@register("open_streams", kind="map")
class OpenStreams(nn.Module):
    """The stream, ``count`` times side by side: ``[x, x, ...]``.

    Shapes: ``(..., dim) -> (..., dim * count)``.
    Source: Zhu et al. 2024, arXiv:2409.19606, section 2.1.
    """

    outer = "dim * count"
    checks = {"count >= 2": "there are at least two streams, and count={count}"}

    def __init__(self, count: int, /) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(*[1] * (x.dim() - 1), self.count)
