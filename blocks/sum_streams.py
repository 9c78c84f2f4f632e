from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import register


@register("sum_streams", kind="map")
class SumStreams(nn.Module):
    """The sum of ``count`` streams that stand side by side.

    Shapes: ``(..., dim) -> (..., dim / count)``.
    Source: Zhu et al. 2024, arXiv:2409.19606, section 2.1.
    """

    outer = "dim / count"
    checks = {
        "count >= 2": "there are at least two streams, and count={count}",
        "dim % count == 0": "a stream of width {dim} cannot be split into {count}",
    }

    def __init__(self, count: int, /) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.count, -1)).sum(-2)
