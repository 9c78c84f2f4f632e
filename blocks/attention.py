from __future__ import annotations

from torch import Tensor, nn

from blocks.attend import attend
from blocks.cache import KeyValues
from blocks.call import Call
from blocks.registry import Mask, Norm, Position, maker, register, size


@register("attention", kind="mixer")
class Attention(nn.Module):
    """Softmax attention of ``heads`` queries over ``kv_heads`` keys and values: ``o(softmax(q k^T
    scale) v)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``.  ``kv_heads = heads`` is MHA, ``1`` is MQA, between lies
    GQA: query head ``h`` reads key head ``h // (heads / kv_heads)``.  Caches the keys (rotated) and
    values of every visible position. ``scale`` none is ``1 / sqrt(head_dim)``; ``softcap`` bounds
    the scores by ``cap * tanh(score / cap)``.
    Source: Vaswani et al. 2017, arXiv:1706.03762; GQA: Ainslie et al. 2023, arXiv:2305.13245;
    softcap: Gemma 2, arXiv:2408.00118; qk_norm: Dehghani et al. 2023, arXiv:2302.05442.
    """

    output = "o.weight"
    checks = {
        "heads % kv_heads == 0": "heads={heads} is not a multiple of kv_heads={kv_heads}",
        "softcap > 0": "softcap={softcap} is not above 0",
        "0 <= dropout and dropout < 1": "dropout={dropout} is not a probability below 1",
    }

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int = size("heads"),
        head_dim: int = size("dim / heads"),
        *,
        position: Position | None = None,
        mask: Mask = maker("causal"),
        qk_norm: Norm | None = None,
        bias: bool = False,
        out_bias: bool = False,
        scale: float | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.q = nn.Linear(dim, heads * head_dim, bias=bias)
        self.k = nn.Linear(dim, kv_heads * head_dim, bias=bias)
        self.v = nn.Linear(dim, kv_heads * head_dim, bias=bias)
        self.o = nn.Linear(heads * head_dim, dim, bias=out_bias)
        self.q_norm = None if qk_norm is None else qk_norm(head_dim)
        self.k_norm = None if qk_norm is None else qk_norm(head_dim)
        self.position = None if position is None else position(heads=heads, head_dim=head_dim)
        self.mask = mask()
        self.head_dim, self.softcap, self.dropout = head_dim, softcap, dropout
        self.scale = head_dim**-0.5 if scale is None else scale

    def forward(self, x: Tensor, call: Call, cache: KeyValues | None = None) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
        )  # (B, heads or kv_heads, T, head_dim)
        if self.position is not None:
            q, k = self.position.rotate(q, k, call)
        if cache is not None:
            k, v = cache.append(k, v)
        out = attend(
            q,
            k,
            v,
            call,
            self.mask,
            scale=self.scale,
            bias=None if self.position is None else self.position.bias,
            softcap=self.softcap,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.o(out.transpose(1, 2).flatten(2))

    def state(self) -> KeyValues:
        return KeyValues(self.mask.span)
