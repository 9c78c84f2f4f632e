from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from blocks.parameter import constant
from blocks.registry import register


@register("lerp", kind="joiner")
class Lerp(nn.Module):
    """A step towards what the branch gives, learned for each channel: ``x + rate * (f(x) - x)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; ``rate`` is ``initial`` at first.
    Source: Loshchilov et al. 2024, arXiv:2410.01131 (nGPT), equations 10 and 11, whose norms are
    nodes beside and inside it.
    """

    def __init__(self, dim: int, *, initial: float = 0.05) -> None:
        super().__init__()
        self.rate = constant(initial, dim)

    def forward(self, x: Tensor, body: Callable[[Tensor], Tensor]) -> Tensor:
        return x + self.rate * (body(x) - x)
