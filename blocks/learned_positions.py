from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.call import Call
from blocks.parameter import drawn
from blocks.registry import register


@register("learned_positions", kind="positions")
class LearnedPositions(nn.Module):
    """Adds a learned row for each position: ``x + weight[position + offset]``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``.  Raises ValueError at a position past the table.
    Source: Gehring et al. 2017, arXiv:1705.03122; GPT (Radford et al. 2018); offset: OPT,
    arXiv:2205.01068, whose first rows no position reads.
    """

    checks = {"offset >= 0": "offset={offset} is below 0"}

    def __init__(self, dim: int, context: int, *, offset: int = 0) -> None:
        super().__init__()
        self.limit, self.offset = context, offset
        self.weight = drawn(context + offset, dim)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        if call.end > self.limit and (last := int(call.positions.max())) >= self.limit:
            raise ValueError(f"position {last} is past the {self.limit} that are learned")
        return x + F.embedding(call.positions + self.offset, self.weight)
