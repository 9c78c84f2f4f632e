"""Softmax attention under a mask, by the cheapest exact route."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.call import Call
from blocks.mask import Visibility
from blocks.static_cache import places_of
from blocks.watch import WATCHERS

FEWEST = 32  # queries that are read together in a window

# Places (..., q, 1) and (..., 1, k) of a call -> (heads, ..., q, k).
Bias = Callable[[Tensor, Tensor, Call], Tensor]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: Call,
    mask: Visibility,
    *,
    scale: float,
    bias: Bias | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """``softmax(softcap(q k^T scale) + bias) v`` over the visible keys, and a key without value for
    each head whose score is its entry of ``sinks``.

    Shapes: q ``(B, heads, T, head_dim)``, k ``(B, kv_heads, S, head_dim)`` and v ``(B, kv_heads, S,
    value_dim)`` with ``heads`` a multiple of ``kv_heads``, sinks ``(heads,)``; query ``t`` stands
    at key ``S - T + t``.  Gives ``(B, heads, T, value_dim)``.  No mask tensor is made where causal
    order suffices, and a window's cost is ``O(T * window)``.
    """
    if WATCHERS:
        _tell(q, k, call, mask, scale=scale, bias=bias, softcap=softcap, sinks=sinks)
    weigh = partial(_weigh, scale=scale, softcap=softcap, sinks=sinks, dropout=dropout)
    if call.place is not None:
        return _step(q, k, v, call, mask, bias, weigh)
    length, span = q.shape[2], mask.span
    if span is not None:  # a cache may keep more, for others that read it
        k, v = k[:, :, -(length + span - 1) :], v[:, :, -(length + span - 1) :]
    total = k.shape[2]
    rows = call.padding is not None or call.segments is not None  # what is seen differs by row
    if not rows and bias is None and mask.is_causal(call.end - total, call.end):
        if length == total:
            return weigh(q, k, v, causal=bool(length > 1))
        if length == 1:
            return weigh(q, k, v)
    if span is not None and length > 1 and total > 2 * span:
        return _banded(q, k, v, call, mask, span, max(span // 4, min(span, FEWEST)), bias, weigh)
    places = torch.arange(call.end - total, call.end, device=q.device)
    i, j = places[-length:, None], places[None]
    seen = call.once((mask, length, total), lambda: _seen(call, mask, i, j))
    seen = seen[:, None] if rows else seen  # (B, 1, T, S) or (T, S)
    return weigh(q, k, v, seen, _added(call, bias, i, j))


def _step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: Call,
    mask: Visibility,
    bias: Bias | None,
    weigh: partial[Tensor],
) -> Tensor:
    """One query over all that a static cache has room for, of which it sees what was written."""
    i = call.place
    assert i is not None
    j = places_of(k.shape[2], i)
    seen = _seen(call, mask, i[:, None], j[None])  # (B, 1, S) or (1, S)
    seen = seen[:, None] if seen.dim() == 3 else seen
    added = _added(call, bias, i[:, None], j[None])
    if weigh.keywords["sinks"] is not None or q.shape[1] == k.shape[1]:
        return weigh(q, k, v, seen, added)
    shared = k.shape[1], -1  # queries of one key head are read as if they stood at places of a text
    q = q.squeeze(2).unflatten(1, shared)
    added = None if added is None else added.squeeze(2).unflatten(1, shared)
    return weigh(q, k, v, seen, added).flatten(1, 2)[:, None].transpose(1, 2)


def _tell(q: Tensor, k: Tensor, *given: Any, **options: Any) -> None:
    """The weights are what attention gives where each key's value is its own place."""
    watchers = WATCHERS.copy()
    WATCHERS.clear()
    try:
        places = torch.eye(k.shape[2], dtype=k.dtype, device=k.device)
        weights = attend(q, k, places.expand(*k.shape[:2], -1, -1), *given, **options)
        for watcher in watchers:
            watcher(weights)
    finally:
        WATCHERS.extend(watchers)


