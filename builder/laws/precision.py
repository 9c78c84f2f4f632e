"""In half precision types are kept, and no path is worse than the plainest one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from builder.laws.caches import alike_up_to, read_in_chunks
from builder.laws.case import Case, read
from builder.laws.probe import traced
from builder.model import Model

HALVES = (torch.bfloat16, torch.float16)
TOKENS = 16  # of a row
ROWS = 4
CHUNKS = (5, 1, 7, 3)
PADDED = 3
WORSE = 2.0  # than the plainest path: its errors are other ones, but no more


@torch.no_grad()
def dtypes_are_kept(case: Case) -> float:
    """In bf16 and in fp16 every leaf gives what it was given, and so the logits are of that type.

    Alone, cached, beside padding and in documents.
    """
    ids = case.ids(2, 4)
    length = ids.shape[1]
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[0, :1] = True
    documents = torch.arange(length).expand(2, -1) // 2
    for dtype in HALVES:
        model = copy.deepcopy(case.model).to(dtype)
        with traced(model) as seen:
            logits = [read(model, ids), read_in_chunks(model, ids, [length - 1, 1][-length:])]
            logits += [read(model, ids, padding=padding), read(model, ids, documents=documents)]
        for (name, _), outputs in seen.items():
            others = {str(x.dtype) for x in outputs if x.dtype != dtype}
            assert not others, f"in a model of {dtype}, {name} gives {', '.join(others)}"
        others = {str(x.dtype) for x in logits if x.dtype != dtype}
        assert not others, f"a model of {dtype} gives logits of {', '.join(others)}"
    return 0.0


@torch.no_grad()
def half_precision_is_no_worse_on_any_path(case: Case) -> float:
    """In bf16, cached, padded, packed and by every kernel, errors are at most twice the plainest's.

    The plainest path is one forward whose attention is written out, its softmax in float32.  A
    token's error is the root mean square of its logits', against the same weights in float64, and
    at the least what rounding these logits would cost; a path's is the geometric mean over tokens,
    for in some recipes a few tokens stand on an edge (a layernorm of two numbers is their order)
    and fall to either side, whatever the path.  Experts are such an edge for every token, and left
    out.  Gives the largest ratio less 1.
    """
    if any(getattr(module, "by_data", False) for module in case.model.modules()):
        return 0.0
    half = copy.deepcopy(case.model).bfloat16()
    ids = _rows(case)
    expected = read(copy.deepcopy(half).double(), ids)
    with attention_written_out():
        plain = _error(read(half, ids), expected)
    worst = 1.0
    for path, logits in _paths(half, ids):
        ratio = float(_error(logits, expected) / plain)
        claim = f"in bf16, {path}, errors are {ratio:.3g} times those of the plainest path"
        assert ratio <= WORSE, claim
        worst = max(worst, ratio)
    return worst - 1.0


def _rows(case: Case) -> Tensor:
    """Two rows of them fit into one, and each is read in parts as at once."""
    context = case.recipe.graph.context
    longest = min(TOKENS, context // 2, context - PADDED, alike_up_to(case.model))
    return case.ids(ROWS, max(1, longest))


def _paths(model: Model, ids: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The logits of the same tokens, (rows, length, vocab), as each path gives them."""
    rows, length = ids.shape
    for kernel in kernels(ids.device.type, torch.bfloat16):
        with sdpa_kernel([kernel, SDPBackend.MATH]):
            yield f"by {kernel.name}", read(model, ids)
    yield "cached token by token", read_in_chunks(model, ids, [1] * length)
    yield "cached in chunks", read_in_chunks(model, ids, _chunks(length))
    padding = torch.zeros(rows, PADDED + length, dtype=torch.bool)
    padding[:, :PADDED] = True
    padded = torch.cat([ids[:, :1].expand(-1, PADDED), ids], 1)
    yield "padded on the left", read(model, padded, padding=padding)[:, PADDED:]
    documents = torch.arange(2 * length).expand(rows // 2, -1) // length
    packed = read(model, ids.reshape(rows // 2, -1), documents=documents)
    yield "packed", packed.reshape(rows, length, -1)


def _chunks(length: int) -> list[int]:
    found: list[int] = []
    for chunk in CHUNKS:
        found.append(min(chunk, length - sum(found)))
    return [chunk for chunk in found if chunk] if sum(found) == length else [length]


def _error(logits: Tensor, expected: Tensor) -> Tensor:
    """The geometric mean over tokens of the root mean square over a token's logits."""
    rounding = torch.finfo(logits.dtype).eps / 2 * expected.square().mean(-1).sqrt()
    errors = (logits.double() - expected).square().mean(-1).sqrt()
    return (
        torch.maximum(errors, rounding)
        .clamp(min=torch.finfo(torch.float64).tiny)
        .log()
        .mean()
        .exp()
    )


@cache
def kernels(device: str, dtype: torch.dtype) -> tuple[SDPBackend, ...]:
    """Those of torch's that can attend there in this type."""
    x = torch.zeros(1, 1, 2, 8, dtype=dtype, device=device)
    found = []
    for kernel in SDPBackend.__members__.values():
        with warnings.catch_warnings(action="ignore"):  # torch says at length why it refuses
            try:
                with sdpa_kernel(kernel):
                    F.scaled_dot_product_attention(x, x, x, is_causal=True)
            except RuntimeError:
                continue
        found.append(kernel)
    return tuple(found)


@contextmanager
def attention_written_out() -> Iterator[None]:
    """Attention by its formula, in place of a kernel."""
    with patch.object(F, "scaled_dot_product_attention", _written_out):
        yield


def _written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(q k^T scale + mask) v``, every product in the type of what it multiplies."""
    group = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(group, -3) for x in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    wide = torch.promote_types(q.dtype, torch.float32)
    return scores.softmax(-1, dtype=wide).to(q.dtype) @ v
