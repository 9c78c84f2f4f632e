"""Dims, and the numbers that a recipe writes as expressions of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias

from builder.errors import Finding, Mark, Source
from builder.expressions import ExpressionError, Name, evaluate, parse, walk
from builder.expressions import names as names_in
from builder.index import nearest
from builder.origins import Origin, Step, brief, notes, suspect, trace
from builder.read import Mapping, Scalar, Sequence, Value

Number: TypeAlias = int | float
FAULTY = object()  # an argument that could not be read; its finding is written


@dataclass(frozen=True)
class Place:
    """Where an expression is read: at which layer of how many, beside which sizes of its leaf.

    ``name`` is what it is the number of, ``reader`` the word that asks for it, and where that
    stands; ``through`` holds the dims whose own expressions led here.
    """

    layer: int | None = None
    layers: int | None = None
    own: MappingType[str, object] = field(default_factory=dict)
    origins: MappingType[str, Origin] = field(default_factory=dict)
    name: str = ""
    reader: tuple[str, Mark] | None = None
    through: tuple[str, ...] = ()

    @property
    def read_here(self) -> tuple[str, ...]:
        """A note of who reads a dim, for a fault that stands among the dims."""
        if self.reader is None:
            return ()
        return (f"read by {self.reader[0]!r} at {self.reader[1]}",)


NOWHERE = Place()


class _Fault(Exception):
    """An expression that has no value; the finding is already written."""


@dataclass
class Numbers:
    """Evaluates numbers against a page's dims.  ``read`` collects the dims that were looked up."""

    dims: MappingType[str, tuple[Mark, Value]]
    findings: list[Finding]
    read: set[str] = field(default_factory=set)
    base: Source | None = None  # of the page under all that extends and sets
    values: dict[object, Number] = field(default_factory=dict)  # of dims, by how they are read

    def number(self, value: Value, place: Place = NOWHERE) -> Number | None:
        """A number, or an expression's value; else a finding, and None."""
        try:
            return self._outermost(lambda: self._value(value, place), value, place)
        except _Fault:
            return None

    def whole(self, value: Value, place: Place = NOWHERE, at_least: int = 0) -> int | None:
        """A whole number; else a finding, and None."""
        try:
            number = self._outermost(lambda: self._value(value, place), value, place)
            if isinstance(number, int) and number >= at_least:
                return number
        except _Fault:
            return None
        shown = _shown(value, number, place.name)
        if isinstance(number, int):
            message, help = f"{shown} is below {at_least}", f"write {at_least} or more"
            self._report("too-small", message, value, number, place, help)
        else:
            message, help = f"{shown} is not a whole number", _whole_help(value, number)
            self._report("not-whole", message, value, number, place, help)
        return None

    def _report(
        self, code: str, message: str, value: Value, number: Number, place: Place, help: str
    ) -> None:
        """A finding at what was written, or at a number behind it that was changed since."""
        whole = Step(place.name or "it", number, Origin(value))
        steps = [whole, *self._behind(value, place)]
        fault = suspect(steps, self.base)
        mark, told = value.mark, tuple(notes(steps, fault))
        if fault is not None and fault is not whole and fault.origin.value is not None:
            mark, help = fault.origin.value.mark, f"{help} for {whole.name}"
            told += place.read_here
        self.findings.append(Finding(code, message, mark, help, told))

    def dim(self, name: str, place: Place = NOWHERE) -> tuple[Value, Number | None]:
        """One of the dims as it is read at a place, with what is written there."""
        _, value = self.dims[name]
        try:
            number = self._outermost(lambda: self._dim(name, (), place, value), value, place)
            return value, number
        except _Fault:
            return value, None

    def _outermost(self, number: Callable[[], Number], value: Value, place: Place) -> Number:
        try:
            return number()
        except RecursionError:
            message = "the dims that this follows from are defined by each other too often"
            self._fail("too-deep", message, value.mark, place, "give some of them a number")

    def _fail(self, code: str, message: str, mark: Mark, place: Place, help: str = "") -> NoReturn:
        reader = place.read_here if place.through else ()
        self.findings.append(Finding(code, message, mark, help, reader))
        raise _Fault

    def _behind(self, value: Value, place: Place) -> list[Step]:
        """The numbers that an expression reads, and those that they follow from."""
        written = getattr(value, "value", None)
        read = names_in(parse(written)) if isinstance(written, str) else frozenset()
        known = {**dict.fromkeys(read), **place.own}
        steps = trace(read, known, place.origins, self.dims)
        return [replace(step, distance=step.distance + 1) for step in steps]

    def _value(self, value: Value, place: Place) -> Number:
        written = value.value if isinstance(value, Scalar) else None
        if isinstance(written, int | float) and not isinstance(written, bool):
            return written
        if not isinstance(written, str):
            help = "write a number, or an expression such as 4 * dim"
            self._fail("not-a-number", f"{_what(value)} is not a number", value.mark, place, help)
        try:
            return evaluate(parse(written), lambda name, args: self._name(name, args, place, value))
        except ExpressionError as error:
            mark = value.mark if error.offset is None else _within(value, error.offset, 1)
            self._fail("bad-expression", str(error), mark, place, error.help)

    def _name(self, name: str, args: tuple[Number, ...], place: Place, value: Value) -> Number:
        own = place.own.get(name)
        if own is FAULTY and not args:
            raise _Fault  # it is told already
        if isinstance(own, int | float) and not args:
            return own
        if name in ("layer", "layers") and not args:
            number: int | None = getattr(place, name)
            if number is None:
                message = f"{name!r} is read outside every layer"
                help = "only what stands in a repeat, or beside a mixer, is in a layer"
                self._fail("no-layer", message, _named(name, value), place, help)
            return number
        if name not in self.dims:
            known = list(dict.fromkeys([*self.dims, *(n for n in place.own if n != "name")]))
            near = nearest(name, known)
            help = f"did you mean {near!r}?" if near else "dims: " + (", ".join(known) or "none")
            self._fail("unknown-name", f"{name!r} is not a dim", _named(name, value), place, help)
        return self._dim(name, args, place, value)

    def _dim(self, name: str, args: tuple[Number, ...], place: Place, reader: Value) -> Number:
        self.read.add(name)
        key = name, args, place.layer, place.layers
        if key not in self.values:
            self.values[key] = self._dim_value(name, args, place, reader)
        return self.values[key]

    def _dim_value(
        self, name: str, args: tuple[Number, ...], place: Place, reader: Value
    ) -> Number:
        if name in place.through:
            cycle = " -> ".join([*place.through[place.through.index(name) :], name])
            message = f"dim {name!r} is defined by itself: {cycle}"
            self._fail("dim-cycle", message, self.dims[name][0], place, "give one of them a number")
        value = self.dims[name][1]
        if isinstance(value, Sequence):
            value = self._entry(name, value, args, place, reader)
        elif args:
            message = f"dim {name!r} is one number, not a list to look up"
            help = f"write {name} alone, or dims: {{{name}: [..., ...]}}"
            self._fail("not-a-list", message, _named(name, reader), place, help)
        through = (*place.through, name)
        return self._value(value, replace(place, own={}, origins={}, through=through))

    def _entry(
        self,
        name: str,
        value: Sequence,
        args: tuple[Number, ...],
        place: Place,
        reader: Value,
    ) -> Value:
        at = args[0] if args else place.layer
        if at is None:
            message = f"dim {name!r} is a list, one number a layer, and is read outside every layer"
            help = f"say which, as in {name}(0), or give the leaf its {place.name or name}"
            self._fail("no-layer", message, value.mark, replace(place, through=(name,)), help)
        if isinstance(at, int) and 0 <= at < len(value):
            return value.items[at]
        if not args:
            message = (
                f"dim {name!r} holds {len(value)} numbers, and the model has {place.layers} layers"
            )
            help = f"write {place.layers} numbers, one a layer"
            self._fail("list-too-short", message, value.mark, replace(place, through=(name,)), help)
        message = f"{name}({brief(at)}) is read, and dim {name!r} holds {len(value)} numbers"
        help = f"they count from 0: the last is {name}({len(value) - 1})"
        self._fail("list-too-short", message, _named(name, reader), place, help)


