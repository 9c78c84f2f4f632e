from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocks.call import Call
from blocks.parameter import drawn, starting_at
from blocks.recurrent import CHUNK, Summary, blank, chunks, convolve, documents_before
from blocks.registry import register, size
from blocks.rmsnorm import RMSNorm


@register("gated_delta", kind="mixer")
class GatedDelta(nn.Module):
    """Gated DeltaNet, a memory that forgets and corrects itself: ``S_t = a_t (I - b_t k_t^T k_t)
    S_(t-1) + b_t k_t^T v_t``, which gives ``o(rmsnorm(q_t S_t) silu(gate(x)))``.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; each of ``value_heads`` remembers ``S``, ``(head_dim,
    value_dim)``, and uses the query and key of head ``h // (value_heads / heads)``.  q, k and
    v pass a short convolution of ``kernel`` places (none: no convolution), then silu; q and k are
    brought to length 1, and q is divided by ``sqrt(head_dim)``.  ``b = sigmoid(beta(x))`` and ``a =
    exp(-exp(A_log) softplus(decay(x) + dt_bias))``, a number for each head.
    Source: Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464, sections 3.1, 3.3 and 3.4; decay:
    Mamba2, Dao and Gu 2024, arXiv:2405.21060.
    """

    output = "o.weight"
    checks = {
        "value_heads % heads == 0": "value_heads={value_heads} is not a multiple of heads={heads}"
    }

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int = size("dim / heads"),
        value_heads: int = size("heads"),
        value_dim: int = size("head_dim"),
        kernel: int | None = 4,
        *,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        wide, values = heads * head_dim, value_heads * value_dim
        self.q = nn.Linear(dim, wide, bias=False)
        self.k = nn.Linear(dim, wide, bias=False)
        self.v = nn.Linear(dim, values, bias=False)
        self.conv = None if kernel is None else drawn(2 * wide + values, kernel)
        self.decay = nn.Linear(dim, value_heads, bias=False)
        self.A_log, self.dt_bias = map(starting_at, zip(*spread(value_heads), strict=True))
        self.beta = nn.Linear(dim, value_heads, bias=False)
        self.gate = nn.Linear(dim, values, bias=False)
        self.norm = RMSNorm(value_dim, eps=eps)
        self.o = nn.Linear(values, dim, bias=False)
        self.head_dim, self.group = head_dim, value_heads // heads
        self.widths = (wide, wide, values)

    def forward(self, x: Tensor, call: Call, cache: Summary | None = None) -> Tensor:
        memory = self.state() if cache is None else cache
        kept = {}
        real = blank(x, call)
        mixed = torch.cat([self.q(real), self.k(real), self.v(real)], -1)
        if self.conv is not None:
            before = memory.tensors.get("window")
            mixed, kept["window"] = convolve(mixed, self.conv, before, call)
        q, k, v = F.silu(mixed).split(self.widths, -1)
        log_decay, beta = self.rates(x, call)
        y, kept["state"] = delta_rule(
            self.unit(q, log_decay.dtype) * self.head_dim**-0.5,
            self.unit(k, log_decay.dtype),
            v.unflatten(-1, (beta.shape[1], -1)).transpose(1, 2).to(beta.dtype),
            log_decay,
            beta,
            memory.tensors.get("state"),
            documents_before(call, 1),
        )
        memory.advance(x.shape[1], **kept)
        y = self.norm(y.transpose(1, 2).to(self.o.weight.dtype)).flatten(2)
        return self.o(y * F.silu(self.gate(x)))

    def unit(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """A vector of length 1 for each value head, (B, value_heads, T, head_dim)."""
        x = x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2).to(dtype)
        x = x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
        return x.repeat_interleave(self.group, 1)

    def rates(self, x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """``log a`` and ``b``, each (B, value_heads, T), at least in float32; both are 0 where
        there is no token, which so changes nothing.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.decay(x).to(wide) + self.dt_bias)
        log_decay, beta = -self.A_log.to(wide).exp() * step, self.beta(x).to(wide).sigmoid()
        return blank(log_decay, call).mT, blank(beta, call).mT

    def state(self) -> Summary:
        return Summary()

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether the token at place ``i`` reads that at ``j``; broadcasts."""
        return j <= i


def spread(heads: int) -> Iterator[tuple[float, float]]:
    """``A_log`` and ``dt_bias`` of each head at first: even steps through what the authors' code
    draws at random, A from 0 to 16 and ``softplus(dt_bias)`` from 0.001 to 0.1, so that the first
    head remembers for long and the last hardly at all.
    """
    for h in range(heads):
        at = (h + 0.5) / heads
        yield math.log(16 * at), math.log(math.expm1(0.001 * 100**at))


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    documents: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """``q_t S_t`` and the last ``S``, chunk by chunk (the paper's section 3.3).

    Place ``i`` writes ``u_i = b_i (v_i - k_i S)`` of the decayed ``S`` that it finds, and so, by
    ``k_i k_j^T``, of what each place ``j`` before it wrote: a triangular system gives a chunk's.

    Shapes: q and k ``(B, H, T, d)``, v ``(B, H, T, e)``, log_decay and beta ``(B, H, T)``, state
    ``(B, H, d, e)`` (None: zeros), documents ``(B, 1 + T)``.  Gives ``(B, H, T, e)``.
    """
    out = []
    state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
    for far, near, qs, ks, vs, bs in chunks(chunk, log_decay, documents, q, k, v, beta[..., None]):
        system = bs * near * (ks @ ks.mT)  # below its diagonal, which counts as 1
        found = bs * (vs - far * (ks @ state))
        u = torch.linalg.solve_triangular(system, found, upper=False, unitriangular=True)
        out.append(far * (qs @ state) + (near * (qs @ ks.mT)) @ u)
        state = far[:, :, -1:] * state + (near[:, :, -1:].mT * ks).mT @ u
    return torch.cat(out, -2), state
