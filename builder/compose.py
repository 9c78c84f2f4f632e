"""Written nodes -> the nodes of a graph: named, typed, and every argument filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, replace
from typing import Any

from blocks.kinds import NODES
from builder import graph, naming
from builder.arguments import FAULTY, Arguments, Word
from builder.budget import MAX_FAULTS
from builder.errors import Finding, Mark
from builder.expand import (
    Expander,
    Scope,
    Written,
    WrittenJoined,
    WrittenLayer,
    WrittenLeaf,
    WrittenParallel,
    WrittenResidual,
    WrittenTap,
    written_leaves,
    written_taps,
)
from builder.graph import Leaf, Node, Stream
from builder.index import Entry, Index
from builder.numbers import Numbers, Place
from builder.read import Scalar, Value
from builder.wiring import Wiring, without_unread

MISPLACED = {  # what to do about a leaf that something else reaches than it reads
    "tokens": "put token_embedding before it",
    "stream": "tokens reach only what stands first",
    "logits": "put it before lm_head",
}


@dataclass(frozen=True)
class _Depth:
    """Which layer a node stands in (None: beside them), of how many."""

    layer: int | None
    layers: int


class Composer:
    """Walks the written tree, carrying what passes from node to node.

    ``wiring`` knows the labels, and ``arguments`` reads what is written under a word.
    """

    def __init__(
        self, expander: Expander, index: Index, numbers: Numbers, findings: list[Finding]
    ) -> None:
        self.expander, self.findings = expander, findings
        self.wiring = Wiring(numbers, findings)
        self.arguments = Arguments(index, numbers, findings, self._held, self.wiring.edges)
        self.firsts: dict[WrittenLeaf, Leaf] = {}  # its first place, which has the weights
        self.told: set[Finding] = set()  # the faults of all layers so far, each once
        self.embedding: Leaf | None = None
        self.last: tuple[Leaf, Entry] | tuple[None, None] = None, None  # the leaf just resolved

    def report(self, code: str, message: str, mark: Mark, help: str = "") -> None:
        self.findings.append(Finding(code, message, mark, help))

    def whole(self, value: Value) -> tuple[tuple[Node, ...], Stream]:
        items = self.expander.model(value)
        depth = sum(isinstance(item, WrittenLayer) for item in items)
        names = iter(naming.name_model(items))
        nodes: list[Node] = []
        stream, layer = Stream("tokens", 0), 0
        for item in items:
            if isinstance(item, WrittenLayer):
                before = len(self.findings)
                body, stream = self._chain(item.items, stream, names, _Depth(layer, depth))
                self._found_in(before, layers=(layer,))
                self.told.update(self.findings[before:])
                if len(self.told) > MAX_FAULTS:
                    break  # each layer has faults of its own: more would only echo
                nodes.append(graph.Layer(layer, body))
                layer += 1
            else:
                node, stream = self._node(item, stream, names, _Depth(None, depth))
                nodes.append(node)
        whole = tuple(nodes)
        return (without_unread(whole) if self.wiring.taps else whole), stream

    def _chain(
        self, items: Sequence[Written], stream: Stream, names: Iterator[str], depth: _Depth
    ) -> tuple[Node, Stream]:
        nodes: list[Node] = []
        for item in items:
            node, stream = self._node(item, stream, names, depth)
            nodes.append(node)
        return (nodes[0] if len(nodes) == 1 else graph.Chain(tuple(nodes))), stream

    def _node(
        self, item: Written, stream: Stream, names: Iterator[str], depth: _Depth
    ) -> tuple[Node, Stream]:
        match item:
            case WrittenLeaf():
                return self._leaf(item, stream, next(names), depth)
            case WrittenResidual():
                body, end = self._chain(item.body, stream, names, depth)
                self._compare(stream, end, "the branch", item.mark)
                return graph.Residual(body, item.mark), replace(stream, tap=None)
            case WrittenParallel():
                return self._parallel(item, stream, names, depth)
            case WrittenJoined():
                return self._joined(item, stream, names, depth)
            case WrittenTap():
                leaf, entry = self.last if item.names_leaf else (None, None)
                stream = self.wiring.tap(item.label, item.mark, stream, leaf, entry)
                assert stream.tap is not None
                return graph.Tap(stream.tap), stream
            case WrittenLayer():
                raise AssertionError("a layer inside a layer")

    def _parallel(
        self, item: WrittenParallel, stream: Stream, names: Iterator[str], depth: _Depth
    ) -> tuple[Node, Stream]:
        nodes, ends = zip(
            *(self._chain(branch, stream, names, depth) for branch in item.branches), strict=True
        )
        for number, end in enumerate(ends[1:], 2):
            if end != ends[0]:
                message = f"branch 1 gives {ends[0]}, and branch {number} {end}"
                help = "f(x) + g(x) needs both to be alike"
                if end.type == ends[0].type == "stream":
                    help = f"end branch {number} with {{linear: {ends[0].dim}}}"
                self.report("branches-differ", message, item.mark, help)
        return graph.Parallel(nodes, item.mark), replace(ends[0], tap=None)

    def _joined(
        self, item: WrittenJoined, stream: Stream, names: Iterator[str], depth: _Depth
    ) -> tuple[Node, Stream]:
        joiner, stream = self._leaf(item.joiner, stream, next(names), depth)
        width = self._width(item.joiner.entry.inner, dict(joiner.options), item.mark)
        within = replace(stream, dim=width or joiner.dim)
        body, end = self._chain(item.body, within, names, depth)
        self._compare(within, end, "the branch", item.mark)
        return graph.Joined(joiner, body), replace(stream, tap=None)

    def _width(
        self, expression: str | None, known: MappingType[str, Any], mark: Mark
    ) -> int | None:
        """A width that follows from a leaf's arguments; None where it is not said, or is faulty."""
        if expression is None or FAULTY in known.values():
            return None
        width = self.arguments.numbers.number(Scalar(expression, mark), Place(own=known))
        return width if isinstance(width, int) else None  # its checks say why it is not whole

    def _found_in(
        self, before: int, blocks: tuple[str, ...] = (), layers: tuple[int, ...] = ()
    ) -> None:
        """Say of the faults since then which blocks, or which layer, they were found in."""
        for place, finding in enumerate(self.findings[before:], before):
            held, depth = finding.blocks or blocks, finding.layers or layers
            self.findings[place] = replace(finding, blocks=held, layers=depth)

    def _compare(self, begin: Stream, end: Stream, what: str, mark: Mark) -> None:
        if begin != end:
            message = f"{what} begins as {begin} and ends as {end}"
            help = "it must end as it began"
            if begin.type == end.type == "stream":
                help = f"end it with {{linear: {begin.dim}}}"
            self.report("branch-changes", message, mark, help)

    def _leaf(
        self, item: WrittenLeaf, stream: Stream, name: str, depth: _Depth
    ) -> tuple[Leaf, Stream]:
        before, entry, kind = len(self.findings), item.entry, NODES[item.entry.kind]
        self._check_read(item, stream)
        width = frozenset(() if kind.reads == "tokens" else ("dim",))
        first = self.firsts.get(item)
        owner = first.weights if first else name
        known: dict[str, Any] = {"name": owner, **dict.fromkeys(width, stream.dim)}
        word = Word(entry, item.given, item.mark, depth.layer, depth.layers, known, stream)
        self.arguments.fill(word, width)
        self.arguments.check(word)
        options = tuple((p.name, known[p.name]) for p in entry.parameters)
        out = self._out(item, known, stream)
        leaf = Leaf(entry.word, entry.kind, options, name, owner, stream.dim, out, item.mark)
        self._check_shared(leaf, self.firsts.setdefault(item, leaf), item)
        self._check_tie(leaf, known)
        self._found_in(before, blocks=item.blocks)
        self.last = leaf, entry
        gives = stream.type if kind.gives == "any" else kind.gives
        return leaf, Stream(gives, out)

    def _out(self, item: WrittenLeaf, known: MappingType[str, Any], stream: Stream) -> int:
        """The width that a leaf gives; of logits, how many."""
        if (said := self._width(item.entry.outer, known, item.mark)) is not None:
            return said
        names = ("vocab",) if NODES[item.entry.kind].gives == "logits" else ("out", "dim")
        return next((known[n] for n in names if isinstance(known.get(n), int)), stream.dim)

    def _check_read(self, item: WrittenLeaf, stream: Stream) -> None:
        """A leaf reads what reaches it."""
        word, reads = item.entry.word, NODES[item.entry.kind].reads
        if reads == stream.type or (reads == "any" and stream.type != "tokens"):
            return
        wanted = {"any": "a stream or logits", "stream": "a stream"}.get(reads, reads)
        reaches = "reaches" if stream.type == "stream" else "reach"
        message = f"{word!r} reads {wanted}, and {stream} {reaches} it"
        self.report("type-mismatch", message, item.mark, MISPLACED[stream.type])

    def _check_shared(self, leaf: Leaf, first: Leaf, item: WrittenLeaf) -> None:
        """Leaves that share their weights must agree on every number that shapes them."""
        for name in _shaping(item.entry):
            ours, theirs = leaf[name], first[name]
            if isinstance(ours, tuple) and isinstance(theirs, tuple):
                ours, theirs = len(ours), len(theirs)
            if ours != theirs and FAULTY not in (ours, theirs):
                message = f"{leaf.word!r} shares its weights, but {name} is {theirs} in "
                message += f"{first.name} and {ours} in {leaf.name}"
                self.report("shared-sizes", message, item.mark, "share what has one size")

    def _check_tie(self, leaf: Leaf, known: MappingType[str, object]) -> None:
        """A tied head has the embedding's weight, so the two must be of one shape."""
        if leaf.kind == "embedding" and self.embedding is None:
            self.embedding = leaf
        if known.get("tie") is not True or self.embedding is None or leaf.mark is None:
            return
        theirs = (self.embedding["vocab"], self.embedding["dim"])
        ours = (known["vocab"], leaf.dim)
        if ours != theirs and FAULTY not in (*ours, *theirs):
            message = f"the head is {ours[0]} x {ours[1]}, the embedding {theirs[0]} x {theirs[1]}"
            self.report("cannot-tie", message, leaf.mark, "tie: false gives it a weight of its own")

    def _held(self, value: Value, word: Word) -> Node | None:
        """A node that a leaf holds, an expert: it gives what it takes, and sees only its token."""
        before = len(self.findings)
        items = self.expander.node(value, Scope(branch=True))
        for leaf in written_leaves(items):
            if NODES[leaf.entry.kind].mixes or leaf.entry.calls or _refers(leaf):
                message = f"{leaf.entry.word!r} asks for more than its token, and an expert has one"
                self.report("expert-mixes", message, leaf.mark, "put it beside the experts")
        for tap in written_taps(items):
            message = "a label in an expert would name some tokens, and not others"
            self.report("expert-mixes", message, tap.mark, "label what holds the experts")
        if not items and len(self.findings) == before:
            self.report("bad-value", "nothing at all is not an expert", value.mark)
        if not items or len(self.findings) > before:
            return None
        names = (f"{word.known['name']}.{name}" for name in naming.name_body(items))
        stream = Stream("stream", word.known["dim"])
        node, end = self._chain(items, stream, names, _Depth(word.layer, word.layers or 0))
        self._compare(stream, end, "the expert", value.mark)
        return node


def _shaping(entry: Entry) -> Iterator[str]:
    """The arguments that the shapes of its parameters follow from; of references, how many."""
    for p in entry.parameters:
        if p.role == "size" or p.name in ("out", "offset") or (p.type.item and p.type.refers):
            yield p.name


def _refers(leaf: WrittenLeaf) -> bool:
    return any(p.type.refers for p in leaf.entry.parameters if p.name in leaf.given)
