"""What the model remembers between calls."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from torch import Tensor


class State(Protocol):
    """One mixer's memory.  ``crop`` answers whether it could; if not, the tokens are read again."""

    fixed: bool  # its size does not grow with the positions

    def crop(self, length: int) -> bool: ...

    def reorder(self, rows: Tensor) -> None: ...

    def reset(self) -> None: ...

    def spare(self) -> list[Tensor]:
        """Views of what it holds and must never read: whatever is there changes nothing."""
        ...

    @property
    def nbytes(self) -> int: ...


class KeyValues:
    """The keys and values of one attention, (B, kv_heads, S, head_dim); of the last ``span``
    positions if given.

    They are written into a buffer that grows by half, so that appending a token costs one row and
    not a copy. A window of ``span`` needs the ``span - 1`` before the new token: older ones are
    dropped when the buffer is full.
    """

    fixed = False

    def __init__(self, span: int | None = None) -> None:
        self.span = span
        self.reset()

    def reset(self) -> None:
        self.length = 0  # positions seen
        self.end = 0  # of what is written in the buffers
        self.buffers: tuple[Tensor, ...] = ()

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Remember those of the new tokens; give all that these may look at, the new ones last."""
        new, kept = k.shape[2], self.kept
        if not self.buffers or self.end + new > self.buffers[0].shape[2]:
            self._move(kept, kept + new + max((kept + new) // 2, 32), (k, v))
        for buffer, tensor in zip(self.buffers, (k, v), strict=True):
            buffer[:, :, self.end : self.end + new] = tensor
        self.end += new
        self.length += new
        k, v = (buffer[:, :, self.end - new - kept : self.end] for buffer in self.buffers)
        return k, v

    @property
    def kept(self) -> int:
        """How many positions the next token may look back at."""
        return self.length if self.span is None else min(self.length, self.span - 1)

    def _move(self, kept: int, capacity: int, like: tuple[Tensor, Tensor]) -> None:
        old = self.buffers
        self.buffers = tuple(t.new_empty(*t.shape[:2], capacity, t.shape[3]) for t in like)
        for new, buffer in zip(self.buffers, old, strict=False):
            new[:, :, :kept] = buffer[:, :, self.end - kept : self.end]
        self.end = kept

    def crop(self, length: int) -> bool:
        dropped = self.length - length
        needed = length if self.span is None else min(length, self.span - 1)
        if self.end - dropped < needed:
            return False
        self.end, self.length = self.end - dropped, length
        return True

    def reorder(self, rows: Tensor) -> None:
        self.buffers = tuple(
            buffer.index_select(0, rows.to(buffer.device)) for buffer in self.buffers
        )

    def spare(self) -> list[Tensor]:
        return [buffer[:, :, self.end :] for buffer in self.buffers]

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered: the buffers' spare room is not counted."""
        return sum(b[:, :, :1].numel() * self.kept * b.element_size() for b in self.buffers)


class Cache:
    """A model's memory of the tokens that it has read: one state a mixer, shared weights or not.

    It keeps the token ids too (a few bytes each), so that cropping is exact even for a state that
    cannot be wound back: such a cache starts again and reads ``replay`` at the next call.
    """

    def __init__(self, states: dict[int, State], batch_size: int) -> None:
        self.states, self.batch_size = states, batch_size
        self.reset()

    def __len__(self) -> int:
        """How many positions have been read, padding included."""
        return 0 if self.ids is None else self.ids.shape[1]

    def reset(self) -> None:
        """Forget everything."""
        self.ids: Tensor | None = None
        self.documents: Tensor | None = None
        self.read = 0  # of ids, how many the states have seen
        for state in self.states.values():
            state.reset()

    def extend(self, ids: Tensor, documents: Tensor | None) -> tuple[Tensor, int]:
        """Add tokens; give those that the states have yet to read, and how many they have read."""
        if ids.shape[0] != self.batch_size:
            raise ValueError(
                f"the cache was made for a batch of {self.batch_size}, not {ids.shape[0]}"
            )
        if self.ids is not None and (documents is None) != (self.documents is None):
            raise ValueError("documents must be given at every call of a cache, or at none")
        self.ids = ids if self.ids is None else torch.cat([self.ids, ids], 1)
        if documents is not None:
            self.documents = (
                documents if self.documents is None else torch.cat([self.documents, documents], 1)
            )
        read, self.read = self.read, len(self)
        return self.ids[:, read:], read

    def crop(self, length: int) -> None:
        """Forget all but the first ``length`` positions, as if the rest had never been read."""
        if not 0 <= length <= len(self):
            raise ValueError(f"cannot crop a cache of {len(self)} positions to {length}")
        if self.ids is None or length == 0:
            return self.reset()
        self.ids = self.ids[:, :length]
        self.documents = None if self.documents is None else self.documents[:, :length]
        if self.read > length:
            self.read = length if self._crop_states(length) else 0

    def _crop_states(self, length: int) -> bool:
        """Crop every state; if one cannot, reset them all."""
        if all(state.crop(length) for state in self.states.values()):
            return True
        for state in self.states.values():
            state.reset()
        return False

    def fork(self) -> Cache:
        """An independent copy."""
        return copy.deepcopy(self)

    def reorder(self, rows: Tensor) -> None:
        """Row ``i`` becomes what row ``rows[i]`` was; rows may repeat or be left out."""
        self.batch_size = len(rows)
        self.ids = None if self.ids is None else self.ids[rows]
        self.documents = None if self.documents is None else self.documents[rows]
        for state in self.states.values():
            state.reorder(rows)

    @property
    def nbytes(self) -> int:
        """Bytes that the states remember."""
        return sum(state.nbytes for state in self.states.values())
