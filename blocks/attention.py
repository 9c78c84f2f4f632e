from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from blocks.attend import attend
from blocks.cache import KeyValues
from blocks.call import Call
from blocks.parameter import constant
from blocks.registry import (
    Gate,
    Mask,
    Norm,
    Position,
    Reference,
    Temperature,
    maker,
    register,
    size,
)
from blocks.stack import call_row, stack
from blocks.static_cache import newest


@register("attention", kind="mixer")
class Attention(nn.Module):
    """Softmax attention of ``heads`` queries over ``kv_heads`` keys and values: ``o(softmax(q k^T
    scale) v)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``.  ``kv_heads = heads`` is MHA, ``1`` is MQA, between lies
    GQA: query head ``h`` reads key head ``h // (heads / kv_heads)``.  Caches the keys (rotated) and
    values of every visible position.  ``scale`` none is ``1 / sqrt(head_dim)``; ``softcap`` bounds
    the scores by ``cap * tanh(score / cap)``; ``clip`` bounds queries, keys and values by cutting
    them off.  ``qk_norm`` is over each head, by one set of weights or by ``each`` head's own, or
    over ``all`` heads together, and stands before or after the rotation.  ``temperature``
    multiplies queries; ``sinks`` are one learned score for each head, of a key without value.
    ``gate`` multiplies what the heads give, and ``sub_norm`` is over all of it.  ``kv_from`` reads
    an earlier attention's keys and values, and its cache; ``value_from`` adds an earlier one's
    values to its own, both weighed by learned numbers, one half at first.
    Source: Vaswani et al. 2017, arXiv:1706.03762; GQA: Ainslie et al. 2023, arXiv:2305.13245;
    softcap: Gemma 2, arXiv:2408.00118; clip: MPT, MosaicML 2023; qk_norm: Dehghani et al. 2023,
    arXiv:2302.05442; sinks: Xiao et al. 2023, arXiv:2309.17453, learned as in gpt-oss; sub_norm:
    Wang et al. 2022, arXiv:2210.06423; kv_from: Brandon et al. 2024, arXiv:2405.12981; value_from:
    Zhou et al. 2024, arXiv:2410.17897.
    """

    output = "o.weight"
    lends = {
        "keys_values": ("kv_heads", "head_dim", "value_dim", "position"),
        "values": ("kv_heads", "value_dim"),
    }
    reads = {"kv_from": "keys_values", "value_from": "values"}
    active = 1  # the share in use of what is stacked: every head has a norm, and uses it
    checks = {
        "heads % kv_heads == 0": "heads={heads} is not a multiple of kv_heads={kv_heads}",
        "softcap > 0": "softcap={softcap} is not above 0",
        "clip > 0": "clip={clip} is not above 0",
        "0 <= dropout and dropout < 1": "dropout={dropout} is not a probability below 1",
        "not (qk_norm == none and qk_norm_over != 'head')": "qk_norm_over={qk_norm_over} without a "
        "qk_norm",
        "not (qk_norm == none and qk_norm_at == 'after')": "qk_norm_at={qk_norm_at} without a "
        "qk_norm",
        "not (position == none and qk_norm_at == 'after')": "nothing is rotated that the qk_norm "
        "could stand after",
        "not (qk_norm != none and head_dim == 1)": "a qk_norm of one number leaves its sign at "
        "most",
        "not (sub_norm != none and heads * value_dim == 1)": "a sub_norm of one number leaves its "
        "sign at most",
        "not (kv_from != none and value_from != none)": "with the keys and values of another there "
        "are none of its own to add to",
    }

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int = size("heads"),
        head_dim: int = size("dim / heads"),
        value_dim: int = size("head_dim"),
        *,
        position: Position | None = None,
        mask: Mask = maker("causal"),
        qk_norm: Norm | None = None,
        qk_norm_over: Literal["head", "each", "all"] = "head",
        qk_norm_at: Literal["before", "after"] = "before",
        temperature: Temperature | None = None,
        bias: bool = False,
        out_bias: bool = False,
        scale: float | None = None,
        softcap: float | None = None,
        clip: float | None = None,
        sinks: bool = False,
        gate: Gate | None = None,
        sub_norm: Norm | None = None,
        dropout: float = 0.0,
        kv_from: Reference | None = None,
        value_from: Reference | None = None,
    ) -> None:
        super().__init__()
        self.borrows = kv_from is not None
        self.q = nn.Linear(dim, heads * head_dim, bias=bias)
        if not self.borrows:
            self.k = nn.Linear(dim, kv_heads * head_dim, bias=bias)
            self.v = nn.Linear(dim, kv_heads * value_dim, bias=bias)
        self.o = nn.Linear(heads * value_dim, dim, bias=out_bias)
        self.q_norm = norm_of(qk_norm, qk_norm_over, heads, head_dim)
        own = None if self.borrows else qk_norm
        self.k_norm = norm_of(own, qk_norm_over, kv_heads, head_dim)
        self.sinks = constant(0.0, heads) if sinks else None
        self.gate = None if gate is None else gate(dim, heads=heads, value_dim=value_dim)
        self.sub_norm = None if sub_norm is None else sub_norm(heads * value_dim)
        self.value_mix = None if value_from is None else constant(0.5, 2)
        self.position = None if position is None else position(heads=heads, head_dim=head_dim)
        self.temperature = None if temperature is None else temperature()
        self.mask = mask()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.norm_over, self.norm_first = qk_norm_over, qk_norm_at == "before"
        self.absolute = not self.norm_first  # it weighs what the position has turned
        self.clip, self.softcap, self.dropout = clip, softcap, dropout
        self.scale = head_dim**-0.5 if scale is None else scale

    def forward(
        self,
        x: Tensor,
        call: Call,
        cache: KeyValues | None = None,
        kv_from: tuple[Tensor, Tensor] | None = None,
        value_from: Tensor | None = None,
        lend: dict[str, object] | None = None,
    ) -> Tensor:
        q = self._placed(self._heads(self.q(x), self.heads), self.q_norm, call)
        if self.temperature is not None:
            factor = self.temperature.factor(call.positions)  # (1 or B, T)
            q = q * factor[:, None, :, None].to(q.dtype)
        k, v = kv_from or self._keys_values(x, call, cache, value_from)
        if lend is not None:
            lend.update(keys_values=(k, v), values=newest(v, x.shape[1], call.place))
        out = attend(
            q,
            k,
            v,
            call,
            self.mask,
            scale=self.scale,
            bias=None if self.position is None else self.position.bias,
            softcap=self.softcap,
            sinks=self.sinks,
            dropout=self.dropout if self.training else 0.0,
        )
        out = out if self.gate is None else out * self.gate(x)
        out = out.transpose(1, 2).flatten(2)
        return self.o(out if self.sub_norm is None else self.sub_norm(out))

    def _keys_values(
        self,
        x: Tensor,
        call: Call,
        cache: KeyValues | None,
        other: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """All visible positions', cached first: (B, kv_heads, S, head_dim), (..., value_dim)."""
        k = self._placed(self._heads(self.k(x), self.kv_heads), self.k_norm, call)
        v = self._heads(self.v(x), self.kv_heads)
        if self.value_mix is not None and other is not None:
            v = self.value_mix[0] * v + self.value_mix[1] * other
        return (k, v) if cache is None else cache.append(k, v)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        x = x if self.clip is None else x.clamp(-self.clip, self.clip)
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)

    def _placed(self, x: Tensor, norm: nn.Module | None, call: Call) -> Tensor:
        """Normed and rotated, in their order."""
        x = self._normed(x, norm) if self.norm_first else x
        x = x if self.position is None else self.position.rotate(x, call)
        return x if self.norm_first else self._normed(x, norm)

    def _normed(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        if norm is None:
            return x
        match self.norm_over:
            case "all":
                flat = norm(x.transpose(1, 2).flatten(2))
                return flat.unflatten(-1, (x.shape[1], -1)).transpose(1, 2)
            case "each":
                return torch.stack([call_row(norm, h, x[:, h]) for h in range(x.shape[1])], 1)
        return norm(x)

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
        if self.mask.span == 1 and self.sinks is None:
            reason = "one key has the weight 1, whatever its score"
            return dict.fromkeys(("q.", "k.", "q_norm.", "k_norm."), reason)
        if added := self._added():
            return {added: "it adds the same to every score of a query, which softmax ignores"}
        return {}

    def _added(self) -> str | None:
        """What is added to all keys alike, once they are neither cut off nor turned any more."""
        rotates = self.position is not None and getattr(self.position, "rotates", True)
        if self.softcap is not None or self.sinks is not None:
            return None
        if self.q_norm is not None:
            return "k_norm.bias" if not (rotates and self.norm_first) else None
        return "k.bias" if not rotates and self.clip is None else None


def norm_of(norm: Norm | None, over: str, heads: int, head_dim: int) -> nn.Module | None:
    """The norm of queries or keys: over a head, each head by its own weights, or over all."""
    match norm, over:
        case None, _:
            return None
        case _, "all":
            return norm(heads * head_dim)  # type: ignore[no-any-return]
        case _, "each":
            return stack(norm(head_dim), heads)
    return norm(head_dim)  # type: ignore[no-any-return]
