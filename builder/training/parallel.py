"""A model spread over the processes of a world: whole in each (DDP), or sharded (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from builder.graph import leaves
from builder.model import Model, build, first_values
from builder.training.world import World, put

if TYPE_CHECKING:
    from builder.recipe import Recipe


def spread(
    recipe: Recipe, world: World, dtype: str, prepare: Callable[[Model], None]
) -> tuple[Model, Callable[..., Tensor]]:
    """The model in training, and its loss, whose gradients are the mean over the processes.

    ``prepare`` is called on the model before it is wrapped.
    """
    model = build(recipe, device="meta" if world.shard else world.device).train()
    prepare(model)
    if world.alone:
        return model, model.loss
    if world.shard:
        shard(model, world, dtype)
        return model, model.loss
    from torch.nn.parallel import DistributedDataParallel

    ids = [world.device.index] if world.device.type == "cuda" else None
    return model, DistributedDataParallel(Loss(model), ids, gradient_as_bucket_view=True)


class Loss(nn.Module):
    """The loss as what a module gives: that is what DDP wraps."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return self.model.loss(*given, **named)


def shard(model: Model, world: World, dtype: str) -> None:
    """Share out every weight of a model that has no data yet, then draw it, one after another."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(world.device.type, (world.size,))
    half = torch.bfloat16 if dtype == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    blank = dict(model.named_parameters())
    if not shares_across_layers(model):  # else a layer's weights are needed in another's turn
        for layer in getattr(model, "layers", ()):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    # what is used outside of training, as in an evaluation, must be shared out again after it
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    register_fsdp_forward_method(model, "loss")
    model.to_empty(device=world.device)
    first = first_values(model.recipe)
    for name, parameter in model.named_parameters():
        parameter.__dict__.update(blank[name].__dict__)
        put(parameter, first(name, blank[name]))


def shares_across_layers(model: Model) -> bool:
    return any(leaf.name != leaf.weights for leaf in leaves(model.recipe.graph))
