"""Optimizers, and which parameters decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blocks.registry import register
from builder.graph import Graph, leaves


@dataclass(frozen=True)
class Groups:
    """A model's parameters: the matrices that mix, and all others, which do not decay."""

    decayed: Sequence[nn.Parameter]
    kept: Sequence[nn.Parameter]


def groups(model: nn.Module, graph: Graph) -> Groups:
    """Matrices decay, apart from embeddings and positions; biases and gains do not."""
    lookups = tuple(
        f"{leaf.weights}."
        for leaf in leaves(graph)
        if leaf.kind in ("embedding", "positions", "norm")
    )
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        stacked = getattr(
            parameter, "stacked", False
        )  # experts: one more dimension than the weight it holds
        mixes = parameter.dim() - stacked >= 2 and not name.startswith(lookups)
        (decayed if mixes else kept).append(parameter)
    return Groups(decayed, kept)


@register("adamw", kind="optimizer")
class AdamW:
    """Adam with decoupled weight decay.

    Source: Loshchilov & Hutter 2017, arXiv:1711.05101; betas after Brown et al. 2020 (GPT-3).
    """

    def __init__(
        self,
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        self.betas, self.eps, self.weight_decay = (beta1, beta2), eps, weight_decay

    def over(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer; its rate is set before each step."""
        parameters = [
            {"params": list(groups.decayed), "weight_decay": self.weight_decay},
            {"params": list(groups.kept), "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(parameters, lr=0.0, betas=self.betas, eps=self.eps, fused=True)


def state_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """An optimizer's memory by name, ``exp_avg/lm_head.weight``."""
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def restore(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer back its memory."""
    parameters = dict(model.named_parameters())
    for full, value in tensors.items():
        key, _, name = full.partition("/")
        optimizer.state[parameters[name]][key] = value.to(parameters[name].device)
