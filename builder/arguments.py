"""What is written under a registered word -> its arguments, by the types of its signature.

A size is what the leaf says, else the dim of that name, else the signature's own default; a value
or an option is what the leaf says, else its default.  Every argument remembers where it came from,
so that a fault is told at the number that probably made it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

from builder.edit import as_written
from builder.errors import Finding, Mark
from builder.expand import given
from builder.expressions import ExpressionError, holds, parse
from builder.expressions import names as names_in
from builder.graph import Edge, Filler, Named, Node, Stream
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
from builder.numbers import FAULTY as FAULTY
from builder.numbers import Numbers, Place, collection, quoted
from builder.origins import Origin, Step, brief, notes, suspect, trace, would_do
from builder.read import Mapping, Scalar, Sequence, Value

TRUTHS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # as in YAML 1.1


@dataclass(frozen=True)
class Word:
    """A registered word as it is written: where, with what under it, what is known of it."""

    entry: Entry
    written: MappingType[str, Value]
    mark: Mark
    layer: int | None
    layers: int | None
    known: dict[str, Any]  # arguments by name; of a slot's filler, its parent's too
    stream: Stream | None = None  # what reaches a leaf
    origins: dict[str, Origin] = field(default_factory=dict)  # of the arguments, by name
    fillers: list[Word] = field(default_factory=list)  # what fills its slots

    @property
    def place(self) -> Place:
        """Where an expression under it is read."""
        return self.argument("")

    def argument(self, name: str) -> Place:
        """The place of an expression for one of its arguments."""
        reader = self.entry.word, self.mark
        return Place(self.layer, self.layers, self.known, self.origins, name, reader)


@dataclass
class Arguments:
    """Reads arguments against a page's dims; ``node`` resolves a node that a leaf holds, ``edges``
    what a label names.
    """

    index: Index
    numbers: Numbers
    findings: list[Finding]
    node: Callable[[Value, Word], Node | None]
    edges: Callable[[Value, Type, Word], tuple[Edge, ...] | None]
    told: dict[tuple[object, ...], Finding] = field(default_factory=dict)  # in an earlier layer

    def report(
        self, code: str, message: str, mark: Mark, help: str = "", notes: tuple[str, ...] = ()
    ) -> None:
        self.findings.append(Finding(code, message, mark, help, notes))

    def fill(self, word: Word, skipped: frozenset[str] = frozenset()) -> None:
        """Read every argument into ``word.known``, but for those that the parent gives."""
        if "dim" in skipped:
            word.origins["dim"] = Origin(entry=word.entry, reaches=True)
        for parameter in word.entry.parameters:
            if parameter.name not in skipped:
                word.known[parameter.name] = self._argument(parameter, word)

    def check(self, word: Word, *above: Entry, called: MappingType[str, str] | None = None) -> None:
        """Hold a word, and what fills its slots, to the laws that their classes state; a filler's
        sizes are its parent's, and ``called`` as its parent calls them.
        """
        entries = (*above, word.entry)
        self._hold_whole(word, entries)
        for check, message in word.entry.checks.items():
            if not check_holds(check, word.known):
                used = names_in(parse(check, checks=True))
                shown = {name: brief(word.known.get(name)) for name in used}
                needs = f"{word.entry.word!r} needs {check}"
                message = message.format(**{**word.known, **shown})
                self._tell("check-failed", message, used, word, entries, needs)
        for inside in word.fillers:
            own = {
                p.name: inside.known[p.name] for p in inside.entry.parameters if p.role != "size"
            }
            known, origins = {**word.known, **own}, {**word.origins, **inside.origins}
            names = {**(called or {}), **word.entry.gives.get(inside.entry.kind, {})}
            entry = replace(inside.entry, checks=_renamed(inside.entry.checks, names))
            inside = replace(inside, entry=entry, known=known, origins=origins)
            self.check(inside, *entries, called=names)

    def _hold_whole(self, word: Word, entries: tuple[Entry, ...]) -> None:
        """A size that follows from others must come out whole."""
        for parameter in word.entry.sizes:
            number, default = word.known.get(parameter.name), parameter.default
            if isinstance(number, float) and isinstance(default, SizeDefault):
                used = names_in(parse(default.expression))
                if all(word.known.get(name) is not FAULTY for name in used):  # told already
                    equation = f"{parameter.name} = {default.expression} = {brief(number)}"
                    needs = f"give {word.entry.word!r} a {parameter.name}"
                    message = f"{equation} is not a whole number"
                    self._tell("not-whole", message, used, word, entries, needs)
                word.known[parameter.name] = FAULTY

    def _tell(
        self,
        code: str,
        message: str,
        used: Iterable[str],
        word: Word,
        entries: tuple[Entry, ...],
        needs: str,
    ) -> None:
        """Report numbers that do not fit each other, at the one that is probably at fault."""
        known, origins = word.known, word.origins
        steps = trace([n for n in known if n in used], known, origins, self.numbers.dims)
        fault = suspect(steps, self.numbers.base)
        marks = tuple(step.origin.value.mark if step.origin.value else None for step in steps)
        key = code, message, word.mark, marks
        if key not in self.told:
            self.told[key] = self._finding(code, message, steps, fault, word, entries, needs)
        self.findings.append(self.told[key])

    def _finding(
        self,
        code: str,
        message: str,
        steps: list[Step],
        fault: Step | None,
        word: Word,
        entries: tuple[Entry, ...],
        needs: str,
    ) -> Finding:
        value = None if fault is None else fault.origin.value
        if fault is None or value is None:
            return Finding(code, message, word.mark, needs, tuple(notes(steps, None)))
        legal = would_do(fault, word.known, word.origins, lambda known: _fits(known, word, entries))
        help = " or ".join(f"{fault.name}={number}" for number in legal)
        elsewhere = fault.origin.dim or value.was is not None
        told = (*notes(steps, fault), *(word.place.read_here if elsewhere else ()))
        return Finding(code, message, value.mark, f"{help} would do" if help else needs, told)

    def section(self, value: Value, kind: str) -> Filler | None:
        """What fills a slot of the page itself: its sizes are dims."""
        entry, under, mark = self._chosen(value, Type("slot", slot=kind))
        return None if entry is None else self.filled(entry, under, mark)

    def filled(self, entry: Entry, under: Value | None, mark: Mark) -> Filler:
        """A filler of the page itself; it may hold itself to the model's context."""
        context = self.numbers.dim("context")[1] if "context" in self.numbers.dims else None
        word = Word(
            entry, given(entry, under, self.findings, ()), mark, None, None, {"context": context}
        )
        self.fill(word)
        self.check(word)
        return _filler(word, frozenset())

    def _argument(self, parameter: Parameter, word: Word) -> Any:
        value = word.written.get(parameter.name)
        if value is not None:
            word.origins[parameter.name] = Origin(value)
            return self._value(value, parameter.type, word, parameter)
        if parameter.role == "size" and parameter.name in self.numbers.dims:
            found = self.numbers.dim(parameter.name, word.argument(parameter.name))
            return self._dim(parameter.name, *found, word)
        expression = getattr(parameter.default, "expression", None)
        word.origins[parameter.name] = Origin(entry=word.entry, expression=expression)
        return self._default(parameter, word)

    def _dim(self, name: str, written: Value, number: int | float | None, word: Word) -> Any:
        """A size that the leaf leaves to the dim of its name."""
        word.origins[name] = Origin(written, dim=True)
        if number is None or (isinstance(number, int) and number >= 1):
            return FAULTY if number is None else number
        text = getattr(written, "value", None)
        shown = f"{text} = {brief(number)}" if isinstance(text, str) else brief(number)
        message = f"dim {name!r} is {shown}, which is no size"
        notes = word.place.read_here
        self.report("not-a-size", message, written.mark, "a size is a whole number from 1", notes)
        return FAULTY

    def _default(self, parameter: Parameter, word: Word) -> Any:
        name, default = word.entry.word, parameter.default
        if default is REQUIRED:
            message = f"{name!r} is not given its {parameter.name}"
            help = f"write {{{name}: {{{parameter.name}: ...}}}}"
            if parameter.role == "size":
                message += ", and dims has none"
                help += f", or dims: {{{parameter.name}: ...}}"
            self.report("missing-option", message, word.mark, help, self._meant(parameter))
            return FAULTY
        if isinstance(default, MakerDefault):
            return self._value(as_written(default, word.mark), parameter.type, word, parameter)
        if not isinstance(default, SizeDefault):
            return default
        if any(word.known.get(used) is FAULTY for used in names_in(parse(default.expression))):
            return FAULTY
        written = Scalar(default.expression, word.mark)
        number = self.numbers.number(written, word.argument(parameter.name))
        return FAULTY if number is None else number  # if it is not whole, ``check`` tells

    def _meant(self, parameter: Parameter) -> tuple[str, ...]:
        """A note of the dim that was probably to be the missing one."""
        sizes = {p.name for entry in self.index for p in entry.sizes}
        near = nearest(parameter.name, sorted(set(self.numbers.dims) - sizes))
        if near is None or parameter.role != "size":
            return ()
        return (f"dims has {near!r}, at {self.numbers.dims[near][0]}",)

    def _value(self, value: Value, type: Type, word: Word, parameter: Parameter) -> Any:
        """What is written for an argument, by its type; a finding where it does not fit."""
        if type.optional and isinstance(value, Scalar) and value.value == "none":
            return None
        match type.base:
            case "slot":
                return self._slot(value, type, word) or FAULTY
            case "node":
                return self.node(value, word) or FAULTY
            case "reference":
                return FAULTY if (edges := self.edges(value, type, word)) is None else edges[-1]
            case "list" if type.item is not None and type.item.base == "reference":
                return FAULTY if (edges := self.edges(value, type, word)) is None else edges
            case "int":
                least = 1 if parameter.role == "size" else -(2**63)
                whole = self.numbers.whole(value, word.argument(parameter.name), least)
                return FAULTY if whole is None else whole
            case "float":
                number = self.numbers.number(value, word.argument(parameter.name))
                return FAULTY if number is None else float(number)
            case "list":
                return self._list(value, type, word, parameter)
            case "map":
                return self._map(value, type, word, parameter)
        written = value.value if isinstance(value, Scalar) else FAULTY
        if type.base == "bool":
            help = f"write {TRUTHS[written]}" if written in TRUTHS else ""
            return (
                written if isinstance(written, bool) else self._misfit("true or false", value, help)
            )
        if type.base == "literal":
            chosen = written in type.choices and not isinstance(written, bool)  # true is no 1
            return written if chosen else self._no_choice(value, type)
        return written if isinstance(written, str) else self._misfit("a word", value)

    def _list(self, value: Value, type: Type, word: Word, parameter: Parameter) -> Any:
        if not isinstance(value, Sequence) or type.item is None:
            return self._misfit("a list", value)
        items = tuple(self._value(item, type.item, word, parameter) for item in value)
        return FAULTY if FAULTY in items else items

    def _map(self, value: Value, type: Type, word: Word, parameter: Parameter) -> Any:
        if not isinstance(value, Mapping) or type.item is None:
            return self._misfit("a map of names", value)
        items = [(str(k.value), self._value(v, type.item, word, parameter)) for k, v in value]
        if any(item is FAULTY for _, item in items):
            return FAULTY
        return Named(tuple(items), tuple(key.mark for key, _ in value))

    def _no_choice(self, value: Value, type: Type) -> Any:
        choices = [str(choice) for choice in type.choices]
        near = nearest(str(getattr(value, "value", "")), choices)
        help = f"did you mean {near!r}?" if near else ""
        return self._misfit("one of " + ", ".join(choices), value, help)

    def _misfit(self, wanted: str, value: Value, help: str = "") -> Any:
        shown = quoted(value) if isinstance(value, Scalar) else collection(value)
        self.report("bad-value", f"{shown} is not {wanted}", value.mark, help)
        return FAULTY

    def _slot(self, value: Value, type: Type, word: Word) -> Filler | None:
        """What fills a leaf's slot: its sizes are given by the leaf, and never written; those of
        what ``train`` holds are dims.
        """
        entry, under, mark = self._chosen(value, type)
        if entry is None:
            return None
        own = () if word.entry.kind == "section" else entry.sizes
        sizes = frozenset(p.name for p in own)
        written = given(entry, under, self.findings, sizes)
        known, origins = dict(word.known), dict(word.origins)
        inside = Word(entry, written, mark, word.layer, word.layers, known, word.stream, origins)
        self.fill(inside, sizes)
        word.fillers.append(inside)
        return _filler(inside, sizes)

    def _chosen(self, value: Value, type: Type) -> tuple[Entry | None, Value | None, Mark]:
        """The word that fills a slot, and what is written under it."""
        key: Value = value
        under: Value | None = None
        if isinstance(value, Mapping) and len(value) == 1:
            key, under = value.entries[0]
        if not isinstance(key, Scalar):
            message = f"{_a(type.slot)} is one word, or one word with its options"
            words = self.index.words(type.slot)
            self.report("not-a-filler", message, value.mark, f"{type.slot}: {', '.join(words)}")
            return None, None, value.mark
        words = list(self.index.words(type.slot))
        if key.value in words:
            return self.index.filler(type.slot, str(key.value)), under, key.mark
        near = nearest(str(key.value), words)
        legal = f"{type.slot}: " + ", ".join([*words, *["none"] * type.optional])
        message = f"{quoted(key)} is not {_a(type.slot)}"
        self.report(
            "unknown-word", message, key.mark, f"did you mean {near!r}? {legal}" if near else legal
        )
        return None, None, key.mark


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _renamed(checks: MappingType[str, str], called: MappingType[str, str]) -> MappingType[str, str]:
    """What a filler says of its sizes, in its parent's words for them."""
    if not called:
        return checks
    word = re.compile(rf"\b({'|'.join(called)})\b")

    def renamed(text: str) -> str:
        return word.sub(lambda found: called[found[0]], text)

    return {renamed(check): renamed(message) for check, message in checks.items()}


