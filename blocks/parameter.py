"""How a block's own parameters begin: at a fixed value, or drawn by the recipe's ``init``."""

from __future__ import annotations

import torch
from torch.nn import Parameter


def constant(value: float, *shape: int) -> Parameter:
    """A parameter whose every entry is ``value`` at first."""
    parameter = Parameter(torch.full(shape, value))
    parameter.initial = value  # type: ignore[attr-defined]  # read when weights are drawn
    return parameter


def drawn(*shape: int) -> Parameter:
    """A parameter that ``init`` draws, as it does every matrix."""
    return Parameter(torch.empty(shape))
