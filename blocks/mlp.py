from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import Act, maker, register, size


@register("mlp", kind="ffn")
class MLP(nn.Module):
    """Feed-forward of two matrices: ``down(act(up(x)))``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, inner width ``ff``.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3.
    """

    output = "down.weight"

    def __init__(
        self, dim: int, ff: int = size("4 * dim"), *, act: Act = maker("gelu"), bias: bool = True
    ) -> None:
        super().__init__()
        self.up = nn.Linear(dim, ff, bias=bias)
        self.down = nn.Linear(ff, dim, bias=bias)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))
