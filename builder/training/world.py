"""The processes that train one model together: one alone, or those that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from builder.devices import pick_device
from builder.errors import InputError


@dataclass(frozen=True)
class World:
    """``size`` processes, of which this is the ``rank``-th.  ``shard``: each holds a part of every
    weight (FSDP2), and not all of them (DDP).
    """

    device: torch.device
    rank: int = 0
    size: int = 1
    shard: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if not self.alone:
            dist.all_reduce(tensor)
        return tensor

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return here if self.alone else bool(self.sum(torch.tensor(int(here), device=self.device)))

    def wait(self) -> None:
        """Until all are here."""
        if not self.alone:
            dist.barrier()

    def told(self, what: Any = None) -> Any:
        """What the first process says."""
        if self.alone:
            return what
        box = [what]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def all(self, what: Any) -> list[Any]:
        """What each process says, by rank."""
        if self.alone:
            return [what]
        found = [None] * self.size
        dist.all_gather_object(found, what)
        return found


ALONE = World(torch.device("cpu"))  # where it does not matter what computes


@contextmanager
def joined(device: str | None = None, shard: bool = False) -> Iterator[World]:
    """The world that this process was started in.  InputError if nothing is there to shard over."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if shard:
            message = "one process has nothing to shard over"
            raise InputError("nothing-to-shard", message, "start it with torchrun --nproc-per-node")
        yield World(pick_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = pick_device(device)
    if own.type == "cuda":
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield World(own, dist.get_rank(), size, shard)
    finally:
        dist.destroy_process_group()


def is_shared_out(tensor: Tensor) -> bool:
    """Whether each process holds a part: a ``DTensor``, whose module takes long to import."""
    return hasattr(tensor, "to_local")


def local(tensor: Any) -> Tensor:
    """What this process holds of a tensor."""
    found: Tensor = tensor.to_local() if is_shared_out(tensor) else tensor
    return found


def whole(tensor: Any) -> Tensor:
    """All of a tensor, in every process."""
    found: Tensor = tensor.full_tensor() if is_shared_out(tensor) else tensor
    return found


def placed_as(tensor: Any, value: Tensor) -> Tensor:
    """A value that every process knows, of which each keeps what it holds of a tensor."""
    if not is_shared_out(tensor):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = tensor.device_mesh, tensor.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


@torch.no_grad()
def put(tensor: Tensor, value: Tensor) -> None:
    """Fill a tensor, or what this process holds of it, from the whole value."""
    own = local(tensor)
    tensor.copy_(placed_as(tensor, value.to(device=own.device, dtype=own.dtype)))
