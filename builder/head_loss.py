"""The cross entropy of a head that is one matrix: its logits are held a few at a time, and turned
into their own gradients where they lie.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from blocks.lm_head import LMHead
from builder.assemble import ChainRun, LeafRun, watched
from builder.loss import IGNORED, spans

LINE = 64  # bytes: where rows of logits begin at multiples, matrix products read them faster


def head_alone(end: ChainRun, x: Tensor) -> LMHead | None:
    """The head, if it is all that an end has, and plainly multiplies what reaches it."""
    (first, *more) = end.parts
    module = first.module if isinstance(first, LeafRun) and not more else None
    if type(module) is not LMHead or watched(module):
        return None
    exact = x.dtype == module.weight.dtype and x.dtype.itemsize >= 4
    return module if exact and not torch.is_autocast_enabled(x.device.type) else None


def summed_over_head(
    head: LMHead, x: Tensor, labels: Tensor, chunk: int, z_loss: float = 0.0
) -> Tensor:
    """What ``builder.loss.summed`` gives of a head's logits, of which no more than ``chunk``
    positions' are held.  The gradient can be had once.

    Shapes: x ``(B, T, dim)``, labels ``(B, T)``.
    """
    apply: Any = _OfHead.apply
    total: Tensor = apply(chunk, z_loss, torch.is_grad_enabled(), labels, x, head.weight, head.bias)
    return total


class _OfHead(torch.autograd.Function):
    """The gradients are taken on the way forward, while the logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        chunk: int,
        z_loss: float,
        learning: bool,
        labels: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        rows, labels, vocab = x.flatten(0, 1), labels.flatten(), len(weight)
        needed = ctx.needs_input_grad[4:] if learning else (False, False, False)
        given = zip((rows, weight, bias), needed, strict=True)
        to_x, to_weight, to_bias = (
            t.new_zeros(t.shape) if t is not None and need else None for t, need in given
        )
        line = LINE // x.element_size()
        held = x.new_empty(min(chunk, len(rows)), -(-vocab // line) * line)
        total = x.new_zeros(())
        for span in spans(len(rows), chunk):
            piece = rows[span]
            full = held[: len(piece)]
            logits = full[:, :vocab]
            if bias is None:
                torch.mm(piece, weight.t(), out=logits)
            else:
                torch.addmm(bias, piece, weight.t(), out=logits)
            full[:, vocab:] = float("-inf")
            total += _spend(full, labels[span], z_loss)
            if to_x is not None:
                torch.mm(logits, weight, out=to_x[span])
            if to_weight is not None:
                to_weight.addmm_(logits.t(), piece)
            if to_bias is not None:
                to_bias += logits.sum(0)
        to_x = None if to_x is None else to_x.view_as(x)
        ctx.save_for_backward(to_x, to_weight, to_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Scaled in their place, for the head's own is as large as its weight; torch refuses them
        another time.
        """
        scaled = (None if g is None else g.mul_(gradient) for g in ctx.saved_tensors)
        return None, None, None, None, *scaled


def _spend(logits: Tensor, labels: Tensor, z_loss: float) -> Tensor:
    """The summed cost of some logits, (N, vocab or wider), which become its gradient: the softmax,
    less 1 at the label.
    """
    counts = labels != IGNORED
    places = labels.where(counts, 0)[:, None]
    right = logits.gather(1, places)
    top = logits.amax(1, keepdim=True)
    shares = logits.sub_(top).exp_()
    sums = shares.sum(1, keepdim=True)
    whole = sums.log() + top  # of the denominator of the softmax, the logarithm
    cost = torch.where(counts[:, None], whole - right + z_loss * whole.square(), 0.0).sum()
    shares.mul_((1 + 2 * z_loss * whole) * counts[:, None] / sums)
    shares.scatter_add_(1, places, -counts[:, None].to(shares.dtype))
    return cost
