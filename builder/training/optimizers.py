"""Optimizers, which parameters decay, and at what rate each learns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from blocks.registry import register
from builder.graph import Graph, leaves
from builder.training.world import local, placed_as, put, whole


@dataclass(frozen=True)
class Learner:
    """A parameter, by name.

    ``mixes``: a matrix, apart from embeddings and positions; these decay, biases and gains do not.
    ``rate`` is its share of the learning rate.
    """

    name: str
    parameter: nn.Parameter
    mixes: bool
    rate: float = 1.0


def learners(model: nn.Module, graph: Graph) -> list[Learner]:
    """Every parameter of a model, in its order."""
    lookups = tuple(
        f"{leaf.weights}."
        for leaf in leaves(graph)
        if leaf.kind in ("embedding", "positions", "norm")
    )
    found = []
    for name, parameter in model.named_parameters():
        stacked = getattr(parameter, "stacked", False)  # experts: one more dimension than a weight
        mixes = parameter.dim() - stacked >= 2 and not name.startswith(lookups)
        found.append(Learner(name, parameter, mixes))
    return found


def fits(path: str, name: str) -> bool:
    """Whether a path is a run of the words of a name: ``attention.q`` of
    ``layers.0.attention.q.weight``; ``*`` is any one word.
    """
    words, parts = path.split("."), name.split(".")
    runs = (parts[at : at + len(words)] for at in range(len(parts) - len(words) + 1))
    return any(all(w in ("*", p) for w, p in zip(words, run, strict=True)) for run in runs)


def by_path(settings: Mapping[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    """The setting of each name that a path fits, the last that does.  KeyError is the first path
    that decides nothing.
    """
    found: dict[str, tuple[str, float]] = {}
    settings = settings or {}
    for path, value in settings.items():
        found |= {name: (path, value) for name in names if fits(path, name)}
    used = {path for path, _ in found.values()}
    for path in settings:
        if path not in used:
            raise KeyError(path)
    return {name: value for name, (_, value) in found.items()}


def at_rates(found: Sequence[Learner], rates: Mapping[str, float]) -> list[Learner]:
    """The learners at their own rates, shares of the learning rate; all others learn at 1."""
    return [replace(one, rate=rates.get(one.name, 1.0)) for one in found]


def grouped(found: Sequence[Learner], decay: float, decays: Mapping[str, float]) -> list[Any]:
    """What torch calls parameter groups: those of one decay and one rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for one in found:
        own = decays.get(one.name, decay if one.mixes else 0.0)
        groups.setdefault((own, one.rate), []).append(one.parameter)
    return [{"params": p, "weight_decay": d, "rate": r} for (d, r), p in groups.items()]


class Optimizer:
    """Moves the parameters of its groups, whose ``lr`` is set before each step.

    Torch's own class imports the whole of its compiler when one is made, which takes a second.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = [{"lr": 0.0, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            for p in moved:
                if p not in self.state:
                    self.state[p] = self.begin(p)
            if moved:
                self.move(moved, group)

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def begin(self, p: Tensor) -> dict[str, Tensor]:
        """What is remembered of a parameter before its first step."""
        return {"momentum": torch.zeros_like(p)}

    def move(self, moved: list[Any], group: Mapping[str, Any]) -> None:
        """Move some parameters of a group, each of which has a gradient and a state."""
        raise NotImplementedError


class Decaying:
    """What optimizers share: the decay of matrices, and of others by paths of their names."""

    weight_decay: float
    decays: Mapping[str, float] | None

    def groups(self, found: Sequence[Learner], every: Sequence[Learner]) -> list[Any]:
        decays = by_path(self.decays, [one.name for one in every])
        return grouped(found, self.weight_decay, decays)


@register("adamw", kind="optimizer")
class AdamW(Decaying):
    """Adam with decoupled weight decay.

    ``decays`` are the decays of parameters by a path of their names, as ``train.rates`` has them.
    Source: Loshchilov & Hutter 2017, arXiv:1711.05101; betas after Brown et al. 2020 (GPT-3).
    """

    def __init__(
        self,
        *,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        decays: Mapping[str, float] | None = None,
    ) -> None:
        self.betas, self.eps = (beta1, beta2), eps
        self.weight_decay, self.decays = weight_decay, decays

    def over(self, found: Sequence[Learner]) -> list[Optimizer]:
        """The optimizer; its rate is set before each step."""
        return [self.of(self.groups(found, found))]

    def of(self, groups: list[Any]) -> Optimizer:
        return AdamWSteps(groups, self.betas, self.eps)


class AdamWSteps(Optimizer):
    """AdamW's step, by torch's one kernel for all tensors."""

    def __init__(self, groups: list[Any], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    def begin(self, p: Tensor) -> dict[str, Tensor]:
        means = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float32, device=p.device), **means}

    @torch.no_grad()
    def move(self, moved: list[Any], group: Mapping[str, Any]) -> None:
        names = ("exp_avg", "exp_avg_sq", "step")
        means, squares, steps = ([self.state[p][name] for p in moved] for name in names)
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            moved,
            [p.grad for p in moved],
            means,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=group["weight_decay"],
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


@register("muon", kind="optimizer")
class Muon(Decaying):
    """Momentum whose every matrix is made orthogonal, for the matrices of layers, stacked experts'
    too; AdamW for all else: embeddings, the head, gains, biases.

    Scaled to the size of AdamW's steps, so that it takes its rates and decays.
    Source: Jordan et al. 2024; the scale after Liu et al. 2025, arXiv:2502.16982.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        decays: Mapping[str, float] | None = None,
    ) -> None:
        self.momentum, self.nesterov = momentum, nesterov
        self.rest = AdamW(beta1=beta1, beta2=beta2, eps=eps)
        self.weight_decay, self.decays = weight_decay, decays

    def over(self, found: Sequence[Learner]) -> list[Optimizer]:
        hidden = [one for one in found if one.mixes and one.name.startswith("layers.")]
        others = [one for one in found if one not in hidden]
        groups, rest = self.groups(hidden, found), self.groups(others, found)
        matrices = [MuonSteps(groups, self.momentum, self.nesterov)] if groups else []
        return [*matrices, *([self.rest.of(rest)] if rest else [])]


