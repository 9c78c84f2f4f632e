from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.registry import register


@register("dropout", kind="map")
class Dropout(nn.Module):
    """In training, zeroes each entry with probability ``p`` and scales the rest by ``1 / (1 - p)``.

    Shapes: any, unchanged.
    Source: Srivastava et al. 2014.
    """

    checks = {"0 <= p and p < 1": "p={p} is not a probability below 1"}

    def __init__(self, p: float, /) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)
