from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import Node, Router, maker, register
from blocks.stack import call_row, stack


@register("moe", kind="ffn")
class MoE(nn.Module):
    """``sum_e weight_e(x) expert_e(x)`` over the experts that the router chooses for each token.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; every expert's tensor is stacked, ``(experts, ...)``.
    ``balance`` times ``experts * sum_e (share of tokens) (mean score)`` is added to the training
    loss: 1 when perfectly balanced.  With ``weigh: input`` it is ``sum_e expert_e(weight_e(x) x)``.
    Source: Shazeer et al. 2017, arXiv:1701.06538; balance: Fedus et al. 2021, arXiv:2101.03961,
    equation 4; weigh: Llama 4.
    """

    def __init__(
        self,
        dim: int,
        experts: int,
        *,
        expert: Node = maker("glu"),
        router: Router = maker("softmax"),
        weigh: Literal["output", "input"] = "output",
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        self.router = router(dim=dim, experts=experts)
        self.experts = stack(expert(dim), experts)
        self.count, self.balance, self.weigh = experts, balance, weigh
        self.by_data = True  # False where only costs are asked: any even choice has the same

    @property
    def active(self) -> Fraction:
        """The share of the experts that one token uses."""
        return Fraction(self.router.top_k, self.count)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        flat = x.flatten(0, 1)  # (N, dim)
        weights, chosen, scores = self.router(flat)
        out = torch.zeros_like(flat)
        for e, rows, slots in self._assigned(chosen):
            weight, read = weights[rows, slots, None].to(x.dtype), flat[rows]
            if self.weigh == "input":
                y = call_row(self.experts, e, read * weight)
            else:
                y = call_row(self.experts, e, read)
                y = y * weight.to(y.dtype)
            out = out.index_add(0, rows, y.to(out.dtype))
        if self.training:
            call.losses += self._losses(chosen, scores, call)
        return out.view_as(x)

    def _assigned(self, chosen: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each expert in use, with the tokens that chose it and as which of their choices."""
        for e in range(self.count):
            rows, slots = torch.where(chosen == e) if self.by_data else self._even(chosen, e)
            if len(rows):
                yield e, rows, slots

    def _even(self, chosen: Tensor, e: int) -> tuple[Tensor, ...]:
        """As many choices as an expert has if all have alike: costs depend on no more."""
        share, more = divmod(chosen.numel(), self.count)
        return chosen.new_zeros(share + (e < more), 2).unbind(1)

    def _losses(self, chosen: Tensor, scores: Tensor, call: Call) -> list[Tensor]:
        """What is added to the training loss: an imbalance, and what moves the router alone."""
        padding = call.new_padding()
        real = (
            scores.new_ones(len(scores))
            if padding is None
            else (~padding).flatten().to(scores.dtype)
        )
        picked = real @ torch.zeros_like(scores).scatter(1, chosen, 1.0 / chosen.shape[1])
        pull = self.router.pull(picked) if hasattr(self.router, "pull") else None
        losses = [] if pull is None else [pull]
        if self.balance:
            total = real.sum().clamp(min=1)
            imbalance = self.count * ((picked / total) * (real @ scores / total)).sum()
            losses.append(self.balance * imbalance)
        return losses
