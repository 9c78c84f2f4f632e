"""Gates on what attention gives: how much of it is let through, told from the stream."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from blocks.parameter import constant, drawn
from blocks.registry import Act, maker, register


@register("per_channel", kind="gate")
class PerChannel(nn.Module):
    """A gate for each channel of each head: ``act(weight x + bias)``, with ``head_bias`` a number
    for each head.

    Shapes: ``(B, T, dim) -> (B, heads, T, value_dim)``.
    Source: Qiu et al. 2025, arXiv:2505.06708, section 2.2 (elementwise, after the values).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        value_dim: int,
        *,
        act: Act = maker("sigmoid"),
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        self.weight = drawn(heads * value_dim, dim)
        self.bias = constant(0.0, heads) if head_bias else None
        self.act, self.heads = act(), heads

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.act(y if self.bias is None else y + self.bias[:, None, None])


@register("per_head", kind="gate")
class PerHead(nn.Module):
    """One gate for each head: ``act(weight x)``.

    Shapes: ``(B, T, dim) -> (B, heads, T, 1)``.
    Source: Qiu et al. 2025, arXiv:2505.06708, section 2.2 (headwise).
    """

    def __init__(self, dim: int, heads: int, *, act: Act = maker("sigmoid")) -> None:
        super().__init__()
        self.weight = drawn(heads, dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(F.linear(x, self.weight)).mT[..., None]
