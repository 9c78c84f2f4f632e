"""What is compared: one of a cell's numbers, or the difference of two."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.errors import InputError
from builder.index import nearest
from builder.recipe import Recipe

MINUS = " - "
LENGTH = re.compile(r"(loss|accuracy|solved)@([1-9][0-9]*)")


@dataclass(frozen=True)
class Metric:
    """What is compared: its unit, which way is better, and the difference that does not matter."""

    name: str
    unit: str
    lower: bool
    margin: float

    def better(self, difference: float) -> bool:
        return difference < 0 if self.lower else difference > 0

    def value(self, numbers: Mapping[str, float]) -> float:
        """Of a cell."""
        first, *others = (numbers[part] for part in self.name.split(MINUS))
        return first - math.fsum(others)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Those at which a cell must be measured."""
        return lengths_in(self.name)


KNOWN = {
    metric.name: metric
    for metric in (
        Metric("loss", "nats", lower=True, margin=0.01),
        Metric("bits_per_byte", "bits per byte", lower=True, margin=0.005),
        Metric("accuracy", "", lower=False, margin=0.02),
        Metric("solved", "", lower=False, margin=0.0),
    )
}


def kind_of(part: str) -> str:
    """What is measured, at whatever length."""
    match = LENGTH.fullmatch(part)
    return match[1] if match else part


def is_metric(name: str) -> bool:
    """Whether a name is one, of whatever data."""
    return all(kind_of(part) in KNOWN for part in name.split(MINUS))


def lengths_in(name: str) -> tuple[int, ...]:
    found = (LENGTH.fullmatch(part) for part in name.split(MINUS))
    return tuple(int(match[2]) for match in found if match)


def metric_of(name: str, recipes: Sequence[Recipe], margin: float | None = None) -> Metric:
    """A metric by its name; of no name that which suits the recipes.  InputError if it is none, or
    they do not have it.
    """
    tasks = [recipe.data is not None and recipe.data.kind == "probe" for recipe in recipes]
    name = name or default(recipes, all(tasks))
    parts = name.split(MINUS)
    for part in parts:
        known = kind_of(part)
        if known not in KNOWN:
            near = nearest(part, KNOWN)
            help = f"did you mean {near!r}?" if near else f"{', '.join(KNOWN)}, loss@256, A - B"
            raise InputError("unknown-metric", f"{part!r} is no metric", help)
        if known in ("accuracy", "solved") and not all(tasks):
            raise InputError(
                "unknown-metric", f"{part!r} is of tasks, and the data is text", "loss"
            )
        if known == "bits_per_byte" and any(tasks):
            raise InputError("unknown-metric", f"{part!r} is of text, and the data a task", "loss")
    own = KNOWN[kind_of(parts[0])]
    return Metric(name, own.unit, own.lower, own.margin if margin is None else margin)


def default(recipes: Sequence[Recipe], tasks: bool) -> str:
    """Of tasks what is right; of texts the loss, over bytes where tokens differ."""
    if tasks:
        return "accuracy"
    tokens = {(repr(recipe.tokenizer), recipe.graph.vocab) for recipe in recipes}
    return "loss" if len(tokens) == 1 else "bits_per_byte"
