"""Which earlier positions a query may look at."""

from __future__ import annotations

from torch import Tensor

from blocks.registry import register


class Visibility:
    """What attention asks of a mask.  Two of one class with equal attributes are the same mask."""

    span: int | None = None  # how many places back, its own included, a query sees at the most
    absolute = False  # whether what is seen depends on more than the distance

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether a query at position ``i`` sees the key at position ``j``; broadcasts."""
        raise NotImplementedError

    def is_causal(self, first: int, end: int) -> bool:
        """Whether among positions from ``first`` up to ``end`` each sees all up to its own."""
        return False

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))


@register("causal", kind="mask")
class Causal(Visibility):
    """Every position up to its own.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    """

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        return j <= i

    def is_causal(self, first: int, end: int) -> bool:
        return True


@register("sliding_window", kind="mask")
class SlidingWindow(Visibility):
    """The last ``window`` positions, its own included.

    Source: Beltagy et al. 2020, arXiv:2004.05150; Mistral (Jiang et al. 2023, arXiv:2310.06825).
    """

    span: int
    checks = {"window >= 1": "a window holds at least the position itself, and window={window}"}

    def __init__(self, window: int, /) -> None:
        self.span = window

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & (i - j < self.span)

    def is_causal(self, first: int, end: int) -> bool:
        return end - first <= self.span


@register("chunked", kind="mask")
class Chunked(Visibility):
    """Positions up to its own in chunks of ``size``: the first of a chunk sees itself alone.

    Source: Child et al. 2019, arXiv:1904.10509, section 4 (blocks); Llama 4.
    """

    span: int
    absolute = True
    checks = {"size >= 1": "a chunk holds at least the position itself, and size={size}"}

    def __init__(self, size: int, /) -> None:
        self.span = size

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & (i // self.span == j // self.span)

    def is_causal(self, first: int, end: int) -> bool:
        return first // self.span == (end - 1) // self.span
