"""Routers: which experts of a mixture each token uses, and how much each of them counts.

A router gives weights and choices ``(N, top_k)``, and the scores ``(N, experts)`` that a balance
loss looks at.  ``pull``, if it has one, is a loss of no value whose gradient moves what no output
does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from blocks.parameter import constant
from blocks.registry import register


@register("softmax", kind="router")
class Softmax(nn.Module):
    """The ``top_k`` experts of highest softmax score; ``normalise`` makes their weights sum to one.

    Shapes: ``(N, dim)`` -> weights and choices ``(N, top_k)``, scores ``(N, experts)``.  Of
    ``groups`` of experts on end only the ``top_groups`` are looked at whose best expert is best.
    Weights are multiplied by ``scale``.
    Source: Shazeer et al. 2017, arXiv:1701.06538, section 2.1; Mixtral, arXiv:2401.04088; groups:
    DeepSeek-V2, arXiv:2405.04434, section 2.2.2.
    """

    checks = {
        "top_k <= experts": "top_k={top_k} is more than experts={experts}",
        "experts % groups == 0": "experts={experts} is not a multiple of groups={groups}",
        "top_groups <= groups": "top_groups={top_groups} is more than groups={groups}",
        "top_k <= experts / groups * top_groups": "top_k={top_k} is more than there are experts in "
        "top_groups={top_groups} of groups={groups}",
    }

    def __init__(
        self,
        dim: int,
        experts: int,
        *,
        top_k: int = 2,
        normalise: bool = True,
        bias: bool = False,
        groups: int = 1,
        top_groups: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.score = nn.Linear(dim, experts, bias=bias)
        self.top_k, self.normalise, self.scale = top_k, normalise, scale
        self.groups, self.top_groups = groups, top_groups

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.score(x).softmax(-1)
        best = scores.unflatten(-1, (self.groups, -1)).amax(-1)  # (N, groups)
        weights, chosen = among(scores, best, self.top_groups).topk(self.top_k, -1)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights * self.scale, chosen, scores

    def nulls(self) -> dict[str, str]:
        """Parameters that no gradient reaches, with the reasons."""
        if self.score.out_features == 1 or (self.normalise and self.top_k == 1):
            return {"score.": "the one expert that is chosen has the weight 1"}
        return {}


@register("sigmoid", kind="router")
class Sigmoid(nn.Module):
    """The ``top_k`` experts of highest sigmoid score; ``normalise`` makes their weights sum to one.

    Shapes: ``(N, dim)`` -> weights and choices ``(N, top_k)``, scores ``(N, experts)``.  A
    ``selection_bias`` is added to the scores, or to the ``logits`` before them, where experts are
    chosen and nowhere else: no output moves it, but each step of training by as much, towards
    experts that were chosen less than others.  Of ``groups`` of experts on end only the
    ``top_groups`` are looked at whose two best are best together.  Logits are bounded by
    ``softcap``, weights multiplied by ``scale``.
    Source: DeepSeek-V3, arXiv:2412.19437, section 2.1.2; selection_bias: Wang et al. 2024,
    arXiv:2408.15664.
    """

    checks = {
        "top_k <= experts": "top_k={top_k} is more than experts={experts}",
        "experts % groups == 0": "experts={experts} is not a multiple of groups={groups}",
        "not (groups > 1 and experts < 2 * groups)": "groups={groups} of experts={experts} have no "
        "two experts each",
        "top_groups <= groups": "top_groups={top_groups} is more than groups={groups}",
        "top_k <= experts / groups * top_groups": "top_k={top_k} is more than there are experts in "
        "top_groups={top_groups} of groups={groups}",
        "softcap > 0": "softcap={softcap} is not above 0",
    }

    def __init__(
        self,
        dim: int,
        experts: int,
        *,
        top_k: int = 2,
        normalise: bool = True,
        bias: bool = False,
        selection_bias: Literal["scores", "logits"] | None = None,
        groups: int = 1,
        top_groups: int = 1,
        softcap: float | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.score = nn.Linear(dim, experts, bias=bias)
        self.selection_bias = None if selection_bias is None else constant(0.0, experts)
        self.top_k, self.normalise, self.scale = top_k, normalise, scale
        self.groups, self.top_groups = groups, top_groups
        self.added_to, self.softcap = selection_bias, softcap

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.score(x)
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        scores = logits.sigmoid()
        ranks = logits if self.added_to == "logits" else scores
        ranks = ranks if self.selection_bias is None else ranks + self.selection_bias
        if self.groups > 1:
            best = ranks.unflatten(-1, (self.groups, -1)).topk(2, -1).values.sum(-1)
            ranks = among(ranks, best, self.top_groups)
        chosen = ranks.topk(self.top_k, -1).indices
        weights = scores.gather(-1, chosen)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights * self.scale, chosen, scores

    def pull(self, picked: Tensor) -> Tensor | None:
        """Nothing, with a gradient of one for each expert that was picked more than the mean, and
        of minus one where less; ``picked`` (experts) counts.
        """
        if self.selection_bias is None:
            return None
        towards = (picked - picked.mean()).sign().to(self.selection_bias.dtype)
        return ((self.selection_bias - self.selection_bias.detach()) * towards).sum()

    def nulls(self) -> dict[str, str]:
        """Parameters that no gradient reaches, with the reasons."""
        found = {}
        if self.selection_bias is not None:
            found["selection_bias"] = "it chooses experts, and counts nowhere else"
        if self.normalise and self.top_k == 1:
            found["score."] = "the one expert that is chosen has the weight 1"
        return found


@register("sparsemixer", kind="router")
class SparseMixer(nn.Module):
    """The best expert and the second best, each with its softmax score among those that come close
    to it: within ``2 * band`` of it, relative to the larger of the two.

    Shapes: ``(N, dim)`` -> weights and choices ``(N, 2)``, scores ``(N, experts)``.  As it is at
    inference: training too chooses the best, and draws none.
    Source: Liu et al. 2024, arXiv:2409.12136 (Phi-3.5-MoE).
    """

    top_k = 2
    checks = {
        "experts >= 2": "there is no second best of experts={experts}",
        "band > 0": "band={band} is not above 0",
    }

    def __init__(self, dim: int, experts: int, *, band: float = 0.01) -> None:
        super().__init__()
        self.score = nn.Linear(dim, experts, bias=False)
        self.band = band

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.score(x)
        left, weights, chosen = logits, [], []
        for _ in range(self.top_k):
            best, at = left.detach().max(-1, keepdim=True)
            far = (best - logits.detach()) / logits.detach().abs().clamp(min=best) > 2 * self.band
            near = left.masked_fill(far, float("-inf")).softmax(-1)
            weights.append(near.gather(-1, at))
            chosen.append(at)
            left = left.scatter(-1, at, float("-inf"))
        return torch.cat(weights, -1), torch.cat(chosen, -1), logits.softmax(-1)


def among(ranks: Tensor, best: Tensor, top_groups: int) -> Tensor:
    """The ranks, with those at the bottom whose group is none of the best, ``best`` (N, groups)."""
    groups = best.shape[-1]
    if groups == top_groups:
        return ranks
    kept = torch.zeros_like(best, dtype=torch.bool)
    kept = kept.scatter(-1, best.topk(top_groups, -1).indices, True)
    return ranks.masked_fill(~kept.repeat_interleave(ranks.shape[-1] // groups, -1), float("-inf"))
