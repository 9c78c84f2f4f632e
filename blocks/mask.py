"""Which earlier positions a query may look at."""

from __future__ import annotations

from torch import Tensor

from blocks.registry import register


@register("causal", kind="mask")
class Causal:
    """Every position up to its own.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3.
    """

    span: int | None = (
        None  # how many positions back, its own included, a query can see at the most
    )

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether a query at place ``i`` sees the key at place ``j``; broadcasts."""
        return j <= i


@register("sliding_window", kind="mask")
class SlidingWindow:
    """The last ``window`` positions, its own included.

    Source: Beltagy et al. 2020, arXiv:2004.05150; Mistral (Jiang et al. 2023, arXiv:2310.06825).
    """

    checks = {"window >= 1": "a window holds at least the position itself, and window={window}"}

    def __init__(self, window: int, /) -> None:
        self.span = window

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether a query at place ``i`` sees the key at place ``j``; broadcasts."""
        return (j <= i) & (i - j < self.span)
