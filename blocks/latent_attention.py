from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blocks.attend import attend
from blocks.cache import KeyValues
from blocks.call import Call
from blocks.registry import Mask, Norm, Position, maker, register, size


@register("latent_attention", kind="mixer")
class LatentAttention(nn.Module):
    """Attention whose keys and values are made of one narrow latent: ``k, v =
    kv_up(norm(latent))``, and every head's key ends in one that all share, the only part that a
    position rotates.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; a key has ``head_dim`` components of its head's own and
    the ``rope_dim`` shared ones.  Caches the latent and the shared key, ``kv_rank + rope_dim``
    numbers a position.  With ``q_rank`` queries too come from a latent.  ``bias`` is that of what
    makes latents; ``scale`` none is ``1 / sqrt(head_dim + rope_dim)``.
    Source: DeepSeek-V2, arXiv:2405.04434, section 2.1, whose widths the defaults are.
    """

    output = "o.weight"
    gives = {"position": {"head_dim": "rope_dim"}}
    checks = {
        "softcap > 0": "softcap={softcap} is not above 0",
        "kv_rank > 1": "a norm of kv_rank={kv_rank} numbers leaves their sign at most",
        "q_rank > 1": "a norm of q_rank={q_rank} numbers leaves their sign at most",
        "0 <= dropout and dropout < 1": "dropout={dropout} is not a probability below 1",
    }

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int = size("dim / heads"),
        rope_dim: int = size("head_dim / 2"),
        value_dim: int = size("head_dim"),
        kv_rank: int = size("4 * head_dim"),
        q_rank: int | None = None,
        *,
        position: Position | None = None,
        mask: Mask = maker("causal"),
        norm: Norm = maker("rmsnorm"),
        bias: bool = False,
        out_bias: bool = False,
        scale: float | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = head_dim + rope_dim
        if q_rank is None:
            self.q = nn.Linear(dim, heads * width, bias=False)
        else:
            self.q_down = nn.Linear(dim, q_rank, bias=bias)
            self.q_norm = norm(q_rank)
            self.q_up = nn.Linear(q_rank, heads * width, bias=False)
        self.kv_down = nn.Linear(dim, kv_rank + rope_dim, bias=bias)
        self.kv_norm = norm(kv_rank)
        self.kv_up = nn.Linear(kv_rank, heads * (head_dim + value_dim), bias=False)
        self.o = nn.Linear(heads * value_dim, dim, bias=out_bias)
        self.position = None if position is None else position(heads=heads, head_dim=rope_dim)
        self.mask = mask()
        self.heads, self.head_dim, self.rope_dim = heads, head_dim, rope_dim
        self.kv_rank, self.value_dim, self.from_latent = kv_rank, value_dim, q_rank is not None
        self.softcap, self.dropout = softcap, dropout
        self.scale = width**-0.5 if scale is None else scale

    def forward(self, x: Tensor, call: Call, cache: KeyValues | None = None) -> Tensor:
        q = self.q_up(self.q_norm(self.q_down(x))) if self.from_latent else self.q(x)
        own, turning = self._heads(q).split([self.head_dim, self.rope_dim], -1)
        q = torch.cat([own, self._rotated(turning, call)], -1)  # (B, heads, T, head_dim + rope_dim)
        k, v = self._keys_values(x, call, cache)
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

    def _keys_values(self, x: Tensor, call: Call, cache: KeyValues | None) -> tuple[Tensor, Tensor]:
        """Those of all visible positions, made of what is cached."""
        latent, shared = self.kv_down(x)[:, None].split([self.kv_rank, self.rope_dim], -1)
        latent, shared = self.kv_norm(latent), self._rotated(shared, call)  # (B, 1, T, ...)
        if cache is not None:
            latent, shared = cache.append(latent, shared)
        made = self._heads(self.kv_up(latent[:, 0]))
        k, v = made.split([self.head_dim, self.value_dim], -1)  # (B, heads, S, ...)
        return torch.cat([k, shared.expand(-1, self.heads, -1, -1)], -1), v

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, ...)

    def _rotated(self, x: Tensor, call: Call) -> Tensor:
        return x if self.position is None else self.position.rotate(x, call)

    def state(self, readers: Sequence[LatentAttention] = ()) -> KeyValues:
        return KeyValues(self.mask.span)

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Which of the positions ``i`` (..., 1) see which of the ``j`` (1, k)."""
        return self.mask.visible(i, j)  # type: ignore[no-any-return]

    def nulls(self) -> dict[str, str]:
        """Parameters that no gradient reaches, with the reasons."""
        if self.mask.span == 1:
            reason = "one key has the weight 1, whatever its score"
            return dict.fromkeys(("q.", "q_down.", "q_norm.", "q_up."), reason)
        return {}
