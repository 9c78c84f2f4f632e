"""A page of marked values -> the resolved graph: names, sizes, defaults and widths filled in, every fault found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import Any

from blocks.kinds import NODES
from builder import graph, naming
from builder.edit import as_written
from builder.errors import Finding, Mark, raise_all
from builder.expand import (
    Expander,
    Scope,
    Written,
    WrittenLayer,
    WrittenLeaf,
    WrittenParallel,
    WrittenResidual,
    given,
    written_leaves,
)
from builder.expressions import ExpressionError, holds, parse
from builder.expressions import names as names_in
from builder.graph import Filler, Graph, Leaf, Node
from builder.index import REQUIRED, Entry, Index, MakerDefault, Parameter, SizeDefault, Type, nearest
from builder.numbers import Number, Numbers, Place, page_dims
from builder.read import Mapping, Scalar, Value
from builder.read import Sequence as ValueList

VERSION = 1
PAGE = ("recipe", "name", "dims", "blocks", "model", "tokenizer", "data", "train")
_FAULTY = object()  # an option whose value could not be read; its finding is written


@dataclass(frozen=True)
class Stream:
    """What passes between two nodes: ``tokens``, a ``stream`` of some width, or ``logits``."""

    type: str
    dim: int

    def __str__(self) -> str:
        return f"a stream of width {self.dim}" if self.type == "stream" else self.type


@dataclass(frozen=True)
class Resolved:
    """Everything that a page says: the model, and the sections round it."""

    name: str
    graph: Graph
    dims: MappingType[str, Number | tuple[Number, ...]]
    tokenizer: Filler | None
    data: Filler | None
    train: Filler | None
    warnings: tuple[Finding, ...]


def resolve(page: Mapping, index: Index) -> Resolved:
    """Resolve a page that needs no base any more.  RecipeError carries every finding."""
    return _Resolver(page, index).whole()


@dataclass
class _Resolver:
    page: Mapping
    index: Index
    findings: list[Finding] = field(default_factory=list)
    weights: dict[int, Leaf] = field(default_factory=dict)  # of a written leaf, its first place

    def __post_init__(self) -> None:
        self.numbers = Numbers(page_dims(self.page.get("dims"), self.findings), self.findings)
        self.expander = Expander(self._blocks(), self.index, self.numbers.whole, self.findings)

    def report(self, code: str, message: str, mark: Mark, help: str = "", severity: str = "error") -> None:
        self.findings.append(Finding(code, message, mark, help, severity=severity))

    def whole(self) -> Resolved:
        self._check_words()
        sections = {word: self._section(word) for word in ("tokenizer", "data", "train")}
        vocab, context = (self._needed_dim(name) for name in ("vocab", "context"))
        items = self._model()
        raise_all(self.findings)
        self._check_unread()
        raise_all(self.findings)
        return Resolved(
            name=str(getattr(self.page.get("name"), "value", "model")),
            graph=Graph(items, vocab, context),
            dims=dict(self._dims()),
            tokenizer=sections["tokenizer"],
            data=sections["data"],
            train=sections["train"],
            warnings=tuple(self.findings),
        )

    # The page

    def _check_words(self) -> None:
        for key, value in self.page:
            if key.value not in PAGE:
                near = nearest(str(key.value), PAGE)
                help = f"did you mean {near!r}?" if near else "a page holds: " + ", ".join(PAGE)
                self.report("unknown-word", f"{key.value!r} is not a part of a recipe", key.mark, help)
            elif key.value == "name" and not (isinstance(value, Scalar) and isinstance(value.value, str)):
                self.report("not-a-word", "a name is a word", value.mark)
        version = self.page.get("recipe")
        if version is None or getattr(version, "value", None) != VERSION:
            mark = self.page.mark if version is None else version.mark
            message = "the page does not say which language it is in" if version is None else "an unknown version"
            self.report("recipe-version", message, mark, f"write recipe: {VERSION}")

    def _blocks(self) -> dict[str, Value]:
        blocks = self.page.get("blocks")
        if blocks is None:
            return {}
        if not isinstance(blocks, Mapping):
            self.report("not-a-map", "'blocks' is a map of names and nodes", blocks.mark)
            return {}
        taken = {*self.index.words("node"), "residual", "parallel", "repeat", "layers", "like", "none", "it"}
        for key, _ in blocks:
            if key.value in taken:
                self.report("shadowed-word", f"{key.value!r} is already a word of the language", key.mark)
        return {str(key.value): value for key, value in blocks}

    def _needed_dim(self, name: str) -> int:
        if name not in self.numbers.dims:
            mark = getattr(self.page.get("dims"), "mark", self.page.mark)
            self.report("missing-dim", f"dims gives no {name}", mark, f"dims: {{..., {name}: 2048}}")
            return 1
        self.numbers.read.add(name)
        return self.numbers.whole(self.numbers.dims[name][1], at_least=1) or 1

    def _dims(self) -> Iterator[tuple[str, Number | tuple[Number, ...]]]:
        for name, (_, value) in self.numbers.dims.items():
            if isinstance(value, ValueList):
                yield name, tuple(self.numbers.number(item) or 0 for item in value)
            elif (number := self.numbers.number(value)) is not None:
                yield name, number

    def _check_unread(self) -> None:
        sizes = {p.name for word in self.index.words("node") for p in self.index.node(word).sizes}
        for name, (mark, _) in self.numbers.dims.items():
            if name not in self.numbers.read:
                severity = "warning" if name in sizes else "error"
                self.report("unread-dim", f"nothing reads dim {name!r}", mark, "leave it out", severity)

    def _section(self, word: str) -> Filler | None:
        value = self.page.get(word)
        if word == "train":
            if "train" not in self.index.words("section"):
                return None
            mark = self.page.mark if value is None else value.mark
            return self._filled(self.index.filler("section", "train"), value, mark, Place())
        return None if value is None else self._filler(value, Type("slot", slot=word), Place())

    # The model

    def _model(self) -> tuple[Node, ...]:
        value = self.page.get("model")
        if value is None:
            self.report("missing-model", "the page has no model", self.page.mark, "model: [token_embedding, ...]")
            return ()
        items = self.expander.model(value)
        depth = sum(isinstance(item, WrittenLayer) for item in items)
        names = iter(naming.name_model(items))
        nodes: list[Node] = []
        stream, layer = Stream("tokens", 0), 0
        for item in items:
            if isinstance(item, WrittenLayer):
                body, stream = self._chain(item.items, stream, names, Place(layer, depth))
                nodes.append(graph.Layer(layer, body))
                layer += 1
            else:
                node, stream = self._node(item, stream, names, Place(None, depth))
                nodes.append(node)
        if not any(finding.severity == "error" for finding in self.findings) and stream.type != "logits":
            message = f"the model ends in {stream}"
            self.report("not-a-model", message, value.mark, "a model gives logits: it ends with lm_head")
        return tuple(nodes)

    def _chain(
        self, items: Sequence[Written], stream: Stream, names: Iterator[str], place: Place
    ) -> tuple[Node, Stream]:
        nodes = []
        for item in items:
            node, stream = self._node(item, stream, names, place)
            nodes.append(node)
        return (nodes[0] if len(nodes) == 1 else graph.Chain(tuple(nodes))), stream

    def _node(self, item: Written, stream: Stream, names: Iterator[str], place: Place) -> tuple[Node, Stream]:
        match item:
            case WrittenLeaf():
                return self._leaf(item, stream, next(names), place)
            case WrittenResidual():
                body, end = self._chain(item.body, stream, names, place)
                if end != stream:
                    message = f"the branch begins as {stream} and ends as {end}"
                    self.report("branch-changes", message, item.mark, "x + f(x) needs f(x) to be like x")
                return graph.Residual(body, item.mark), stream
            case WrittenParallel():
                ends = [self._chain(branch, stream, names, place) for branch in item.branches]
                for (_, end), number in zip(ends[1:], range(2, len(ends) + 1), strict=True):
                    if end != ends[0][1]:
                        message = f"branch 1 gives {ends[0][1]}, and branch {number} {end}"
                        self.report("branches-differ", message, item.mark, "f(x) + g(x) needs both to be alike")
                return graph.Parallel(tuple(node for node, _ in ends), item.mark), ends[0][1]
            case WrittenLayer():
                raise AssertionError("a layer inside a layer")

    def _leaf(self, item: WrittenLeaf, stream: Stream, name: str, place: Place) -> tuple[Leaf, Stream]:
        entry, kind = item.entry, NODES[item.entry.kind]
        if kind.reads != stream.type and not (kind.reads == "any" and stream.type != "tokens"):
            wanted = "a stream or logits" if kind.reads == "any" else kind.reads
            message = f"{entry.word!r} reads {wanted}, and {stream} reaches it"
            self.report("type-mismatch", message, item.mark)
        dim = stream.dim
        own: dict[str, Any] = {} if kind.reads == "tokens" else {"dim": dim}
        for parameter in entry.parameters:
            if parameter.name not in own:
                own[parameter.name] = self._argument(parameter, entry, item.given, item.mark, place, own, name)
        self._check(entry, own, item)
        out = own["out"] if isinstance(own.get("out"), int) else own["dim"] if "dim" in own else dim
        options = tuple((p.name, own[p.name]) for p in entry.parameters if own[p.name] is not _FAULTY)
        leaf = Leaf(entry.word, entry.kind, options, name, name, dim, out if isinstance(out, int) else dim, item.mark)
        first = self.weights.setdefault(id(item), leaf)
        leaf = replace(leaf, weights=first.name)
        gives = stream.type if kind.gives == "any" else kind.gives
        return leaf, Stream(gives, own.get("vocab", dim) if gives == "logits" and "vocab" in own else leaf.out)

    def _check(self, entry: Entry, own: MappingType[str, Any], item: WrittenLeaf) -> None:
        """The leaf's own laws, and those of what fills its slots."""
        self._hold(entry, own, {name: value.mark for name, value in item.given.items()}, item.mark)
        for value in own.values():
            if isinstance(value, Filler):
                filled = self.index.filler(value.kind, value.word)
                self._hold(filled, {**own, **dict(value.options)}, {}, value.mark or item.mark)

    def _hold(
        self, entry: Entry, own: MappingType[str, Any], marks: MappingType[str, Mark], mark: Mark
    ) -> None:
        for check, message in entry.checks.items():
            expression = parse(check, checks=True)
            used = names_in(expression)
            if any(own.get(name) is None or own[name] is _FAULTY for name in used):
                continue
            try:
                good = holds(expression, lambda name, args: own[name])
            except ExpressionError:
                good = False
            if not good:
                place = next((marks[name] for name in used if name in marks), mark)
                self.report("check-failed", message.format(**own), place, f"{entry.word!r} needs {check}")

    # What is written under a word

    def _argument(
        self,
        parameter: Parameter,
        entry: Entry,
        written: MappingType[str, Value],
        mark: Mark,
        place: Place,
        own: MappingType[str, Any],
        name: str,
    ) -> Any:
        value = written.get(parameter.name)
        here = Place(place.layer, place.layers, own)
        if value is not None:
            return self._value(value, parameter.type, here, own, name, at_least=int(parameter.role == "size"))
        if parameter.role == "size" and parameter.name in self.numbers.dims:
            dim = self.numbers.dims[parameter.name][1]
            found = self.numbers.dim(parameter.name, here)
            number = found[1] if found else None
            if number is not None and (not isinstance(number, int) or number < 1):
                message = f"dim {parameter.name!r} is {number}, which is no size"
                self.report("not-a-size", message, dim.mark, "a size is a whole number from 1")
                return _FAULTY
            return _FAULTY if number is None else number
        return self._default(parameter, entry, mark, here, own, name)

    def _default(
        self, parameter: Parameter, entry: Entry, mark: Mark, here: Place, own: MappingType[str, Any], name: str
    ) -> Any:
        default = parameter.default
        if default is REQUIRED:
            where = f", nor does dims" if parameter.role == "size" else ""
            message = f"{entry.word!r} is not given its {parameter.name}{where}"
            self.report("missing-option", message, mark, f"{{{entry.word}: {{{parameter.name}: ...}}}}")
            return _FAULTY
        if isinstance(default, SizeDefault):
            if any(own.get(used) is _FAULTY for used in names_in(parse(default.expression))):
                return _FAULTY
            number = self.numbers.number(Scalar(default.expression, mark), here)
            if number is not None and not isinstance(number, int):
                message = f"{parameter.name} = {default.expression} = {number} is not a whole number"
                self.report("not-whole", message, mark, f"give {entry.word!r} a {parameter.name}")
                return _FAULTY
            return _FAULTY if number is None else number
        if isinstance(default, MakerDefault):
            return self._value(as_written(default, mark), parameter.type, here, own, name)
        return default

    def _value(
        self, value: Value, type: Type, here: Place, own: MappingType[str, Any], name: str, at_least: int | None = None
    ) -> Any:
        """What an option is given, by its type; a finding and ``_FAULTY`` where it does not fit."""
        if type.optional and isinstance(value, Scalar) and value.value == "none":
            return None
        match type.base:
            case "slot":
                return self._filler(value, type, here, own) or _FAULTY
            case "node":
                return self._expert(value, here, own, name)
            case "int":
                number = self.numbers.whole(value, here, -(2**63) if at_least is None else at_least)
                return _FAULTY if number is None else number
            case "float":
                number = self.numbers.number(value, here)
                return _FAULTY if number is None else float(number)
            case "list":
                if not isinstance(value, ValueList) or type.item is None:
                    return self._misfit("a list", value)
                return tuple(self._value(item, type.item, here, own, name) for item in value)
        written = getattr(value, "value", _FAULTY)
        if type.base == "bool":
            return written if isinstance(written, bool) else self._misfit("true or false", value)
        if type.base == "literal":
            if written in type.choices and isinstance(written, str) == isinstance(type.choices[0], str):
                return written
            near = nearest(str(written), [str(choice) for choice in type.choices])
            choices = ", ".join(map(str, type.choices))
            return self._misfit(f"one of {choices}", value, f"did you mean {near!r}?" if near else "")
        return written if isinstance(written, str) else self._misfit("a word", value)

    def _misfit(self, wanted: str, value: Value, help: str = "") -> Any:
        shown = {True: "true", False: "false", None: "null"}.get(value.value, value.value) if isinstance(value, Scalar) else "this"
        shown = {Mapping: "a map", ValueList: "a list"}.get(type(value), repr(shown))
        self.report("bad-value", f"{shown} is not {wanted}", value.mark, help)
        return _FAULTY

    def _filler(
        self, value: Value, type: Type, here: Place, own: MappingType[str, Any] | None = None
    ) -> Filler | None:
        """What fills a slot.  Inside a leaf (``own``) its sizes are given by the leaf, and not written."""
        key, under = (value, None) if isinstance(value, Scalar) else (value, value)
        if isinstance(value, Mapping) and len(value) == 1:
            key, under = value.entries[0]
        elif isinstance(value, ValueList) or isinstance(value, Mapping):
            self.report("not-a-filler", f"a {type.slot} is one word, or one word with its options", value.mark)
            return None
        words = list(self.index.words(type.slot))
        if not isinstance(key, Scalar) or key.value not in words:
            near = nearest(str(getattr(key, "value", "")), words)
            legal = f"{type.slot}: " + ", ".join([*words, *["none"] * type.optional])
            help = f"did you mean {near!r}? {legal}" if near else legal
            shown = getattr(key, "value", "this")
            message = f"{shown!r} is not a {type.slot}" if shown is not None else f"nothing is given for {type.slot}"
            self.report("unknown-word", message, key.mark, help)
            return None
        entry = self.index.filler(type.slot, str(key.value))
        return self._filled(entry, under, key.mark, here, own)

    def _filled(
        self, entry: Entry, under: Value | None, mark: Mark, here: Place, own: MappingType[str, Any] | None = None
    ) -> Filler:
        sizes = {p.name for p in entry.sizes} if own is not None else set()
        written = given(entry, under, self.findings, sizes)
        known: dict[str, Any] = dict(own or {})
        for parameter in entry.parameters:
            if parameter.name not in sizes:
                known[parameter.name] = self._argument(parameter, entry, written, mark, here, known, entry.word)
        if own is None:
            self._hold(entry, known, {name: value.mark for name, value in written.items()}, mark)
        options = tuple((p.name, known[p.name]) for p in entry.parameters if p.name not in sizes)
        return Filler(entry.word, entry.kind, options, mark)

    def _expert(self, value: Value, here: Place, own: MappingType[str, Any], name: str) -> Any:
        """A node that a leaf holds: it takes a stream of the leaf's width, gives one, and mixes no tokens."""
        items = self.expander.node(value, Scope(branch=True))
        for leaf in written_leaves(items):
            if NODES[leaf.entry.kind].mixes:
                message = f"{leaf.entry.word!r} mixes tokens, which an expert may not"
                self.report("expert-mixes", message, leaf.mark)
        if not items:
            return _FAULTY
        names = (f"{name}.{part}" for part in naming.name_body(items))
        stream = Stream("stream", own["dim"])
        node, end = self._chain(items, stream, names, Place(here.layer, here.layers))
        if end != stream:
            self.report("branch-changes", f"the expert begins as {stream} and ends as {end}", value.mark)
        return node

