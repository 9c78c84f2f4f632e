"""What can be said of a model without training it: how far it sees, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from builder.graph import leaves
from builder.measure import measure
from builder.model import Model, build
from builder.recipe import Recipe


def counted(recipe: Recipe, name: str) -> float | None:
    """One of the numbers that a model has untrained; None if it cannot be counted."""
    if name == "reach":
        return reach(recipe)
    costs = measure(recipe, training=False)
    if name == "flops_per_token":
        return costs.per_token(costs.prefill)
    found: int | None = getattr(costs, name)
    return found


def reach(recipe: Recipe) -> int:
    """How many tokens back the last logits of a full context read, by their gradient in float64."""
    model = build(recipe, dtype=torch.float64).eval()
    ids = torch.arange(recipe.graph.context)[None] % recipe.graph.vocab
    read = pulls(model, ids, -1).nonzero()[:, 0]
    return int(ids.shape[1] - 1 - read.min())


def is_causal(model: Model, ids: Tensor) -> bool:
    """Whether no gradient goes from logits to a later token.  Shapes: ids ``(1, T)``."""
    middle = ids.shape[1] // 2
    return not bool(pulls(model, ids, middle)[middle + 1 :].any())


def pulls(model: Model, ids: Tensor, place: int) -> Tensor:
    """How strongly the logits at a place ask for each token's embedding: ``(1, T)`` to ``(T,)``."""
    with watched(model) as embedded, torch.enable_grad():
        logits = model(ids)[0, place]
        weights = torch.linspace(-1, 1, len(logits), dtype=logits.dtype, device=logits.device)
        found = torch.autograd.grad((logits * weights).sum(), embedded)
    return torch.stack([gradient[0].abs().sum(-1) for gradient in found]).sum(0).detach()


@contextmanager
def watched(model: Model) -> Iterator[list[Tensor]]:
    """What embeddings give in a call, each apart from its weights."""
    names = {leaf.weights for leaf in leaves(model.recipe.graph) if leaf.kind == "embedding"}
    found: list[Tensor] = []

    def note(module: nn.Module, given: object, out: Tensor) -> Tensor:
        found.append(out.detach().requires_grad_())
        return found[-1]

    hooks = [model.get_submodule(name).register_forward_hook(note) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
