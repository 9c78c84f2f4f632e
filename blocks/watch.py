"""Who is told what attention weighs, while a model is looked into."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

WATCHERS: list[Callable[[Tensor], None]] = []  # each is given all weights, (B, heads, T, S)
