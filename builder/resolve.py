"""A page of marked values -> the resolved graph: names, sizes, defaults and widths filled in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Any

from blocks.kinds import NODES
from builder import graph, naming
from builder.arguments import FAULTY, Arguments, Word
from builder.budget import MAX_FAULTS
from builder.errors import Finding, Mark, merged, raise_all
from builder.expand import (
    STRUCTURE,
    WORD,
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
from builder.graph import Filler, Graph, Leaf, Node, Stream
from builder.index import Entry, Index, nearest
from builder.lints import lints
from builder.numbers import Number, Numbers, Place, page_dims
from builder.read import Mapping, Scalar, Value
from builder.read import Sequence as ValueList
from builder.wiring import Wiring, without_unread

VERSION = 1
MISPLACED = {  # what to do about a leaf that something else reaches than it reads
    "tokens": "put token_embedding before it",
    "stream": "tokens reach only what stands first",
    "logits": "put it before lm_head",
}
PAGE = ("recipe", "name", "dims", "blocks", "model", "tokenizer", "data", "train")


@dataclass(frozen=True)
class Resolved:
    """Everything that a page says: the model, and the sections round it."""

    name: str
    graph: Graph
    dims: MappingType[str, Number | tuple[Number, ...]]
    tokenizer: Filler | None
    data: Filler | None
    train: Filler
    warnings: tuple[Finding, ...]


def resolve(page: Mapping, index: Index) -> Resolved:
    """Resolve a page that needs no base any more.  RecipeError carries every finding."""
    return _Page(page, index).whole()


def version_faults(page: Mapping) -> list[Finding]:
    """What is wrong with the version that a page says it is in."""
    version = page.get("recipe")
    value = getattr(version, "value", None)
    if value == VERSION and value is not True:
        return []
    message, mark = "the page does not say which version of the language it is in", page.mark
    if version is not None:
        shown = "this version" if value is None else f"version {value!r}"
        message, mark = f"{shown} of the language is not known", version.mark
    return [Finding("recipe-version", message, mark, f"write recipe: {VERSION}")]


@dataclass(frozen=True)
class _Depth:
    """Which layer a node stands in (None: beside them), of how many."""

    layer: int | None
    layers: int


@dataclass
class _Page:
    page: Mapping
    index: Index
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        dims = page_dims(self.page.get("dims"), self.findings)
        self.numbers = Numbers(dims, self.findings, base=self.page.mark.source)
        expander = Expander(self._blocks(), self.index, self.numbers.whole, self.findings)
        self.model = _Model(expander, self.index, self.numbers, self.findings)

    def report(
        self, code: str, message: str, mark: Mark, help: str = "", severity: str = "error"
    ) -> None:
        self.findings.append(Finding(code, message, mark, help, severity=severity))

    def whole(self) -> Resolved:
        self._check_words()
        if any(finding.code == "not-a-map" for finding in self.findings):
            raise_all(self.findings)  # whatever reads dims or blocks would only echo it
        tokenizer, data = map(self._section, ("tokenizer", "data"))
        train = self._train()
        vocab, context = map(self._needed_dim, ("vocab", "context"))
        items = self._items(vocab)
        self._check_unused()
        raise_all(merged(self.findings))  # a block's fault is found in each layer
        self._check_unread()
        dims = self._dims()
        for mark, label in self.model.wiring.unread():
            message = f"nothing reads label {label!r}"
            self.report("unread-label", message, mark, "leave it out", severity="warning")
        raise_all(self.findings)
        name = getattr(self.page.get("name"), "value", "model")
        whole = Graph(items, vocab, context)
        self.findings += lints(whole)
        return Resolved(
            str(name), whole, dims, tokenizer, data, train, tuple(merged(self.findings))
        )

    def _check_words(self) -> None:
        for key, _ in self.page:
            if key.value not in PAGE:
                near = nearest(str(key.value), PAGE)
                help = f"did you mean {near!r}?" if near else "a page holds: " + ", ".join(PAGE)
                message = f"{key.value!r} is not a part of a recipe"
                self.report("unknown-word", message, key.mark, help)
        name = self.page.get("name")
        if name is not None and not isinstance(getattr(name, "value", None), str):
            text = getattr(name, "value", None)
            help = f'write "{text}", in quotes' if text is not None else "for instance name: llama"
            self.report("not-a-word", "a name is a word", name.mark, help)
        self.findings += version_faults(self.page)

    def _blocks(self) -> dict[str, Value]:
        blocks = self.page.get("blocks")
        if blocks is None:
            return {}
        if not isinstance(blocks, Mapping):
            help = "for instance blocks: {decoder: [...]}"
            self.report("not-a-map", "'blocks' is a map of names and nodes", blocks.mark, help)
            return {}
        taken = {*self.index.words("node"), *STRUCTURE, "none", "it"}
        for key, _ in blocks:
            if key.value in taken:
                message = f"{key.value!r} is already a word of the language"
                self.report("shadowed-word", message, key.mark, "give the block another name")
            elif not WORD.fullmatch(str(key.value)):
                message = f"{key.value!r} is not one word"
                self.report("not-a-word", message, key.mark, "letters, digits and _ name a block")
        return {str(key.value): value for key, value in blocks}

    def _needed_dim(self, name: str) -> int:
        if name not in self.numbers.dims:
            mark = getattr(self.page.get("dims"), "mark", self.page.mark)
            help = f"dims: {{..., {name}: 2048}}"
            self.report("missing-dim", f"dims gives no {name}", mark, help)
            return 1
        self.numbers.read.add(name)
        return self.numbers.whole(self.numbers.dims[name][1], at_least=1) or 1

    def _dims(self) -> dict[str, Number | tuple[Number, ...]]:
        """The dims, read or not, but for those that only a layer can tell."""
        found: list[Finding] = []
        numbers = Numbers(self.numbers.dims, found)
        dims: dict[str, Number | tuple[Number, ...]] = {}
        for name, (_, value) in numbers.dims.items():
            items = value.items if isinstance(value, ValueList) else (value,)
            known = [n for item in items if (n := numbers.number(item)) is not None]
            if len(known) == len(items):
                dims[name] = tuple(known) if isinstance(value, ValueList) else known[0]
        self.findings += [finding for finding in found if finding.code != "no-layer"]
        return dims

    def _check_unread(self) -> None:
        sizes = {p.name for word in self.index.words("node") for p in self.index.node(word).sizes}
        for name, (mark, _) in self.numbers.dims.items():
            if name not in self.numbers.read:
                severity = "warning" if name in sizes else "error"
                message = f"nothing reads dim {name!r}"
                self.report("unread-dim", message, mark, "leave it out", severity)

    def _check_unused(self) -> None:
        """A block that nothing names is told, and looked through for faults all the same."""
        blocks = self.page.get("blocks")
        for key, value in blocks if isinstance(blocks, Mapping) else ():
            name = str(key.value)
            if name not in self.model.expander.used:
                message = f"nothing uses block {name!r}"
                help = "name it in the model, or leave it out"
                self.report("unused-block", message, key.mark, help, severity="warning")
                self.model.expander.node(value, Scope(blocks=(name,)))

    def _section(self, kind: str) -> Filler | None:
        value = self.page.get(kind)
        return None if value is None else self.model.arguments.section(value, kind)

    def _train(self) -> Filler:
        """How it is trained; a page that does not say leaves every option at its default."""
        value = self.page.get("train")
        mark = self.page.mark if value is None else value.mark
        return self.model.arguments.filled(self.index.filler("section", "train"), value, mark)

    def _items(self, vocab: int) -> tuple[Node, ...]:
        value = self.page.get("model")
        if value is None:
            help = "model: [token_embedding, ..., lm_head]"
            self.report("missing-model", "the page has no model", self.page.mark, help)
            return ()
        items, end = self.model.whole(value)
        if not any(finding.severity == "error" for finding in self.findings):
            self._check_model(items, end, vocab, value.mark)
        return items

    def _check_model(self, items: tuple[Node, ...], end: Stream, vocab: int, mark: Mark) -> None:
        """Tokens come in and logits go out, as many as the vocabulary."""
        if end.type != "logits":
            help = "a model gives logits: it ends with lm_head"
            self.report("not-a-model", f"the model ends in {end}", mark, help)
        elif end.dim != vocab:
            message = f"the model gives {end.dim} logits a token, and vocab is {vocab}"
            self.report("not-a-model", message, mark, "logits are as many as the vocabulary")
        for leaf in (leaf for item in items for leaf in graph.leaves(item)):
            if leaf.kind == "embedding" and (held := leaf["vocab"]) != vocab:
                message = f"{leaf.word!r} holds {held} tokens, and vocab is {vocab}"
                self.report("vocab-differs", message, leaf.mark or mark, "leave its vocab out")


class _Model:
    """Walks the written tree, carrying what passes from node to node."""

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
                ends = [self._chain(branch, stream, names, depth) for branch in item.branches]
                for number, (_, end) in enumerate(ends[1:], 2):
                    if end != ends[0][1]:
                        message = f"branch 1 gives {ends[0][1]}, and branch {number} {end}"
                        help = "f(x) + g(x) needs both to be alike"
                        if end.type == ends[0][1].type == "stream":
                            help = f"end branch {number} with {{linear: {ends[0][1].dim}}}"
                        self.report("branches-differ", message, item.mark, help)
                nodes = tuple(node for node, _ in ends)
                return graph.Parallel(nodes, item.mark), replace(ends[0][1], tap=None)
            case WrittenJoined():
                return self._joined(item, stream, names, depth)
            case WrittenTap():
                leaf, entry = self.last if item.names_leaf else (None, None)
                stream = self.wiring.tap(item.label, item.mark, stream, leaf, entry)
                assert stream.tap is not None
                return graph.Tap(stream.tap), stream
            case WrittenLayer():
                raise AssertionError("a layer inside a layer")

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
        if kind.reads != stream.type and (kind.reads != "any" or stream.type == "tokens"):
            wanted = {"any": "a stream or logits", "stream": "a stream"}.get(kind.reads, kind.reads)
            reaches = "reaches" if stream.type == "stream" else "reach"
            message = f"{entry.word!r} reads {wanted}, and {stream} {reaches} it"
            self.report("type-mismatch", message, item.mark, MISPLACED[stream.type])
        width = frozenset(() if kind.reads == "tokens" else ("dim",))
        first = self.firsts.get(item)
        owner = first.weights if first else name
        known: dict[str, Any] = {"name": owner, **dict.fromkeys(width, stream.dim)}
        word = Word(entry, item.given, item.mark, depth.layer, depth.layers, known, stream)
        self.arguments.fill(word, width)
        self.arguments.check(word)
        options = tuple((p.name, known[p.name]) for p in entry.parameters)
        out = self._width(entry.outer, known, item.mark)
        if out is None:
            names_out = ("vocab",) if kind.gives == "logits" else ("out", "dim")
            out = next((known[n] for n in names_out if isinstance(known.get(n), int)), stream.dim)
        leaf = Leaf(entry.word, entry.kind, options, name, owner, stream.dim, out, item.mark)
        self._check_shared(leaf, self.firsts.setdefault(item, leaf), item)
        self._check_tie(leaf, known)
        self._found_in(before, blocks=item.blocks)
        self.last = leaf, entry
        gives = stream.type if kind.gives == "any" else kind.gives
        return leaf, Stream(gives, out)

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
        if p.role == "size" or p.name == "out" or (p.type.item and p.type.item.base == "reference"):
            yield p.name


def _refers(leaf: WrittenLeaf) -> bool:
    types = (p.type.item or p.type for p in leaf.entry.parameters if p.name in leaf.given)
    return any(type.base == "reference" for type in types)
