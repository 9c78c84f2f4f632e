"""What the mixers share that sum up the past instead of keeping it: their memory, their short
convolution, and how much of each earlier place is left at a later one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from blocks.call import Call

CHUNK = 64  # places that are read at once: within it by matrices, across it by the state


class Summary:
    """All that a mixer has read, in tensors ``(B, ...)`` whose size does not grow with it.

    They cannot be wound back: a crop makes the model read again.
    """

    fixed = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.length = 0  # positions seen
        self.tensors: dict[str, Tensor] = {}  # none until the first call

    def advance(self, new: int, **tensors: Tensor) -> None:
        """Remember these instead, after ``new`` more positions."""
        self.length += new
        self.tensors = tensors

    def crop(self, length: int) -> bool:
        return length == self.length

    def reorder(self, rows: Tensor) -> None:
        moved = {n: t.index_select(0, rows.to(t.device)) for n, t in self.tensors.items()}
        self.tensors = moved

    def spare(self) -> list[Tensor]:
        return []

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


def blank(x: Tensor, call: Call) -> Tensor:
    """``x`` (B, T, ...), zero where there is no token."""
    padding = call.new_padding()
    if padding is None:
        return x
    return x.masked_fill(padding.view(*padding.shape, *[1] * (x.dim() - 2)), 0.0)


def documents_before(call: Call, places: int) -> Tensor | None:
    """The document of each new place and of the ``places`` before, (B, places + T); None if all
    is one.  Before the first place, where nothing was written, it is 0.
    """
    if call.segments is None:
        return None
    return F.pad(call.segments, (places, 0))[:, call.start :]


def convolve(x: Tensor, weight: Tensor, before: Tensor | None, call: Call) -> tuple[Tensor, Tensor]:
    """``y_t = sum_i weight_i x_(t - kernel + 1 + i)``, each channel by itself; a document sees
    only its own.

    Shapes: x ``(B, T, dim)``, weight ``(dim, kernel)``, before ``(B, kernel - 1, dim)``: the places
    ahead of x, None at the start.  Gives ``(B, T, dim)`` and the next call's ``before``.
    """
    length, kernel = x.shape[1], weight.shape[1]
    x = F.pad(x, (0, 0, kernel - 1, 0)) if before is None else torch.cat([before, x], 1)
    taps = [x[:, i : i + length] for i in range(kernel)]
    documents = documents_before(call, kernel - 1)
    if documents is not None:
        own = [documents[:, i : i + length] == documents[:, kernel - 1 :] for i in range(kernel)]
        taps = [tap * same[..., None] for tap, same in zip(taps, own, strict=True)]
    y = taps[0] * weight[:, 0]
    for i in range(1, kernel):
        y = torch.addcmul(y, taps[i], weight[:, i])
    return y, x[:, length:].clone()  # a view would keep all of x alive


def chunks(
    size: int, log_decay: Tensor, documents: Tensor | None, *tensors: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """``size`` places after another: ``far`` and ``near``, and the tensors' own ``C`` places.

    Shapes: log_decay ``(B, H, T)``, never above 0; documents ``(B, 1 + T)``; tensors ``(..., T,
    d)``.  ``far`` ``(B, H, C, 1)`` is what decay and documents leave, at each place, of the state
    before the chunk; ``near`` ``(B, H, C, C)`` of what each place of the chunk wrote.  Each sum of
    the decay's logarithm is its own: a difference of two large ones would have lost its digits.
    """
    for at in range(0, log_decay.shape[-1], size):
        passed = log_decay[..., at : at + size, None]  # (B, H, C, 1)
        grid = passed.new_ones(passed.shape[-2], passed.shape[-2] + 1, dtype=torch.bool)
        between = torch.where(grid.tril(), passed, 0.0).cumsum(-2)  # (B, H, C, 1 + C)
        seen = grid.tril(1)
        if documents is not None:
            own = documents[:, None, at : at + size + 1]
            seen = seen & (own[..., 1:, None] == own[..., None, :])
        left = between.masked_fill(~seen, float("-inf")).exp()
        yield left[..., :1], left[..., 1:], *(x[..., at : at + size, :] for x in tensors)