def check_holds(check: str, known: MappingType[str, Any]) -> bool:
    """Whether a law holds; nothing is said of what is left out, or told already."""
    used = _names_in_check(check)
    values = [known.get(name) for name in used]
    if any(value is FAULTY for value in values):
        return True
    if "none" not in used and None in values:
        return True
    words = (value.word if isinstance(value, Filler) else value for value in values)
    return _holds(check, *words)


@cache
def _names_in_check(check: str) -> tuple[str, ...]:
    return tuple(sorted(names_in(parse(check, checks=True)) - {"len"}))


@lru_cache(maxsize=65_536, typed=True)
def _holds(check: str, *values: Any) -> bool:
    """A law of these values, in the order of its names; a slot is the word that fills it."""
    known = dict(zip(_names_in_check(check), values, strict=True))
    try:
        return holds(
            parse(check, checks=True),
            lambda name, args: len(args[0]) if name == "len" else known[name],
        )
    except ExpressionError:
        return False


def _fits(known: MappingType[str, Any], word: Word, entries: tuple[Entry, ...]) -> bool:
    """Whether every size is whole, and every law of a word and those that it fills holds."""
    whole = all(
        known[n] is not None for n, o in word.origins.items() if o.expression and n in known
    )
    return whole and all(check_holds(check, known) for entry in entries for check in entry.checks)


def _filler(word: Word, skipped: frozenset[str]) -> Filler:
    kept = (p.name for p in word.entry.parameters if p.name not in skipped)
    return Filler(
        word.entry.word, word.entry.kind, tuple((n, word.known[n]) for n in kept), word.mark
    )
