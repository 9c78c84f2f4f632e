"""Dims, and the numbers that a recipe writes as expressions of them."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias

from builder.errors import Finding, Mark
from builder.expressions import ExpressionError, evaluate, parse
from builder.index import nearest
from builder.read import Mapping, Scalar, Sequence, Value

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Place:
    """Where an expression is read: at which layer of how many, beside which sizes of its leaf.

    ``through`` holds the dims whose own expressions led here.
    """

    layer: int | None = None
    layers: int | None = None
    own: MappingType[str, object] = field(default_factory=dict)
    through: tuple[str, ...] = ()


NOWHERE = Place()


class _Fault(Exception):
    """An expression that has no value; the finding is already written."""


@dataclass
class Numbers:
    """Evaluates numbers against a page's dims.  ``read`` collects the dims that were looked up."""

    dims: MappingType[str, tuple[Mark, Value]]
    findings: list[Finding]
    read: set[str] = field(default_factory=set)

    def number(self, value: Value, place: Place = NOWHERE) -> Number | None:
        """A number, or an expression's value; else a finding, and None."""
        try:
            return self._value(value, place)
        except _Fault:
            return None

    def whole(self, value: Value, place: Place = NOWHERE, at_least: int = 0) -> int | None:
        """A whole number; else a finding, and None."""
        try:
            number = self._value(value, place)
            if not isinstance(number, int):
                self._fail(
                    "not-whole", f"{_shown(value, number)} is not a whole number", value.mark
                )
            if number < at_least:
                self._fail("too-small", f"{_shown(value, number)} is below {at_least}", value.mark)
            return number
        except _Fault:
            return None

    def dim(self, name: str, place: Place = NOWHERE) -> tuple[Value, Number | None] | None:
        """A dim as it is read at a place, with what is written there; None if there is none."""
        if name not in self.dims:
            return None
        _, value = self.dims[name]
        try:
            return value, self._dim(name, (), place, value.mark)
        except _Fault:
            return value, None

    def _fail(self, code: str, message: str, mark: Mark, help: str = "") -> NoReturn:
        self.findings.append(Finding(code, message, mark, help))
        raise _Fault

    def _value(self, value: Value, place: Place) -> Number:
        written = value.value if isinstance(value, Scalar) else None
        if isinstance(written, int | float) and not isinstance(written, bool):
            return written
        if not isinstance(written, str):
            shown = quoted(value) if isinstance(value, Scalar) else "this"
            self._fail("not-a-number", f"{shown} is not a number", value.mark)
        try:
            return evaluate(
                parse(written), lambda name, args: self._name(name, args, place, value.mark)
            )
        except ExpressionError as error:
            mark = value.mark
            if error.offset is not None and getattr(value, "plain", False):
                mark = replace(mark, column=mark.column + error.offset, width=1)
            self._fail("bad-expression", str(error), mark, error.help)

    def _name(self, name: str, args: tuple[Number, ...], place: Place, mark: Mark) -> Number:
        own = place.own.get(name)
        if isinstance(own, int | float) and not args:
            return own
        if name in ("layer", "layers") and not args:
            number: int | None = getattr(place, name)
            if number is None:
                message = f"{name!r} is read outside every layer"
                self._fail("no-layer", message, mark, "it stands inside blocks")
            return number
        if name not in self.dims:
            near = nearest(name, [*self.dims, *place.own])
            help = f"did you mean {near!r}?" if near else ""
            self._fail("unknown-name", f"{name!r} is not a dim", mark, help)
        return self._dim(name, args, place, mark)

    def _dim(self, name: str, args: tuple[Number, ...], place: Place, mark: Mark) -> Number:
        self.read.add(name)
        if name in place.through:
            cycle = " -> ".join([*place.through[place.through.index(name) :], name])
            message = f"dim {name!r} is defined by itself: {cycle}"
            self._fail("dim-cycle", message, self.dims[name][0])
        value = self.dims[name][1]
        if isinstance(value, Sequence):
            value = self._entry(name, value, args, place, mark)
        elif args:
            message = f"dim {name!r} is one number, not a list to look up"
            self._fail("not-a-list", message, mark)
        return self._value(value, replace(place, own={}, through=(*place.through, name)))

    def _entry(
        self, name: str, value: Sequence, args: tuple[Number, ...], place: Place, mark: Mark
    ) -> Value:
        at = args[0] if args else place.layer
        if at is None:
            message = f"dim {name!r} is a list, one number a layer, and is read outside every layer"
            self._fail("no-layer", message, mark)
        if not isinstance(at, int) or not 0 <= at < len(value):
            message = f"dim {name!r} holds {len(value)} numbers, and number {at} is read (from 0)"
            self._fail("list-too-short", message, mark)
        return value.items[at]


def quoted(scalar: Scalar) -> str:
    """A scalar as its author wrote it, in quotes."""
    words = {"True": "true", "False": "false", "None": "null"}
    return repr(words.get(repr(scalar.value), scalar.value))


def _shown(value: Value, number: Number) -> str:
    written = getattr(value, "value", number)
    return f"{number}" if written == number else f"{written!r} = {number}"


def page_dims(value: Value | None, findings: list[Finding]) -> dict[str, tuple[Mark, Value]]:
    """The dims of a page: a number, an expression, or a list of one for each layer."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        findings.append(Finding("not-a-map", "'dims' is a map of names and numbers", value.mark))
        return {}
    dims: dict[str, tuple[Mark, Value]] = {}
    for key, number in value:
        name = str(key.value)
        if name in ("layer", "layers"):
            findings.append(
                Finding(
                    "reserved-word", f"{name!r} cannot be a dim", key.mark, "it counts the layers"
                )
            )
        elif isinstance(number, Mapping):
            findings.append(Finding("not-a-number", f"dim {name!r} is a map", number.mark))
        else:
            dims[name] = (key.mark, number)
    return dims
