"""Labels -> edges: what each label has named so far, and what a reference to it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from builder.arguments import FAULTY, Word
from builder.budget import Budget
from builder.errors import Finding, Mark
from builder.expressions import Call, Expression, ExpressionError, Name, parse, unparse
from builder.graph import NODE, Chain, Edge, Filler, Leaf, Node, Stream, Tap, edges, leaves
from builder.index import Entry, Type, nearest
from builder.numbers import Numbers
from builder.read import Scalar, Value


@dataclass(frozen=True)
class Named:
    """One occurrence of a label: the tap behind what it names, and that leaf if it is one."""

    edge: Edge
    stream: Stream
    leaf: Leaf | None
    entry: Entry | None


@dataclass
class Wiring:
    """Collects labels in order of execution, and answers references to them."""

    numbers: Numbers
    findings: list[Finding]
    named: dict[str, list[Named]] = field(default_factory=dict)
    marks: dict[Mark, str] = field(default_factory=dict)  # of every label, read or not
    read: set[str] = field(default_factory=set)
    taps: int = 0
    budget: Budget = field(default_factory=Budget)

    def report(self, code: str, message: str, mark: Mark, help: str) -> None:
        self.findings.append(Finding(code, message, mark, help))

    def tap(
        self, label: str, mark: Mark, stream: Stream, leaf: Leaf | None, entry: Entry | None
    ) -> Stream:
        """Remember what a label names.  The stream that goes on has passed a tap: the one that it
        had just passed, if any.
        """
        if stream.tap is None:
            stream = replace(stream, tap=self.taps)
            self.taps += 1
        assert stream.tap is not None
        named = Named(Edge("stream", stream.tap), stream, leaf, entry)
        self.named.setdefault(label, []).append(named)
        self.marks[mark] = label
        return stream

    def edges(self, value: Value, type: Type, word: Word) -> tuple[Edge, ...] | None:
        """Every place that a reference reads: one, or all of a label; none, and a finding."""
        many, port = type.item is not None, (type.item or type).slot
        found = self._found(value, word, many)
        if not found:
            return None
        self.budget.edge(value.mark, len(found) if many else 1)
        if port != "stream":
            leaf = self._lender(found[-1], value, word, port)
            return None if leaf is None else (Edge(port, leaf.name),)
        stream = word.stream
        assert stream is not None, f"{word.entry.word} stands where no stream is"
        for named in found:
            if named.stream != stream:
                label = getattr(value, "value", "")
                message = (
                    f"{label!r} names {named.stream}, and {stream} reaches {word.entry.word!r}"
                )
                self.report("label-differs", message, value.mark, "they must be alike")
                return None
        if many:  # what arrives here is no source besides itself
            found = [named for named in found if named.edge.source != stream.tap]
        return tuple(named.edge for named in found)

    def unread(self) -> Iterator[tuple[Mark, str]]:
        """The labels that nothing reads."""
        return ((mark, label) for mark, label in self.marks.items() if label not in self.read)

    def _found(self, value: Value, word: Word, many: bool) -> list[Named] | None:
        """The occurrences, before this place, that a reference means."""
        tree = _parsed(value)
        match tree:
            case Name(label) | Call(label, (_,)) if not (many and isinstance(tree, Call)):
                self.read.add(label)
            case _:
                help = "it is a label, as in skip" + (", or skip(layer)" if not many else "")
                self.report("not-a-word", "a reference is one word", value.mark, help)
                return None
        found = self.named.get(label, [])
        if not found:
            self._unknown(label, value.mark)
        if isinstance(tree, Name) or not found:
            return found if many else found[-1:]
        number = Scalar(unparse(tree.args[0]), value.mark)
        at = self.numbers.whole(number, word.place)
        if at is not None and at >= len(found):
            message = f"{label!r} is given {len(found)} times before this, and number {at} is read"
            self.report("unknown-label", message, value.mark, "they count from 0")
        return None if at is None or at >= len(found) else [found[at]]

    def _unknown(self, label: str, mark: Mark) -> None:
        near = nearest(label, self.named)
        help = f"did you mean {near!r}?" if near else f"a node before it bears `as: {label}`"
        self.report("unknown-label", f"nothing before this is labelled {label!r}", mark, help)

    def _lender(self, named: Named, value: Value, word: Word, port: str) -> Leaf | None:
        """The leaf that lends what is read; reader and lender are alike where they must be."""
        leaf, entry, label = named.leaf, named.entry, getattr(value, "value", "")
        what = port.replace("_", " and ")
        if leaf is None or entry is None or port not in entry.lends:
            message = f"{label!r} names no leaf that lends {what}"
            help = f"label the leaf itself: {{{word.entry.word}: {{...}}, as: {label}}}"
            self.report("label-lends", message, value.mark, help)
            return None
        for name in entry.lends[port]:
            ours, theirs = word.known.get(name), leaf[name]
            if ours != theirs and FAULTY not in (ours, theirs):
                message = f"{name} is {_told(ours)} here, and {_told(theirs)} in {leaf.name}"
                help = f"who reads the {what} of another has its {', '.join(entry.lends[port])}"
                self.report("label-differs", message, value.mark, help)
                return None
        return leaf


def _parsed(value: Value) -> Expression | None:
    written = getattr(value, "value", None)
    try:
        return parse(written) if isinstance(written, str) else None
    except ExpressionError:
        return None


def _told(value: Any) -> str:
    if isinstance(value, Filler):
        options = ", ".join(f"{name}: {_told(option)}" for name, option in value.options)
        return f"{{{value.word}: {{{options}}}}}" if options else value.word
    return "none" if value is None else str(value)


# Taps that something reads


def without_unread(items: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes without the taps that nothing reads, each place tapped once, numbered anew."""
    every = (edge for item in items for leaf in leaves(item) for _, edge in edges(leaf))
    read = sorted({edge.source for edge in every if isinstance(edge.source, int)})
    kept: tuple[Node, ...] = _Renumbering({old: new for new, old in enumerate(read)}).of(items)
    return kept


DROPPED = object()


@dataclass
class _Renumbering:
    numbers: dict[int, int]  # by the old ones
    made: set[int] = field(default_factory=set)

    def of(self, value: Any) -> Any:
        match value:
            case tuple():
                return tuple(new for part in value if (new := self.of(part)) is not DROPPED)
            case Tap(number):
                if number not in self.numbers or number in self.made:
                    return DROPPED
                self.made.add(number)
                return Tap(self.numbers[number])
            case Edge(_, int(source)):
                return replace(value, source=self.numbers[source])
            case Filler() | Edge():
                return value
        return self.node(value) if isinstance(value, NODE) else value

    def node(self, node: Node) -> Node:
        parts = (part.name for part in fields(node) if part.name != "mark")
        new = replace(node, **{name: self.of(getattr(node, name)) for name in parts})
        return new.items[0] if isinstance(new, Chain) and len(new.items) == 1 else new
