from __future__ import annotations

from torch import Tensor, nn

from blocks.parameter import constant
from blocks.registry import References, register


@register("mix", kind="map")
class Mix(nn.Module):
    """What all nodes of a label gave, weighed and added: ``own * x + sum_i weight_i * source_i``.

    Shapes: ``(..., dim) -> (..., dim)``, and each source's is the same.  At first ``own`` is 1 and
    every weight 0.  If ``x`` itself bears the label it is ``x``, and not a source besides.
    Source: Pagliardini et al. 2024, arXiv:2402.02622, section 3.
    """

    def __init__(self, sources: References, /) -> None:
        super().__init__()
        self.own = constant(1.0, 1)
        self.weight = constant(0.0, len(sources)) if sources else None

    def forward(self, x: Tensor, sources: list[Tensor]) -> Tensor:
        mixed = self.own * x
        if self.weight is not None:
            for weight, source in zip(self.weight, sources, strict=True):
                mixed = mixed + weight * source
        return mixed
