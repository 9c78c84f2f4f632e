"""What is written under a registered word -> its arguments, by the types of its signature.

A size is what the leaf says, else the dim of that name, else the signature's own default; a value
or an option is what the leaf says, else its default.

"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from typing import Any

from builder.edit import as_written
from builder.errors import Finding, Mark
from builder.expand import given
from builder.expressions import ExpressionError, holds, parse
from builder.expressions import names as names_in
from builder.graph import Filler, Node
from builder.index import (
    REQUIRED,
    Entry,
    Index,
    MakerDefault,
    Parameter,
    SizeDefault,
    Type,
    nearest,
)
from builder.numbers import Numbers, Place, quoted
from builder.read import Mapping, Scalar, Sequence, Value

FAULTY = object()  # an argument that could not be read; its finding is written


@dataclass(frozen=True)
class Word:
    """A registered word as it is written: where, with what under it, and what is known of it so
    far.
    """

    entry: Entry
    written: MappingType[str, Value]
    mark: Mark
    layer: int | None
    layers: int | None
    known: dict[str, Any]  # arguments by name; of a slot's filler, its parent's too

    @property
    def place(self) -> Place:
        return Place(self.layer, self.layers, self.known)


@dataclass
class Arguments:
    """Reads arguments against a page's dims; ``node`` resolves a node that a leaf holds."""

    index: Index
    numbers: Numbers
    findings: list[Finding]
    node: Callable[[Value, Word], Node | None]

    def report(self, code: str, message: str, mark: Mark, help: str = "") -> None:
        self.findings.append(Finding(code, message, mark, help))

    def fill(self, word: Word, skipped: frozenset[str] = frozenset()) -> None:
        """Read every argument into ``word.known``, but for those that the parent gives."""
        for parameter in word.entry.parameters:
            if parameter.name not in skipped:
                word.known[parameter.name] = self._argument(parameter, word)

    def check(self, word: Word) -> None:
        """Hold a word, and what fills its slots, to the laws that their classes state."""
        self._hold(word.entry, word.known, word)
        for value in list(word.known.values()):
            if isinstance(value, Filler):
                entry = self.index.filler(value.kind, value.word)
                inside = replace(word, written={}, mark=value.mark or word.mark)
                self._hold(entry, {**word.known, **dict(value.options)}, inside)

    def section(self, value: Value, kind: str) -> Filler | None:
        """What fills a slot of the page itself: its sizes are dims."""
        entry, under, mark = self._chosen(value, Type("slot", slot=kind))
        return None if entry is None else self.filled(entry, under, mark)

    def filled(self, entry: Entry, under: Value | None, mark: Mark) -> Filler:
        """A filler of the page itself; it may hold itself to the model's context."""
        known = {"context": found[1] if (found := self.numbers.dim("context")) else None}
        word = Word(entry, given(entry, under, self.findings, ()), mark, None, None, known)
        self.fill(word)
        self._hold(entry, word.known, word)
        return _filler(word, frozenset())

    def _argument(self, parameter: Parameter, word: Word) -> Any:
        value = word.written.get(parameter.name)
        if value is not None:
            return self._value(value, parameter.type, word, size=parameter.role == "size")
        if parameter.role == "size" and (found := self.numbers.dim(parameter.name, word.place)):
            written, number = found
            if number is None or (isinstance(number, int) and number >= 1):
                return FAULTY if number is None else number
            message = f"dim {parameter.name!r} is {number}, which is no size"
            self.report("not-a-size", message, written.mark, "a size is a whole number from 1")
            return FAULTY
        return self._default(parameter, word)

    def _default(self, parameter: Parameter, word: Word) -> Any:
        name, default = word.entry.word, parameter.default
        if default is REQUIRED:
            where = ", nor does dims" if parameter.role == "size" else ""
            message = f"{name!r} is not given its {parameter.name}{where}"
            self.report(
                "missing-option", message, word.mark, f"{{{name}: {{{parameter.name}: ...}}}}"
            )
            return FAULTY
        if isinstance(default, MakerDefault):
            return self._value(as_written(default, word.mark), parameter.type, word)
        if not isinstance(default, SizeDefault):
            return default
        if any(word.known.get(used) is FAULTY for used in names_in(parse(default.expression))):
            return FAULTY
        number = self.numbers.number(Scalar(default.expression, word.mark), word.place)
        if number is None or isinstance(number, int):
            return FAULTY if number is None else number
        message = f"{parameter.name} = {default.expression} = {number} is not a whole number"
        self.report("not-whole", message, word.mark, f"give {name!r} a {parameter.name}")
        return FAULTY

    def _value(self, value: Value, type: Type, word: Word, size: bool = False) -> Any:
        """What is written for an argument, by its type; a finding where it does not fit."""
        if type.optional and isinstance(value, Scalar) and value.value == "none":
            return None
        match type.base:
            case "slot":
                return self._slot(value, type, word) or FAULTY
            case "node":
                return self.node(value, word) or FAULTY
            case "int":
                whole = self.numbers.whole(value, word.place, 1 if size else -(2**63))
                return FAULTY if whole is None else whole
            case "float":
                number = self.numbers.number(value, word.place)
                return FAULTY if number is None else float(number)
            case "list":
                return self._list(value, type, word)
        written = value.value if isinstance(value, Scalar) else FAULTY
        if type.base == "bool":
            return written if isinstance(written, bool) else self._misfit("true or false", value)
        if type.base == "literal":
            return written if written in type.choices else self._no_choice(value, type)
        return written if isinstance(written, str) else self._misfit("a word", value)

    def _list(self, value: Value, type: Type, word: Word) -> Any:
        if not isinstance(value, Sequence) or type.item is None:
            return self._misfit("a list", value)
        items = tuple(self._value(item, type.item, word) for item in value)
        return FAULTY if FAULTY in items else items

    def _no_choice(self, value: Value, type: Type) -> Any:
        choices = [str(choice) for choice in type.choices]
        near = nearest(str(getattr(value, "value", "")), choices)
        help = f"did you mean {near!r}?" if near else ""
        return self._misfit("one of " + ", ".join(choices), value, help)

    def _misfit(self, wanted: str, value: Value, help: str = "") -> Any:
        match value:
            case Scalar():
                shown = quoted(value)
            case Mapping():
                shown = "a map"
            case Sequence():
                shown = "a list"
        self.report("bad-value", f"{shown} is not {wanted}", value.mark, help)
        return FAULTY

    def _slot(self, value: Value, type: Type, word: Word) -> Filler | None:
        """What fills a leaf's slot: its sizes are given by the leaf, and never written."""
        entry, under, mark = self._chosen(value, type)
        if entry is None:
            return None
        sizes = frozenset(p.name for p in entry.sizes)
        written = given(entry, under, self.findings, sizes)
        inside = replace(word, entry=entry, written=written, mark=mark, known=dict(word.known))
        self.fill(inside, sizes)
        return _filler(inside, sizes)

    def _chosen(self, value: Value, type: Type) -> tuple[Entry | None, Value | None, Mark]:
        """The word that fills a slot, and what is written under it."""
        key: Value = value
        under: Value | None = None
        if isinstance(value, Mapping) and len(value) == 1:
            key, under = value.entries[0]
        if not isinstance(key, Scalar):
            message = f"a {type.slot} is one word, or one word with its options"
            self.report("not-a-filler", message, value.mark)
            return None, None, value.mark
        words = list(self.index.words(type.slot))
        if key.value in words:
            return self.index.filler(type.slot, str(key.value)), under, key.mark
        near = nearest(str(key.value), words)
        legal = f"{type.slot}: " + ", ".join([*words, *["none"] * type.optional])
        message = f"{quoted(key)} is not a {type.slot}"
        self.report(
            "unknown-word", message, key.mark, f"did you mean {near!r}? {legal}" if near else legal
        )
        return None, None, key.mark

    def _hold(self, entry: Entry, known: MappingType[str, Any], word: Word) -> None:
        for check, message in entry.checks.items():
            expression = parse(check, checks=True)
            used = names_in(expression)
            if any(known.get(name) is None or known[name] is FAULTY for name in used):
                continue
            try:
                good = holds(expression, lambda name, args: known[name])
            except ExpressionError:
                good = False
            if not good:
                named = [word.written[n].mark for n in known if n in used & set(word.written)]
                place = named[-1] if named else word.mark  # the last of the signature
                help = f"{entry.word!r} needs {check}"
                self.report("check-failed", message.format(**known), place, help)


def _filler(word: Word, skipped: frozenset[str]) -> Filler:
    kept = (p.name for p in word.entry.parameters if p.name not in skipped)
    return Filler(
        word.entry.word, word.entry.kind, tuple((n, word.known[n]) for n in kept), word.mark
    )
