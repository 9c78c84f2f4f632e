from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import Act, Norm, maker, register, size


@register("mlp", kind="ffn")
class MLP(nn.Module):
    """Feed-forward of two matrices: ``down(act(up(x)))``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, inner width ``ff``.  ``sub_norm`` stands before
    ``down``.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3; sub_norm: Wang et al. 2022,
    arXiv:2210.06423.
    """

    output = "down.weight"
    checks = {
        "not (sub_norm != none and ff == 1)": "a sub_norm of one number leaves its sign at most"
    }

    def __init__(
        self,
        dim: int,
        ff: int = size("4 * dim"),
        *,
        act: Act = maker("gelu"),
        bias: bool = True,
        sub_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.up = nn.Linear(dim, ff, bias=bias)
        self.down = nn.Linear(ff, dim, bias=bias)
        self.act = act()
        self.sub_norm = None if sub_norm is None else sub_norm(ff)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.up(x))
        return self.down(inner if self.sub_norm is None else self.sub_norm(inner))
