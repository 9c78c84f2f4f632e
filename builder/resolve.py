"""A page of marked values -> the resolved graph: names, sizes, defaults and widths filled in."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field

from builder import graph
from builder.compose import Composer
from builder.errors import Finding, Mark, merged, raise_all
from builder.expand import STRUCTURE, WORD, Expander, Scope
from builder.graph import Filler, Graph, Named, Node, Stream
from builder.index import Index, nearest
from builder.lints import lints
from builder.numbers import Number, Numbers, page_dims
from builder.read import Mapping, Value
from builder.read import Sequence as ValueList

VERSION = 1
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


def resolve_graph(page: Mapping, index: Index) -> Graph:
    """The model of a page, whatever else the page says.  RecipeError carries every finding."""
    return _Page(page, index).graph()


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


@dataclass
class _Page:
    page: Mapping
    index: Index
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        dims = page_dims(self.page.get("dims"), self.findings)
        self.numbers = Numbers(dims, self.findings, base=self.page.mark.source)
        expander = Expander(self._blocks(), self.index, self.numbers.whole, self.findings)
        self.model = Composer(expander, self.index, self.numbers, self.findings)

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
        self._check_tasks(tokenizer, data, train)
        whole = self.graph()
        self._check_unread()
        dims = self._dims()
        for mark, label in self.model.wiring.unread():
            message = f"nothing reads label {label!r}"
            self.report("unread-label", message, mark, "leave it out", severity="warning")
        raise_all(self.findings)
        name = getattr(self.page.get("name"), "value", "model")
        self.findings += lints(whole)
        return Resolved(
            str(name), whole, dims, tokenizer, data, train, tuple(merged(self.findings))
        )

    def graph(self) -> Graph:
        """The model alone."""
        vocab, context = map(self._needed_dim, ("vocab", "context"))
        items = self._items(vocab)
        self._check_unused()
        raise_all(merged(self.findings))  # a block's fault is found in each layer
        return Graph(items, vocab, context)

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
        if value is None or getattr(value, "value", None) == "none":
            return None
        return self.model.arguments.section(value, kind)

    def _check_tasks(self, tokenizer: Filler | None, data: Filler | None, train: Filler) -> None:
        """A task gives tokens: it needs no tokenizer, and what stands beside it is no text."""
        task = data is not None and data.kind == "probe"
        if task and tokenizer is not None:
            assert data is not None and tokenizer.mark is not None
            message = f"{data.word!r} gives tokens, so that there is nothing to tokenise"
            self.report("idle-tokenizer", message, tokenizer.mark, "leave it out: tokenizer=none")
        sets = dict(train.options).get("eval_sets")
        if data is None or not isinstance(sets, Named):
            return
        for (name, source), mark in zip(sets, sets.marks, strict=True):
            assert isinstance(source, Filler)
            if (source.kind == "probe") != task:
                what = "text, and the data is a task" if task else "a task, and the data is text"
                self.report("mixed-data", f"{name!r} is {what}", mark, "they share no vocabulary")

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
