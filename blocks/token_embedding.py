from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import drawn
from blocks.registry import register


@register("token_embedding", kind="embedding")
class TokenEmbedding(nn.Module):
    """A row of the table for each token.

    Shapes: ``(B, T)`` int64 -> ``(B, T, dim)``.
    Source: Bengio et al. 2003, section 2.
    """

    def __init__(self, vocab: int, dim: int) -> None:
        super().__init__()
        self.weight = drawn(vocab, dim)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)
