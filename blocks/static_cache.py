"""What attention remembers in tensors of fixed shapes: the room for all positions to come.

A step that writes into them has the same shapes at every position, and can be compiled once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.cache import KeyValues


@dataclass
class StaticKeyValues:
    """The keys and values of one attention, each (B, kv_heads, size, head_dim): the one at place
    ``p`` is written into slot ``p % size``, over one that no query sees any more.
    """

    buffers: tuple[Tensor, Tensor]
    place: Tensor  # (1,), of the token that is read

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Remember those of one new token; give all there are, and room that is not written yet."""
        for buffer, new in zip(self.buffers, (k, v), strict=True):
            buffer.index_copy_(2, self.place % buffer.shape[2], new)
        return self.buffers


def places_of(size: int, newest: Tensor) -> Tensor:
    """The place that each slot holds once the one at ``newest`` (1,) is written, (size,); below 0
    where nothing is written yet.
    """
    return newest - (newest - torch.arange(size, device=newest.device)) % size


def newest(x: Tensor, count: int, place: Tensor | None) -> Tensor:
    """Of all keys or values (B, kv_heads, S, ...) those of the tokens that are read: the last, or
    in a static cache the one at ``place``.
    """
    if place is None:
        return x[:, :, -count:]
    return x.index_select(2, place % x.shape[2])


def with_room(state: KeyValues, room: int) -> tuple[Tensor, ...]:
    """What is remembered, in buffers that a static cache of ``room`` positions can write into."""
    size = room if state.span is None else min(state.span, room)
    places = torch.arange(state.length - state.kept, state.length)
    found = []
    for buffer in state.buffers:
        held = buffer.new_zeros(*buffer.shape[:2], size, buffer.shape[3])
        held[:, :, places % size] = buffer[:, :, state.end - state.kept : state.end]
        found.append(held)
    return tuple(found)
