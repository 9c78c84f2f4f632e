"""Dims, and the numbers that a recipe writes as expressions of them."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from builder.errors import Finding, Mark
from builder.expressions import ExpressionError, evaluate, parse
from builder.index import nearest
from builder.read import Mapping, Scalar, Sequence, Value

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Place:
    """Where an expression is read: at which layer of how many, beside which sizes of its leaf."""

    layer: int | None = None
    layers: int | None = None
    own: MappingType[str, object] = field(default_factory=dict)


class _Fault(Exception):
    """An expression that has no value; the finding is already written."""


@dataclass
class Numbers:
    """Evaluates numbers against a page's dims.  ``read`` collects the dims that were looked up."""

    dims: MappingType[str, tuple[Mark, Value]]
    findings: list[Finding]
    read: set[str] = field(default_factory=set)

    def number(self, value: Value, place: Place = Place()) -> Number | None:
        """A number, or an expression's value; else a finding, and None."""
        try:
            return self._value(value, place, ())
        except _Fault:
            return None

    def whole(self, value: Value, place: Place = Place(), at_least: int = 0) -> int | None:
        """A whole number; else a finding, and None."""
        number = self.number(value, place)
        if number is None:
            return None
        if not isinstance(number, int):
            self._report("not-whole", f"{_shown(value, number)} is not a whole number", value.mark)
            return None
        if number < at_least:
            self._report("too-small", f"{_shown(value, number)} is below {at_least}", value.mark)
            return None
        return number

    def dim(self, name: str, place: Place = Place()) -> tuple[Value, Number | None] | None:
        """A dim as it is read at a place, with what is written there; None if there is none."""
        if name not in self.dims:
            return None
        _, value = self.dims[name]
        try:
            return value, self._dim(name, (), place, (), value.mark)
        except _Fault:
            return value, None

    def _report(self, code: str, message: str, mark: Mark, help: str = "") -> None:
        self.findings.append(Finding(code, message, mark, help))

    def _value(self, value: Value, place: Place, through: tuple[str, ...]) -> Number:
        if (
            isinstance(value, Scalar)
            and isinstance(value.value, int | float)
            and not isinstance(value.value, bool)
        ):
            return value.value
        if not isinstance(value, Scalar) or not isinstance(value.value, str):
            shown = quoted(value) if isinstance(value, Scalar) else "this"
            self._report("not-a-number", f"{shown} is not a number", value.mark)
            raise _Fault
        try:
            return evaluate(
                parse(value.value),
                lambda name, args: self._name(name, args, place, through, value.mark),
            )
        except ExpressionError as error:
            mark = value.mark
            if error.offset is not None and value.plain:
                mark = replace(mark, column=mark.column + error.offset, width=1)
            self._report("bad-expression", str(error), mark, error.help)
            raise _Fault from None

    def _name(
        self,
        name: str,
        args: tuple[Number, ...],
        place: Place,
        through: tuple[str, ...],
        mark: Mark,
    ) -> Number:
        own = place.own.get(name)
        if isinstance(own, int | float) and not args:
            return own
        if name in ("layer", "layers") and not args:
            number: int | None = getattr(place, name)
            if number is None:
                self._report(
                    "no-layer",
                    f"{name!r} is read outside every layer",
                    mark,
                    "it stands inside blocks",
                )
                raise _Fault
            return number
        if name not in self.dims:
            near = nearest(name, [*self.dims, *place.own])
            self._report(
                "unknown-name",
                f"{name!r} is not a dim",
                mark,
                f"did you mean {near!r}?" if near else "",
            )
            raise _Fault
        return self._dim(name, args, place, through, mark)

    def _dim(
        self,
        name: str,
        args: tuple[Number, ...],
        place: Place,
        through: tuple[str, ...],
        mark: Mark,
    ) -> Number:
        self.read.add(name)
        if name in through:
            cycle = " -> ".join([*through[through.index(name) :], name])
            self._report(
                "dim-cycle", f"dim {name!r} is defined by itself: {cycle}", self.dims[name][0]
            )
            raise _Fault
        value = self.dims[name][1]
        if isinstance(value, Sequence):
            value = self._entry(name, value, args, place, mark)
        elif args:
            self._report("not-a-list", f"dim {name!r} is one number, not a list to look up", mark)
            raise _Fault
        return self._value(value, replace(place, own={}), (*through, name))

    def _entry(
        self, name: str, value: Sequence, args: tuple[Number, ...], place: Place, mark: Mark
    ) -> Value:
        at = args[0] if args else place.layer
        if at is None:
            message = f"dim {name!r} is a list, one number a layer, and is read outside every layer"
            self._report("no-layer", message, mark)
            raise _Fault
        if not isinstance(at, int) or not 0 <= at < len(value):
            message = f"dim {name!r} holds {len(value)} numbers, and number {at} is read (from 0)"
            self._report("list-too-short", message, mark)
            raise _Fault
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
