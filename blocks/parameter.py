"""How a block's own parameters begin: at a fixed value, or drawn by the recipe's ``init``."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter


def constant(value: float, *shape: int) -> Parameter:
    """A parameter whose every entry is ``value`` at first."""
    parameter = Parameter(torch.full(shape, value))
    parameter.initial = value  # type: ignore[attr-defined]  # read when weights are drawn
    return parameter


def one_hot(place: int, count: int) -> Parameter:
    """A vector that is 1 at ``place`` and 0 elsewhere at first."""
    return starting_at(tuple(float(i == place) for i in range(count)))


def identity(count: int) -> Parameter:
    """A square matrix that is the identity at first."""
    return starting_at(tuple(tuple(float(i == j) for j in range(count)) for i in range(count)))


def starting_at(values: tuple[Any, ...]) -> Parameter:
    """A parameter whose entries are these at first, a tuple of tuples for a matrix."""
    parameter = Parameter(torch.tensor(values))
    parameter.initial = values  # type: ignore[attr-defined]
    return parameter


def drawn(*shape: int) -> Parameter:
    """A parameter that ``init`` draws, as it does every matrix."""
    return Parameter(torch.empty(shape))