def _seen(call: Call, mask: Visibility, i: Tensor, j: Tensor) -> Tensor:
    """What each query sees, ``(..., q, k)``, a row each if rows differ.  A place of padding sees
    itself, so that no row is empty: an empty softmax is not a number.
    """
    seen = mask.visible(call.position(i), call.position(j)) & (j >= 0) & (j <= i)
    last = call.end - 1
    if call.segments is not None:
        seen = seen & (call.segments[:, i.clamp(max=last)] == call.segments[:, j.clamp(0, last)])
    if call.padding is not None:
        seen = seen & ~call.padding[:, j.clamp(0, last)]
    return seen | (i == j)


def _added(call: Call, bias: Bias | None, i: Tensor, j: Tensor) -> Tensor | None:
    """What a position adds to the scores, (1 or B, heads, ..., q, k)."""
    if bias is None:
        return None
    added = bias(i, j, call)  # (heads, ..., q, k), where rows differ (heads, B, ..., q, k)
    return added[None] if added.dim() == 1 + max(i.dim(), j.dim()) else added.transpose(0, 1)


def _banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: Call,
    mask: Visibility,
    span: int,
    size: int,
    bias: Bias | None,
    weigh: Callable[..., Tensor],
) -> Tensor:
    """Queries in blocks of a ``size``, each with only the keys that any of it can see."""
    B, _, T, _ = q.shape
    S, reach = k.shape[2], size + span - 1
    blocks = -(-T // size)
    spare = blocks * size - T  # places that fill the last block
    first = S - T - (span - 1)  # the first block's first key; if negative, before all there are

    def band(x: Tensor) -> Tensor:
        x = F.pad(x[:, :, max(first, 0) :], (0, 0, max(-first, 0), spare))
        x = x.unfold(2, reach, size)  # (B, kv_heads, blocks, head_dim, reach)
        return x.permute(0, 2, 1, 4, 3).flatten(0, 1)  # (B * blocks, kv_heads, reach, head_dim)

    q = F.pad(q, (0, 0, 0, spare)).unflatten(2, (blocks, size)).transpose(1, 2).flatten(0, 1)
    starts = size * torch.arange(blocks, device=q.device)[:, None, None] + call.end - S
    i = starts + S - T + torch.arange(size, device=q.device)[:, None]  # (blocks, size, 1)
    j = starts + first + torch.arange(reach, device=q.device)  # (blocks, 1, reach)

    def seen_in_bands() -> Tensor:
        seen = _seen(call, mask, i, j)
        seen = seen.expand(B, *seen.shape[-3:]).flatten(0, 1)
        return seen[:, None]  # (B * blocks, 1, size, reach)

    seen = call.once((mask, T, S, "bands"), seen_in_bands)
    added = _added(call, bias, i, j)
    if added is not None:
        added = added.transpose(1, 2).expand(B, -1, -1, -1, -1).flatten(0, 1)
    out = weigh(q, band(k), band(v), seen, added)
    return out.unflatten(0, (B, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :T]


def _weigh(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    *,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
    dropout: float,
) -> Tensor:
    """The weighted values, written out for the caps and sinks that the fused kernels lack."""
    grouped = q.shape[1] != k.shape[1]
    if softcap is None and sinks is None:
        added = seen if bias is None else bias.to(q.dtype)
        if bias is not None and seen is not None:
            added = torch.where(seen, added, float("-inf"))
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=added,
            dropout_p=dropout,
            is_causal=causal,
            scale=scale,
            enable_gqa=grouped,
        )
    if grouped:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.to(q.dtype)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    wide = torch.float32 if q.dtype.itemsize < 4 else None
    if sinks is None:
        weights = scores.softmax(-1, dtype=wide)
    else:
        sunk = sinks.to(q.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, sunk], -1).softmax(-1, dtype=wide)[..., :-1]
    return F.dropout(weights.to(q.dtype), dropout) @ v
