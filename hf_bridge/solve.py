"""Export, step two: equations between a formula and a number, solved for their one unknown field.

Arithmetic is inverted; conditions on the layer are tried, or collected where they ask for a list,
over the whole column of layers.  Whatever is found is put back and must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from builder.errors import Mark
from builder.expressions import (
    Binary,
    Call,
    Expression,
    ExpressionError,
    Hole,
    In,
    Name,
    Negate,
    evaluate,
    walk,
)
from hf_bridge.family import Family
from hf_bridge.scope import Key, Scope
from hf_bridge.template import Formula, Template, holes, same


@dataclass(frozen=True)
class Equation:
    """A formula of a family's recipe, and what the graph has in its place."""

    text: str
    tree: Expression
    value: Any
    layer: int | None
    place: str = ""
    mark: Mark | None = None


class NoSolution(Exception):
    """No value of the config gives what the graph has in the equation's place."""

    def __init__(self, equation: Equation, field: str = "") -> None:
        self.equation = equation
        self.wanted = f"no {field} with {equation.text}" if field else equation.text
        super().__init__(f"{equation.place}: {equation.value} is not {equation.text}")


def solve(
    bound: Mapping[Key, Any], equations: tuple[Equation, ...], family: Family, layers: int
) -> dict[Key, Any]:
    """The bindings with every field that the equations tell; NoSolution if they contradict."""
    found = dict(bound)
    left = [replace(e, tree=_without_dims(e.tree, family.dims)) for e in equations]
    while left:
        ready = [e for e in left if len(_unknown(e, found)) <= 1]
        if not ready:
            raise NoSolution(left[0], " or ".join(sorted(_unknown(left[0], found))))
        unknown = _unknown(ready[0], found)
        if unknown:
            (field,) = unknown
            group = [e for e in left if _unknown(e, found) == {field}]
            default = family.config[field].value if field in family.config else None
            found[field, None] = _solution(field, group, found, layers, default)
        else:
            _check(ready[0], found, layers)
            left.remove(ready[0])
    return found


def _unknown(equation: Equation, found: Mapping[Key, Any]) -> set[str]:
    indexed = (
        (hole.path, None if hole.index is None else equation.layer) for hole in holes(equation.tree)
    )
    return {path for path, layer in indexed if not {(path, layer), (path, None)} & found.keys()}


def _without_dims(tree: Expression, dims: Mapping[str, Template]) -> Expression:
    """An expression with each dim's own formula in the place of its name."""
    match tree:
        case Name(name) if isinstance(formula := dims.get(name), Formula):
            return _without_dims(formula.tree, dims)
        case Binary(_, left, right):
            return replace(tree, left=_without_dims(left, dims), right=_without_dims(right, dims))
        case Negate(operand):
            return replace(tree, operand=_without_dims(operand, dims))
        case Call(_, args):
            return replace(tree, args=tuple(_without_dims(arg, dims) for arg in args))
    return tree


def _scope(equation: Equation, found: Mapping[Key, Any], layers: int) -> Scope:
    return Scope(found, layers, equation.layer)


def _agrees(equation: Equation, found: Mapping[Key, Any], layers: int) -> bool:
    try:
        value = _scope(equation, found, layers).evaluate(equation.tree)
    except ExpressionError:
        return False
    if isinstance(value, float) or isinstance(equation.value, float):
        return bool(abs(value - equation.value) <= math.ulp(equation.value))
    return same(value, equation.value)


def _check(equation: Equation, found: Mapping[Key, Any], layers: int) -> None:
    if not _agrees(equation, found, layers):
        raise NoSolution(equation)


def _solution(
    field: str, group: list[Equation], found: Mapping[Key, Any], layers: int, default: Any
) -> Any:
    """The first value of the field that every equation in the group accepts."""
    first = group[0]
    if isinstance(first.value, bool):
        candidates = _from_truths(field, group, found, layers)
    else:
        candidates = _inverted(field, first, found, layers, whole=isinstance(default, int))
    for candidate in candidates:
        if all(_agrees(e, {**found, (field, None): candidate}, layers) for e in group):
            return candidate
    raise NoSolution(first, field)


def _from_truths(
    field: str, group: list[Equation], found: Mapping[Key, Any], layers: int
) -> Iterator[Any]:
    """A list of the items that are in it, or the whole numbers up to the depth."""
    asked = [
        (tree.item, e)
        for e in group
        for tree in walk(e.tree)
        if isinstance(tree, In) and isinstance(tree.items, Hole) and tree.items.path == field
    ]
    if asked:
        yield [_scope(e, found, layers).evaluate(item) for item, e in asked if e.value is True]
    else:
        yield from range(layers + 1)


def _inverted(
    field: str, equation: Equation, found: Mapping[Key, Any], layers: int, *, whole: bool
) -> Iterator[Any]:
    scope = _scope(equation, found, layers)
    target: Any = Fraction(equation.value)
    try:
        value = _undo(equation.tree, target, scope)
    except (ExpressionError, ZeroDivisionError, ValueError, OverflowError):
        return
    if whole or value == round(value):
        yield round(value)
    if not whole:
        nearest = float(value)
        yield from (nearest, math.nextafter(nearest, math.inf), math.nextafter(nearest, -math.inf))


def _undo(tree: Expression, target: Any, scope: Scope) -> Any:
    """What the hole in a tree must be for the tree to be the target."""

    match tree:
        case Hole():
            return target
        case Negate(operand):
            return _undo(operand, -target, scope)
        case Call("sqrt", (inner,)):
            return _undo(inner, target**2, scope)
        case Binary(op, left, right) if _is_known(right, scope):
            return _undo(left, _left_of(op, target, _number(right, scope)), scope)
        case Binary(op, left, right) if _is_known(left, scope):
            return _undo(right, _right_of(op, target, _number(left, scope)), scope)
    raise ValueError(f"cannot be undone: {type(tree).__name__}")


def _is_known(side: Expression, scope: Scope) -> bool:
    return scope.known(Formula("", side)) is not None


def _number(side: Expression, scope: Scope) -> Any:
    return Fraction(evaluate(side, scope.lookup))


def _left_of(op: str, target: Any, right: Any) -> Any:
    """The x of ``x op right = target``."""
    match op:
        case "+":
            return target - right
        case "-":
            return target + right
        case "*":
            return target / right
        case "/":
            return target * right
        case "**":
            return math.pow(target, 1 / right)
    raise ValueError(f"{op} cannot be undone")


def _right_of(op: str, target: Any, left: Any) -> Any:
    """The x of ``left op x = target``."""
    match op:
        case "+":
            return target - left
        case "-":
            return left - target
        case "*":
            return target / left
        case "/":
            return left / target
        case "**":
            return math.log(target) / math.log(left)
    raise ValueError(f"{op} cannot be undone")
