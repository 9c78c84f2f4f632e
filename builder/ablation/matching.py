"""Variants at equal cost: one dim of each takes up what a swap saves or spends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count as count_from

from builder.ablation.named import TOLERANCE
from builder.ablation.swaps import Variant
from builder.errors import InputError, RecipeError
from builder.measure import Costs, count, measure
from builder.recipe import Recipe

LARGEST = 1 << 20  # that an absorbing dim may become
NEAR = 512  # numbers that are tried for the next one that the recipe takes


@dataclass(frozen=True)
class Matched:
    """A variant with its costs; ``residual`` is by how much of the base's its own is more."""

    variant: Variant
    costs: Costs
    residual: float | None = None
    absorbed: int | None = None


def cost_of(costs: Costs, match: str) -> float | None:
    """The one number that is to be equal; None if it is not known."""
    match match:
        case "params":
            return costs.parameters
        case "active-params":
            return costs.active_parameters
        case "flops":
            return costs.prefill
        case "kv-bytes":
            return costs.cache_bytes
    return None


def quick_cost(recipe: Recipe, match: str) -> float | None:
    """The same of a recipe, with no more counted than is asked for."""
    if match in ("params", "active-params"):
        return count(recipe)[match == "active-params"]
    return cost_of(measure(recipe, training=False), match)


def matched(
    variant: Variant,
    base: Costs,
    match: str,
    absorb: str = "",
    multiple: int = 1,
    tolerance: float = TOLERANCE,
) -> Matched:
    """The variant whose cost is nearest to the base's, over the values of ``absorb`` that its
    recipe takes, multiples of ``multiple``.  InputError if the nearest is too far off.
    """
    own = measure(variant.recipe)
    if match == "none":
        return Matched(variant, own)
    goal, start = cost_of(base, match), cost_of(own, match)
    if goal is None or start is None:
        message = f"the {match} of {variant.name!r} cannot be counted"
        raise InputError("unknown-cost", message, "--match params")
    found = Matched(variant, own, residual(start, goal))
    if start != goal and absorb:
        found = absorbed(found, goal, match, absorb, multiple)
    assert found.residual is not None
    if abs(found.residual) > tolerance:
        message = f"the {match} of {variant.name!r} are {told(found.residual)} of the base's"
        if found.absorbed is not None:
            message += f", with {absorb}={found.absorbed}, the nearest"
        help = f"--tolerance {abs(found.residual) * 1.01:.2g} allows it"
        raise InputError("no-match", message, help if absorb else f"--absorb dims.ff, or {help}")
    return found


def residual(cost: float, goal: float) -> float:
    return cost / goal - 1 if goal else float(cost != goal)


def told(share: float) -> str:
    return f"{100 * share:+.2f} %"


def absorbed(found: Matched, goal: float, match: str, absorb: str, multiple: int) -> Matched:
    """The nearest of the values that a dim may have, found by halving: costs grow with it."""
    start = current(found.variant.recipe, absorb)
    lattice = Lattice(found.variant, absorb, multiple)

    @cache
    def cost(value: int) -> float:
        held = lattice.recipe(value)
        assert held is not None
        number = quick_cost(held, match)
        assert number is not None
        return number

    next_value = lattice.above(start)
    if next_value is None or cost(next_value) == quick_cost(found.variant.recipe, match):
        message = f"{absorb} makes no difference to the {match} of {found.variant.name!r}"
        raise InputError("idle-absorb", message, "--absorb another dim, or --match none")
    around = bracket(lattice, cost, goal, start)
    values = [value for value in around if value is not None]
    best = min(values, key=lambda value: abs(cost(value) - goal))
    variant = found.variant.with_settings(f"{absorb}={best}")
    costs = measure(variant.recipe)
    number = cost_of(costs, match)
    assert number is not None
    return Matched(variant, costs, residual(number, goal), best)


def current(recipe: Recipe, path: str) -> int:
    """The number that a dim has now.  InputError if it is no dim, or no whole number."""
    room, _, name = path.partition(".")
    value = recipe.dims[name] if room == "dims" and name in recipe.dims else None
    if not isinstance(value, int):
        message = f"{path!r} is no dim of {recipe.name!r} with one whole number"
        raise InputError("not-a-dim", message, "for instance --absorb dims.ff")
    return value


@dataclass(frozen=True)
class Lattice:
    """The values that a recipe takes for one of its dims."""

    variant: Variant
    path: str
    multiple: int

    def recipe(self, value: int) -> Recipe | None:
        """The recipe with this value; None if it refuses it."""
        try:
            return self.variant.with_settings(f"{self.path}={value}").recipe
        except RecipeError:
            return None

    def at_most(self, value: int) -> int | None:
        """The greatest that is taken, up to a value."""
        first = value - value % self.multiple
        tried = range(first, max(0, first - NEAR * self.multiple), -self.multiple)
        return next((one for one in tried if self.recipe(one) is not None), None)

    def above(self, value: int) -> int | None:
        """The least that is taken, above a value."""
        first = value - value % self.multiple + self.multiple
        tried = range(first, first + NEAR * self.multiple, self.multiple)
        return next((one for one in tried if self.recipe(one) is not None), None)


def bracket(
    lattice: Lattice, cost: Callable[[int], float], goal: float, start: int
) -> tuple[int | None, int | None]:
    """The last value whose cost is not above the goal, and the first whose cost is."""
    low, high = lattice.at_most(start), lattice.above(start)
    step = lattice.multiple
    while high is not None and high <= LARGEST and cost(high) <= goal:
        low, step = high, 2 * step
        high = lattice.above(high + step)
    while low is not None and cost(low) > goal:
        high, step = low, 2 * step
        lower = lattice.at_most(low - step) or lattice.above(0)
        low = lower if lower is not None and lower < high else None
    for turn in count_from(0):
        if low is None or high is None:
            break
        share = (goal - cost(low)) / (cost(high) - cost(low)) if turn % 2 else 0.5
        guess = low + int(share * (high - low))  # by a line, and by halves where it is none
        middle = lattice.at_most(guess)
        if middle is None or middle <= low:
            middle = lattice.above(guess)
        if middle is None or not low < middle < high:
            break
        low, high = (middle, high) if cost(middle) <= goal else (low, middle)
    return low, high
