"""What one call of the model knows beside its stream: positions, documents, padding, losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Call:
    """One forward pass over ``T`` new tokens that follow ``start`` cached ones; ``S = start + T``.

    ``ids`` (B, T); ``positions`` (1 or B, T).  Over all ``S`` places, cached ones included, and
    None where rows are alike: ``counted`` (B, S), their positions; ``segments`` (B, S), equal
    within a document; ``padding`` (B, S), True where there is no token.

    A step of fixed shapes reads one token, whose ``place`` is a tensor (1,): then ``S`` is all the
    room there is, and what lies behind the token is not there yet.
    """

    ids: Tensor
    start: int
    positions: Tensor
    counted: Tensor | None = None
    segments: Tensor | None = None
    padding: Tensor | None = None
    place: Tensor | None = None
    losses: list[Tensor] = field(default_factory=list)
    memo: dict[Hashable, Any] = field(default_factory=dict)
    taps: dict[Hashable, Any] = field(default_factory=dict)  # what is read further on

    @property
    def end(self) -> int:
        return self.start + self.ids.shape[1]

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What is the same for every layer is computed by the first that asks."""
        if torch.compiler.is_exporting():
            return compute()  # sizes are symbols, which are no keys
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]

    def position(self, place: Tensor) -> Tensor:
        """The positions at some places (...): those of every row, (B, ...), where rows differ."""
        if self.counted is None:
            return place
        return self.counted[:, place.clamp(0, self.end - 1)]

    def lengths(self) -> Tensor:
        """How many tokens of each new one's text have been read so far: (1 or B, 1 or T)."""
        if self.place is not None:
            return self.positions + 1
        if self.counted is None:
            return torch.full((1, 1), self.end, device=self.ids.device)
        read = self.counted + (1 if self.padding is None else (~self.padding).long())
        if self.segments is None:
            return read.amax(1, keepdim=True)
        texts = torch.zeros_like(read).scatter_reduce(1, self.segments - 1, read, "amax")
        return texts.gather(1, self.segments - 1)[:, self.start :]

    def new_padding(self) -> Tensor | None:
        """``padding`` of the new tokens alone, (B, T)."""
        return None if self.padding is None else self.padding[:, self.start :]


def step_call(ids: Tensor, place: Tensor, room: int, padding: Tensor | None) -> Call:
    """One more token a row, (B, 1), at a ``place`` (1,) of the ``room``; padding (B, room)."""
    if padding is None:
        return Call(ids, room - 1, place[None], place=place)
    counted = before_each(padding)
    return Call(ids, room - 1, counted[:, place], counted, None, padding, place)


def before_each(padding: Tensor) -> Tensor:
    """How many tokens stand before each place, (B, S)."""
    real = (~padding).long()
    return real.cumsum(1) - real


def start_call(ids: Tensor, start: int, documents: Tensor | None, padding: Tensor | None) -> Call:
    """Positions count a document's tokens from 0; padding has none."""
    total = start + ids.shape[1]
    if documents is None and padding is None:
        return Call(ids, start, torch.arange(start, total, device=ids.device)[None])
    none = torch.zeros(len(ids), total, dtype=torch.bool, device=ids.device)
    before = before_each(none if padding is None else padding)
    segments = None
    if documents is not None:
        starts = torch.ones_like(documents, dtype=torch.bool)
        starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
        segments = starts.cumsum(1)
        before = before - (before * starts).cummax(1).values
    return Call(ids, start, before[:, start:], before, segments, padding)
