"""A mixture of experts, and the routers that choose among them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import Node, Router, maker, register
from blocks.stack import call_row, stack


@register("softmax", kind="router")
class Softmax(nn.Module):
    """The ``top_k`` experts of highest softmax score; ``normalise`` makes their weights sum to one.

    Shapes: ``(N, dim)`` -> weights and choices ``(N, top_k)``, scores ``(N, experts)``.
    Source: Shazeer et al. 2017, arXiv:1701.06538, section 2.1; Mixtral, arXiv:2401.04088.
    """

    checks = {"top_k <= experts": "top_k={top_k} is more than experts={experts}"}

    def __init__(
        self, dim: int, experts: int, *, top_k: int = 2, normalise: bool = True, bias: bool = False
    ) -> None:
        super().__init__()
        self.score = nn.Linear(dim, experts, bias=bias)
        self.top_k, self.normalise = top_k, normalise

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.score(x).softmax(-1)
        weights, chosen = scores.topk(self.top_k, -1)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, chosen, scores

    def nulls(self) -> dict[str, str]:
        """Parameters that no gradient reaches, with the reasons."""
        if self.score.out_features == 1 or (self.normalise and self.top_k == 1):
            return {"score.": "the one expert that is chosen has the weight 1"}
        return {}


@register("moe", kind="ffn")
class MoE(nn.Module):
    """``sum_e weight_e(x) expert_e(x)`` over the experts that the router chooses for each token.

    Shapes: ``(B, T, dim) -> (B, T, dim)``; every expert's tensor is stacked, ``(experts, ...)``.
    ``balance`` times ``experts * sum_e (share of tokens) (mean score)`` is added to the training
    loss: 1 when perfectly balanced.
    Source: Shazeer et al. 2017, arXiv:1701.06538; balance: Fedus et al. 2021, arXiv:2101.03961,
    equation 4.
    """

    def __init__(
        self,
        dim: int,
        experts: int,
        *,
        expert: Node = maker("glu"),
        router: Router = maker("softmax"),
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        self.router = router(dim=dim, experts=experts)
        self.experts = stack(expert(dim), experts)
        self.count, self.balance = experts, balance
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
            y = call_row(self.experts, e, flat[rows])
            y = y * weights[rows, slots, None].to(y.dtype)
            out = out.index_add(0, rows, y.to(out.dtype))
        if self.balance and self.training:
            call.losses.append(self.balance * self._imbalance(chosen, scores, call))
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

    def _imbalance(self, chosen: Tensor, scores: Tensor, call: Call) -> Tensor:
        padding = call.new_padding()
        real = (
            scores.new_ones(len(scores))
            if padding is None
            else (~padding).flatten().to(scores.dtype)
        )
        picked = torch.zeros_like(scores).scatter(1, chosen, 1.0 / chosen.shape[1])
        total = real.sum().clamp(min=1)
        return self.count * ((real @ picked / total) * (real @ scores / total)).sum()
