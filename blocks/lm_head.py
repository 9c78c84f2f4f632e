from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant, drawn
from blocks.registry import register


@register("lm_head", kind="head")
class LMHead(nn.Module):
    """A logit for each word of the vocabulary: ``x weight^T``; ``tie`` uses the token embedding's
    weight.

    Shapes: ``(B, T, dim) -> (B, T, vocab)``.
    Source: Press and Wolf 2016, arXiv:1608.05859, for tying.
    """

    def __init__(self, dim: int, vocab: int, *, tie: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.tie = tie
        self.weight = drawn(vocab, dim)
        self.bias = constant(0.0, vocab) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)
