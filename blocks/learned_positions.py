from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.call import Call
from blocks.parameter import drawn
from blocks.registry import register


@register("learned_positions", kind="positions")
class LearnedPositions(nn.Module):
    """Adds a learned row for each position: ``x + weight[position]``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``.  Raises ValueError at a position past the table.
    Source: Gehring et al. 2017, arXiv:1705.03122; GPT (Radford et al. 2018).
    """

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.limit = context
        self.weight = drawn(context, dim)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        if call.end > self.limit and (last := int(call.positions.max())) >= self.limit:
            raise ValueError(f"position {last} is past the {self.limit} that are learned")
        return x + F.embedding(call.positions, self.weight)
