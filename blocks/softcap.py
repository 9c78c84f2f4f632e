from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.registry import register


@register("softcap", kind="map")
class Softcap(nn.Module):
    """A smooth bound: ``cap * tanh(x / cap)``.

    Shapes: any, unchanged.
    Source: Bello et al. 2016, arXiv:1611.09940; Gemma 2, arXiv:2408.00118.
    """

    checks = {"cap > 0": "cap={cap} is not above 0"}

    def __init__(self, cap: float, /) -> None:
        super().__init__()
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(x / self.cap)
