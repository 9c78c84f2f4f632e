from __future__ import annotations

from torch import Tensor, nn

from blocks.call import Call
from blocks.parameter import constant, drawn
from blocks.recurrent import Summary, blank, convolve
from blocks.registry import Act, register


@register("short_conv", kind="mixer")
class ShortConv(nn.Module):
    """Causal depthwise convolution: ``act(sum_i weight_i x_(t - kernel + 1 + i) + bias)``, each
    channel by itself.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, weight ``(dim, kernel)`` with the newest place last.
    Remembers the ``kernel - 1`` places before.  ``residual: short_conv`` is a Canon layer.
    Source: Allen-Zhu 2025, Physics of Language Models 4.1 (Canon layers); Primer: So et al. 2021,
    arXiv:2109.08668; with ``act: silu``, Mamba's: Gu and Dao 2023, arXiv:2312.00752, section 3.4.
    """

    def __init__(
        self, dim: int, kernel: int = 4, *, act: Act | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.weight = drawn(dim, kernel)
        self.bias = constant(0.0, dim) if bias else None
        self.act = None if act is None else act()

    def forward(self, x: Tensor, call: Call, cache: Summary | None = None) -> Tensor:
        memory = self.state() if cache is None else cache
        y, window = convolve(blank(x, call), self.weight, memory.tensors.get("window"), call)
        memory.advance(x.shape[1], window=window)
        y = y if self.bias is None else y + self.bias
        return y if self.act is None else self.act(y)

    def state(self) -> Summary:
        return Summary()

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether the token at place ``i`` reads that at ``j``; broadcasts."""
        return (j <= i) & (i - j < self.weight.shape[1])
