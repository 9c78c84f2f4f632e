from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import Act, maker, register


@register("glu", kind="ffn")
class GLU(nn.Module):
    """Gated feed-forward: ``down(act(gate(x)) * up(x))``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, inner width ``ff``.
    Source: Shazeer 2020, arXiv:2002.05202, section 2.  With ``silu`` this is LLaMA's SwiGLU.
    """

    output = "down.weight"

    def __init__(self, dim: int, ff: int, *, act: Act = maker("silu"), bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, ff, bias=bias)
        self.up = nn.Linear(dim, ff, bias=bias)
        self.down = nn.Linear(ff, dim, bias=bias)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))