def quoted(scalar: Scalar) -> str:
    """A scalar as its author wrote it, in quotes."""
    words = {"True": "true", "False": "false", "None": "null"}
    return repr(words.get(repr(scalar.value), scalar.value))


def _what(value: Value) -> str:
    return quoted(value) if isinstance(value, Scalar) else collection(value)


def collection(value: Value) -> str:
    """What a value is, where it should be something else."""
    return "a list" if isinstance(value, Sequence) else "a map"


def _shown(value: Value, number: Number, name: str) -> str:
    """``ff=-1``, or ``ff = dim / 3 = 2.66667``; without its name if that is not known."""
    written = getattr(value, "value", number)
    parts = [name, *([] if written == number else [str(written)]), brief(number)]
    return ("=" if len(parts) == 2 else " = ").join(part for part in parts if part)


def _whole_help(value: Value, number: Number) -> str:
    """Two ways to round that would be accepted."""
    below, above = math.floor(number), math.ceil(number)
    written = getattr(value, "value", number)
    if isinstance(written, str):
        quotes = '"' if "," in written else ""  # which YAML would end at its comma
        ceil, floor = (f"{quotes}{f}({written}){quotes}" for f in ("ceil", "floor"))
        return f"{ceil} is {above}, {floor} is {below}"
    return f"write {above}" if below < 1 else f"write {below} or {above}"


def _named(name: str, value: Value) -> Mark:
    """The place of a name in the expression that reads it."""
    tree = parse(str(getattr(value, "value", "")))
    for node in walk(tree):
        if name == (node.name if isinstance(node, Name) else getattr(node, "function", None)):
            return _within(value, node.at, len(name))
    return value.mark


def _within(value: Value, offset: int, width: int) -> Mark:
    """A place inside a scalar, if it is written on one line as it is read."""
    mark, text = value.mark, getattr(value, "value", None)
    for quotes in (0, 1):
        if mark.text[quotes : len(mark.text) - quotes] == text:
            return replace(mark, column=mark.column + quotes + offset, width=width)
    return mark


def page_dims(value: Value | None, findings: list[Finding]) -> dict[str, tuple[Mark, Value]]:
    """The dims of a page: a number, an expression, or a list of one for each layer."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        findings.append(
            Finding(
                "not-a-map",
                "'dims' is a map of names and numbers",
                value.mark,
                "for instance dims: {dim: 512}",
            )
        )
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
            help = "a dim is a number, an expression, or a list of one for each layer"
            findings.append(Finding("not-a-number", f"dim {name!r} is a map", number.mark, help))
        else:
            dims[name] = (key.mark, number)
    return dims
