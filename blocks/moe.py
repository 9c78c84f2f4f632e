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
        if call.place is not None:
            return self._step(flat, weights, chosen).view_as(x)
        out = torch.zeros_like(flat)
        for e, rows, slots in self._assigned(chosen):
            y = self._weighed(e, flat[rows], weights[rows, slots, None])
            out = out.index_add(0, rows, y.to(out.dtype))
        if self.training:
            call.losses += self._losses(chosen, scores, call)
        return out.view_as(x)

    def _weighed(self, e: int | Tensor, read: Tensor, weight: Tensor) -> Tensor:
        """What an expert gives of some rows, (N, dim), with a weight for each, (N, 1)."""
        weight = weight.to(read.dtype)
        if self.weigh == "input":
            return call_row(self.experts, e, read * weight)
        y = call_row(self.experts, e, read)
        return y * weight.to(y.dtype)

    def _step(self, flat: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The same by products that are as many whatever is chosen: one for each choice, or of all
        rows by each expert if that takes fewer.
        """
        if chosen.numel() > self.count:
            out = torch.zeros_like(flat)
            for e in range(self.count):
                mine = chosen == e
                y = self._weighed(e, flat, (weights * mine).sum(1, keepdim=True))
                out = out + torch.where(mine.any(1, keepdim=True), y, 0.0).to(out.dtype)
            return out
        rows = []
        for n in range(len(flat)):
            of_row = [
                self._weighed(chosen[n, k : k + 1], flat[n : n + 1], weights[n : n + 1, k : k + 1])
                for k in range(chosen.shape[1])
            ]
            rows.append(torch.stack(of_row).sum(0))
        return torch.cat(rows).to(flat.dtype)

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
