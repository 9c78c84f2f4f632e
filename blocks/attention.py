from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from blocks.attend import attend
from blocks.cache import KeyValues
from blocks.call import Call
from blocks.layernorm import LayerNorm
from blocks.parameter import constant
from blocks.registry import Mask, Norm, Position, Reference, maker, register, size


@register("attention", kind="mixer")
class Attention(nn.Module):
    """Softmax attention of ``heads`` queries over ``kv_heads`` keys and values: ``o(softmax(q k^T
    scale) v)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``.  ``kv_heads = heads`` is MHA, ``1`` is MQA, between lies
    GQA: query head ``h`` reads key head ``h // (heads / kv_heads)``.  Caches the keys (rotated) and
    values of every visible position.  ``scale`` none is ``1 / sqrt(head_dim)``; ``softcap`` bounds
    the scores by ``cap * tanh(score / cap)``.  ``kv_from`` reads an earlier attention's keys and
    values, and its cache; ``value_from`` adds an earlier one's values to its own, both weighed by
    learned numbers, one half at first.
    Source: Vaswani et al. 2017, arXiv:1706.03762; GQA: Ainslie et al. 2023, arXiv:2305.13245;
    softcap: Gemma 2, arXiv:2408.00118; qk_norm: Dehghani et al. 2023, arXiv:2302.05442; kv_from:
    Brandon et al. 2024, arXiv:2405.12981; value_from: Zhou et al. 2024, arXiv:2410.17897.
    """

    output = "o.weight"
    lends = {
        "keys_values": ("kv_heads", "head_dim", "position"),
        "values": ("kv_heads", "head_dim"),
    }
    reads = {"kv_from": "keys_values", "value_from": "values"}
    checks = {
        "heads % kv_heads == 0": "heads={heads} is not a multiple of kv_heads={kv_heads}",
        "softcap > 0": "softcap={softcap} is not above 0",
        "0 <= dropout and dropout < 1": "dropout={dropout} is not a probability below 1",
        "not (kv_from != none and value_from != none)": "with the keys and values of another there "
        "are none of its own to add to",
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
        kv_from: Reference | None = None,
        value_from: Reference | None = None,
    ) -> None:
        super().__init__()
        self.borrows = kv_from is not None
        self.q = nn.Linear(dim, heads * head_dim, bias=bias)
        if not self.borrows:
            self.k = nn.Linear(dim, kv_heads * head_dim, bias=bias)
            self.v = nn.Linear(dim, kv_heads * head_dim, bias=bias)
        self.o = nn.Linear(heads * head_dim, dim, bias=out_bias)
        self.q_norm = None if qk_norm is None else qk_norm(head_dim)
        self.k_norm = None if qk_norm is None or self.borrows else qk_norm(head_dim)
        self.value_mix = None if value_from is None else constant(0.5, 2)
        self.position = None if position is None else position(heads=heads, head_dim=head_dim)
        self.mask = mask()
        self.head_dim, self.softcap, self.dropout = head_dim, softcap, dropout
        self.scale = head_dim**-0.5 if scale is None else scale
        self.absolute = self.mask.absolute

    def forward(
        self,
        x: Tensor,
        call: Call,
        cache: KeyValues | None = None,
        kv_from: tuple[Tensor, Tensor] | None = None,
        value_from: Tensor | None = None,
        lend: dict[str, object] | None = None,
    ) -> Tensor:
        q = self._placed(self.q(x), self.q_norm, call)
        k, v = kv_from or self._keys_values(x, call, cache, value_from)
        if lend is not None:
            lend.update(keys_values=(k, v), values=v[:, :, -x.shape[1] :])
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

    def _keys_values(
        self,
        x: Tensor,
        call: Call,
        cache: KeyValues | None,
        other: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Those of all visible positions, (B, kv_heads, S, head_dim), the cached ones first."""
        k, v = self._placed(self.k(x), self.k_norm, call), self._heads(self.v(x))
        if self.value_mix is not None and other is not None:
            v = self.value_mix[0] * v + self.value_mix[1] * other
        return (k, v) if cache is None else cache.append(k, v)

    def _placed(self, x: Tensor, norm: nn.Module | None, call: Call) -> Tensor:
        x = self._heads(x)
        x = x if norm is None else norm(x)
        return x if self.position is None else self.position.rotate(x, call)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, T, head_dim)

    def state(self, readers: Sequence[Attention] = ()) -> KeyValues | None:
        """What it remembers: as far back as it, or an attention that reads its keys, can see."""
        spans = [attention.mask.span for attention in (self, *readers)]
        widest = None if None in spans else max(spans)
        return None if self.borrows else KeyValues(widest)

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether the token at place ``i`` reads that at ``j``; broadcasts."""
        return self.mask.visible(i, j)  # type: ignore[no-any-return]

    def nulls(self) -> dict[str, str]:
        """Parameters that no gradient reaches, with the reasons."""
        if self.mask.span == 1:
            reason = "one key has the weight 1, whatever its score"
            return dict.fromkeys(("q.", "k.", "q_norm.", "k_norm."), reason)
        if self.head_dim == 1 and isinstance(self.q_norm, LayerNorm):
            reason = "one number less its mean is 0"
            return dict.fromkeys(("q.", "k.", "q_norm.weight", "k_norm."), reason)
        rotates = self.position is not None and getattr(self.position, "rotates", True)
        if self.softcap is None and not rotates:
            added = "k.bias" if self.q_norm is None else "k_norm.bias"
            return {added: "it adds the same to every score of a query, which softmax ignores"}
        return {}
