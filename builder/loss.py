"""The cross entropy of a model's logits: all of them at once, or those of so many positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from blocks.kinds import NODES
from builder.construct import registered
from builder.graph import Chain, Graph, Layer, Leaf, edges, leaves

IGNORED = -100  # a label that does not count
HELD = 1 << 24  # logits at once, if nobody says: 64 MB of them


def summed(logits: Tensor, labels: Tensor, z_loss: float = 0.0) -> Tensor:
    """Cross entropy in nats over the labels that are not -100, summed in float32 or wider.

    Shapes: logits ``(..., vocab)``, labels ``(...)``.  ``z_loss`` weighs the square of ``log sum
    exp(logits)``, which keeps it near 0 (Chowdhery et al. 2022, PaLM, section 5).
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    flat, labels = logits.to(wide).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(flat, labels, ignore_index=IGNORED, reduction="sum")
    if z_loss:
        total = total + z_loss * flat.logsumexp(-1)[labels != IGNORED].square().sum()
    return total


def summed_in_chunks(
    cost: Callable[[Tensor, Tensor], Tensor],
    parameters: Sequence[Tensor],
    x: Tensor,
    labels: Tensor,
    chunk: int,
) -> Tensor:
    """``cost(x, labels)``, holding the logits of no more than ``chunk`` positions.

    ``cost``, whose parameters these are, sums over positions, and reads every one by itself.
    Shapes: x ``(B, T, dim)``, labels ``(B, T)``.
    """
    x, labels = x.flatten(0, 1)[None], labels.flatten()[None]  # (1, N, dim), (1, N)
    if torch.is_grad_enabled():
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        apply: Callable[..., Tensor] = _InChunks.apply
        return apply(cost, chunk, labels, x, *learning)
    costs = [cost(x[:, span], labels[:, span]) for span in spans(x.shape[1], chunk)]
    return torch.stack(costs).sum()


def spans(count: int, chunk: int) -> list[slice]:
    """``count`` places, ``chunk`` at a time; the last are fewer."""
    return [slice(first, first + chunk) for first in range(0, count, chunk)]


def at_once(chunk: int | None, vocab: int) -> int:
    """How many positions' logits are held: so many as are asked for, or as fit in ``HELD``."""
    return chunk or max(1, HELD // vocab)


class _InChunks(torch.autograd.Function):
    """The gradients are taken on the way forward, while a chunk's logits are there: backward only
    scales them.  So nothing is computed twice, and dropout is drawn once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cost: Callable[[Tensor, Tensor], Tensor],
        chunk: int,
        labels: Tensor,
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        towards_x = torch.empty_like(x)  # all at once: bits kept between what is freed split a heap
        totals: list[Tensor] = []
        gradients: list[Tensor | None] = [None] * len(parameters)
        for span in spans(x.shape[1], chunk):
            with torch.enable_grad():
                piece = x[:, span].detach().requires_grad_()
                total = cost(piece, labels[:, span])
            own, *found = torch.autograd.grad(total, (piece, *parameters), allow_unused=True)
            totals.append(total.detach())
            towards_x[:, span] = own
            gradients = list(map(_added, gradients, found))
        ctx.save_for_backward(towards_x, *gradients)
        return torch.stack(totals).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """In a gradient's own type only when scaled: a sum may be past what a half can hold."""
        scaled = (None if g is None else g * gradient for g in ctx.saved_tensors)
        return None, None, None, *scaled


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Sums over chunks are in float32 or wider: a hundred small terms are not lost in a half."""
    if more is None:
        return total
    more = more.to(torch.promote_types(more.dtype, torch.float32))
    return more if total is None else total.add_(more)


def where_chunks_begin(graph: Graph) -> int | None:
    """The number of the item that gives the first logits, if it and all after it read every
    position by itself; else None.
    """
    first = next(n for n, item in enumerate(graph.items) if _gives_logits(item))
    after = (leaf for item in graph.items[first:] for leaf in leaves(item))
    return first if all(map(_reads_alone, after)) else None


def where_reading_ends(graph: Graph) -> tuple[int, int]:
    """The item, and the part of it if it is a layer, behind which every position is read by itself:
    of the last that is not so, the first such part.
    """
    alone = [all(map(_reads_alone, leaves(item))) for item in graph.items]
    last = max((n for n, is_alone in enumerate(alone) if not is_alone), default=0)
    body = getattr(graph.items[last], "body", None)
    if not isinstance(graph.items[last], Layer) or not isinstance(body, Chain):
        return last, 0
    mixing = (n for n, part in enumerate(body.items) if not all(map(_reads_alone, leaves(part))))
    return last, 1 + max(mixing, default=0)


def _gives_logits(item: Any) -> bool:
    return any(NODES[leaf.kind].gives == "logits" for leaf in leaves(item))


def _reads_alone(leaf: Leaf) -> bool:
    """Whether a leaf asks for nothing but what reaches it, at a position or at all of them."""
    asked = inspect.signature(registered(leaf.kind, leaf.word).forward).parameters  # type: ignore[attr-defined]
    alone = not NODES[leaf.kind].mixes and not asked.keys() & {"call", "cache"}
    return alone and not any(edges(leaf))
