"""A number of every bit of some tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor]) -> Tensor:
    """The same in whatever order a tensor is summed: each of its words is added as an integer, and
    its sum weighed by the tensor's place.
    """
    total = None
    for place, tensor in enumerate(tensors):
        own = words(tensor.contiguous().flatten()).sum() * (2 * place + 1)
        total = own if total is None else total + own
    return torch.zeros((), dtype=torch.int64) if total is None else total


def words(flat: Tensor) -> Tensor:
    """The bits of a vector, as integers of 64 of them; zeros fill up the last."""
    whole = 8 // flat.element_size()
    if len(flat) % whole or flat.storage_offset() % whole:
        flat = F.pad(flat, (0, -len(flat) % whole))  # a copy, also where nothing is added
    return flat.view(torch.int64)
