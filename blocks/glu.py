from __future__ import annotations

from torch import Tensor, nn

from blocks.registry import Act, Norm, maker, register


@register("glu", kind="ffn")
class GLU(nn.Module):
    """Gated feed-forward: ``down(act(gate(x)) * up(x))``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``, inner width ``ff``.  ``sub_norm`` stands before
    ``down``.
    Source: Shazeer 2020, arXiv:2002.05202, section 2.  With ``silu`` this is LLaMA's SwiGLU;
    sub_norm: Wang et al. 2022, arXiv:2210.06423.
    """

    output = "down.weight"
    checks = {
        "not (sub_norm != none and ff == 1)": "a sub_norm of one number leaves its sign at most"
    }

    def __init__(
        self,
        dim: int,
        ff: int,
        *,
        act: Act = maker("silu"),
        bias: bool = False,
        sub_norm: Norm | None = None,
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, ff, bias=bias)
        self.up = nn.Linear(dim, ff, bias=bias)
        self.down = nn.Linear(ff, dim, bias=bias)
        self.act = act()
        self.sub_norm = None if sub_norm is None else sub_norm(ff)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.gate(x)) * self.up(x)
        return self.down(inner if self.sub_norm is None else self.sub_norm(inner))