class MuonSteps(Optimizer):
    """Muon's step.  Torch has one, which takes no stacked matrices, and computes in bfloat16, nine
    times slower than float32 where a CPU has no units for it.
    """

    def __init__(self, groups: list[Any], momentum: float, nesterov: bool) -> None:
        super().__init__(groups)
        self.momentum, self.nesterov = momentum, nesterov

    @torch.no_grad()
    def move(self, moved: list[Any], group: Mapping[str, Any]) -> None:
        for p in moved:
            momentum = self.state[p]["momentum"].lerp_(p.grad, 1 - self.momentum)
            update = p.grad.lerp(momentum, self.momentum) if self.nesterov else momentum
            dtype = torch.bfloat16 if p.is_cuda else update.dtype
            flat = orthogonal(whole(update).to(dtype)).to(p.dtype)
            scale = 0.2 * math.sqrt(max(p.shape[-2:]))
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(group["lr"] * scale * placed_as(p, flat))


def orthogonal(x: Tensor) -> Tensor:
    """Nearly the orthogonal matrix nearest to ``x`` (..., rows, columns), up to a scale of each
    direction between 0.7 and 1.2: five steps of Newton and Schulz, as in Jordan et al. 2024.
    """
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


@register("lion", kind="optimizer")
class Lion(Decaying):
    """The sign of a momentum: one number is remembered for each parameter.  Wants a rate of a
    third to a tenth of AdamW's, and as much more decay.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    def __init__(
        self,
        *,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.3,
        decays: Mapping[str, float] | None = None,
    ) -> None:
        self.betas = beta1, beta2
        self.weight_decay, self.decays = weight_decay, decays

    def over(self, found: Sequence[Learner]) -> list[Optimizer]:
        return [LionSteps(self.groups(found, found), self.betas)]


class LionSteps(Optimizer):
    """Lion's step."""

    def __init__(self, groups: list[Any], betas: tuple[float, float]) -> None:
        super().__init__(groups)
        self.betas = betas

    @torch.no_grad()
    def move(self, moved: list[Any], group: Mapping[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], self.betas
        for p in moved:
            momentum = self.state[p]["momentum"]
            p.mul_(1 - lr * group["weight_decay"])
            p.sub_(lr * torch.lerp(p.grad, momentum, beta1).sign_())
            momentum.lerp_(p.grad, 1 - beta2)


def set_rate(optimizers: Iterable[Optimizer], lr: float) -> None:
    """Each group's own share of a learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["rate"]


def state_tensors(optimizers: Iterable[Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """What optimizers remember by name, ``exp_avg/lm_head.weight``."""
    return {
        f"{key}/{name}": value
        for optimizer in optimizers
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


@torch.no_grad()
def restore(
    optimizers: Iterable[Optimizer], model: nn.Module, tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """Give optimizers back what they remember."""
    parameters = dict(model.named_parameters())
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for full, value in tensors:
        key, _, name = full.partition("/")
        parameter = parameters[name]
        state = owners[id(parameter)].state.setdefault(parameter, {})
        if value.shape == parameter.shape:
            state[key] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
            put(state[key], value)
        else:
            state[key] = value.to(local(parameter).device)
