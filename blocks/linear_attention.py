from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.call import Call
from blocks.recurrent import CHUNK, Summary, blank, chunks, documents_before
from blocks.registry import Act, register, size
from blocks.rmsnorm import RMSNorm

EPS = 1e-6  # of the normaliser, as in the authors' code


@register("linear_attention", kind="mixer")
class LinearAttention(nn.Module):
    """Attention with a product of features instead of a softmax: ``o(f(q_t) S_t / (f(q_t) z_t))``
    with ``S_t = g S_(t-1) + f(k_t)^T v_t`` and ``z_t = g z_(t-1) + f(k_t)``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; query head ``h`` reads key head ``h // (heads /
    kv_heads)``, which remembers ``S`` with ``z`` as its last column, ``(head_dim, head_dim + 1)``.
    ``feature`` is ``elu(x) + 1`` or ``relu(x)``; with none it is ``o(q_t S_t / sqrt(head_dim))``.
    ``g`` is 1, or with ``decay`` ``1 - 2^(-5 - h)`` of key head ``h``.  ``norm`` divides the output
    of each head by its root mean square, and ``gate`` multiplies it by ``act(W x)``.
    Source: Katharopoulos et al. 2020, arXiv:2006.16236, section 3.4; decay, norm and gate: RetNet,
    Sun et al. 2023, arXiv:2307.08621, section 2.2.
    """

    output = "o.weight"
    checks = {"heads % kv_heads == 0": "heads={heads} is not a multiple of kv_heads={kv_heads}"}

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int = size("heads"),
        head_dim: int = size("dim / heads"),
        *,
        feature: Literal["elu", "relu"] | None = "elu",
        decay: bool = False,
        norm: bool = False,
        gate: Act | None = None,
    ) -> None:
        super().__init__()
        self.q = nn.Linear(dim, heads * head_dim, bias=False)
        self.k = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.v = nn.Linear(dim, kv_heads * head_dim, bias=False)
        self.gate = None if gate is None else nn.Linear(dim, heads * head_dim, bias=False)
        self.norm = RMSNorm(head_dim) if norm else None
        self.o = nn.Linear(heads * head_dim, dim, bias=False)
        self.act = None if gate is None else gate()
        self.kv_heads, self.head_dim = kv_heads, head_dim
        self.feature, self.decay = feature, decay

    def forward(self, x: Tensor, call: Call, cache: Summary | None = None) -> Tensor:
        memory = self.state() if cache is None else cache
        wide = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).to(wide)
            for project in (self.q, self.k, self.v)
        )
        if self.feature is None:
            q = q * self.head_dim**-0.5
        else:
            q, k = map(elu_plus_one if self.feature == "elu" else F.relu, (q, k))
            v = F.pad(v, (0, 1), value=1.0)  # its column of S is z
        k, log_decay = blank(k, call), blank(self.log_decay(k), call)
        q, k, v, log_decay = (y.transpose(1, 2) for y in (q, k, v, log_decay))  # (B, heads, T, ...)
        y, state = sum_up(
            q.unflatten(1, (self.kv_heads, -1)).movedim(2, 0),  # (group, B, kv_heads, T, head_dim)
            k,
            v,
            log_decay,
            memory.tensors.get("state"),
            documents_before(call, 1),
        )
        memory.advance(x.shape[1], state=state)
        if self.feature is not None:
            y = y[..., :-1] / (y[..., -1:] + EPS)
        y = y.movedim(0, 2).flatten(1, 2).transpose(1, 2).to(self.o.weight.dtype)
        y = (y if self.norm is None else self.norm(y)).flatten(2)  # (B, T, heads * head_dim)
        return self.o(y if self.gate is None else y * self.act(self.gate(x)))

    def log_decay(self, k: Tensor) -> Tensor:
        """``log g`` at each place of each key head, (B, T, kv_heads)."""
        head = torch.arange(self.kv_heads, dtype=k.dtype, device=k.device)
        rate = torch.log1p(-(2.0 ** (-5 - head))) if self.decay else torch.zeros_like(head)
        return rate.expand(k.shape[:3])

    def state(self) -> Summary:
        return Summary()

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether the token at place ``i`` reads that at ``j``; broadcasts."""
        return j <= i


def elu_plus_one(x: Tensor) -> Tensor:
    """``elu(x) + 1``, of which no digit is lost where it is ``exp(x)``."""
    return F.relu(x) + x.clamp(max=0).exp()


def sum_up(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    documents: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """``q_t S_t`` and the last ``S``, chunk by chunk: within one by ``(q k^T) v``, decayed.

    Shapes: q ``(..., B, H, T, d)``, k ``(B, H, T, d)``, v ``(B, H, T, e)``, log_decay ``(B, H,
    T)``, state ``(B, H, d, e)`` (None: zeros), documents ``(B, 1 + T)``.  Gives ``(..., B, H, T,
    e)``.
    """
    out = []
    state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
    for far, near, qs, ks, vs in chunks(chunk, log_decay, documents, q, k, v):
        out.append(far * (qs @ state) + (near * (qs @ ks.mT)) @ vs)
        state = far[:, :, -1:] * state + (near[:, :, -1:].mT * ks).mT @ vs
    return torch.cat(out, -2), state
