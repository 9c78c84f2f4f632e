"""A resolved model as one page, top to bottom, with what each part costs; or the same as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from textwrap import fill
from typing import Any

import yaml

from blocks.kinds import NODES
from builder.captions import follows
from builder.defaults import without_defaults
from builder.fold import LAYER, Folded, Repeat, fold
from builder.graph import (
    Chain,
    Edge,
    Filler,
    Joined,
    Layer,
    Leaf,
    Node,
    Parallel,
    Residual,
    Tap,
    Value,
    leaves,
)
from builder.index import Entry, Index, SizeDefault, load_index
from builder.measure import Costs, LeafCosts, total
from builder.recipe import Recipe

TREE, WIDTHS = 36, 15
COLUMNS = {"parameters": 13, "prefill": 9, "decode": 9, "train": 9, "cache": 9}
PAGE = TREE + WIDTHS + sum(COLUMNS.values())
_PARTS = "past {:,} tokens, in parts and at once differ"
UNITS = ("", "k", "M", "G", "T", "P", "E")


def page(recipe: Recipe, costs: Costs) -> str:
    """The model as a table, its totals, and the formula and source of each block."""
    layout = Layout(recipe, costs)
    parts = [layout.title(), "", *layout.table(), "", *layout.totals(), "", *layout.blocks()]
    return "\n".join(line.rstrip() for line in parts)


@dataclass(frozen=True)
class Row:
    """A line of the table: what it shows, the width around it, whose costs it sums up."""

    depth: int
    text: str
    widths: str = ""
    costs: tuple[LeafCosts, ...] = ()
    notes: tuple[str, ...] = ()
    branch: bool = False  # the first of a parallel branch

    def lines(self, whole: Costs) -> Iterator[str]:
        """The row itself, and its notes below."""
        indent = "  " * self.depth
        text = (f"{indent[:-2]}+ " if self.branch else indent) + self.text
        if len(text) >= TREE and self.costs:
            yield text
            text = ""
        yield f"{text:<{TREE}}{self.widths:<{WIDTHS}}" + _cells(self.costs, whole)
        for note in self.notes:
            whole_pairs = note.replace(": ", ":\xa0")
            yield _paragraph(whole_pairs, indent + "  ").replace("\xa0", " ")


@dataclass(frozen=True)
class Layout:
    """Lays out one recipe's page."""

    recipe: Recipe
    costs: Costs

    @cached_property
    def index(self) -> Index:
        return load_index(self.recipe.plugins)

    @cached_property
    def places(self) -> Counter[str]:
        """In how many places each leaf's weights are used."""
        return Counter(costs.leaf.weights for costs in self.costs.leaves)

    @cached_property
    def named(self) -> dict[str, LeafCosts]:
        return {costs.leaf.name: costs for costs in self.costs.leaves}

    def title(self) -> str:
        graph = self.recipe.graph
        depth = len(graph.layers)
        layers = [f"{depth} layer{'s' * (depth != 1)}"] if depth else []
        sizes = [f"vocab {graph.vocab}", f"context {graph.context}", f"hash {self.recipe.hash}"]
        return f"{self.recipe.name}: {', '.join([*layers, *sizes])}"

    # The table

    def table(self) -> Iterator[str]:
        """Every node, with the layers folded; a number stands for all that its row names."""
        flops = sum(COLUMNS[name] for name in ("prefill", "decode", "train"))
        start = TREE + WIDTHS + COLUMNS["parameters"]
        yield f"{'':<{start}}{'FLOPs a token':^{flops}}{'B a token':>{COLUMNS['cache']}}"
        heads = "".join(f"{name:>{size}}" for name, size in COLUMNS.items())
        yield f"{'node':<{TREE}}{'(B, T, width)':<{WIDTHS}}{heads}"
        for row in self.rows(fold(self.recipe.graph)):
            yield from row.lines(self.costs)
        yield from Row(0, "in all", costs=self.costs.leaves).lines(self.costs)

    def rows(self, items: Iterable[Folded], at: int = 0, depth: int = 0) -> Iterator[Row]:
        """The rows of a graph's items, of which the first layer is the ``at``-th."""
        for item in items:
            if isinstance(item, Repeat):
                layers = item.times * _layers(item.items)
                alone = len(item.items) == 1
                each = "" if alone else f" {layers // item.times} layers"
                text = f"layers {at}-{at + layers - 1}, {item.times} ×{each}"
                yield Row(depth, text, costs=self.within(at, layers))
                inside = self.node(item.items[0].body, depth + 1) if alone else None  # type: ignore[union-attr]
                yield from inside or self.rows(item.items, at, depth + 1)
                at += layers
            elif isinstance(item, Layer):
                yield Row(depth, f"layer {at}", costs=self.within(at, 1))
                yield from self.node(item.body, depth + 1)
                at += 1
            else:
                yield from self.node(item, depth)

    def within(self, first: int, layers: int) -> tuple[LeafCosts, ...]:
        """The leaves of so many layers."""
        span = range(first, first + layers)
        return tuple(costs for costs in self.costs.leaves if costs.layer in span)

    def node(self, node: Node, depth: int) -> Iterator[Row]:
        """The rows of a node, a branch one step in."""
        match node:
            case Leaf():
                yield self.leaf(node, depth)
            case Chain():
                for item in node.items:
                    yield from self.node(item, depth)
            case Residual():
                yield Row(depth, "residual")
                yield from self.node(node.body, depth + 1)
            case Joined():
                yield self.leaf(node.joiner, depth)
                yield from self.node(node.body, depth + 1)
            case Parallel():
                yield Row(depth, "parallel")
                for branch in node.branches:
                    first, *rest = self.node(branch, depth + 1)
                    yield from (replace(first, branch=True), *rest)
            case Tap():
                yield Row(depth, _tap(node.number) + ", read further on")

    def leaf(self, leaf: Leaf, depth: int) -> Row:
        costs = self.named[leaf.name]
        before = "ids" if NODES[leaf.kind].reads == "tokens" else leaf.dim
        told = options(leaf, self.index)
        notes = [_flow(told)] if told else []
        if self.places[leaf.weights] > 1:
            notes.append(f"one set of weights in {self.places[leaf.weights]} places")
        if costs.cache_bytes and not costs.cache_bytes_per_token:
            notes.append(f"remembers {costs.cache_bytes:,} B a sequence, however long")
        if costs.reads_length is not None:
            notes.append(f"reads how long a text is: {_PARTS.format(costs.reads_length)}")
        text = LAYER.sub("", leaf.name)
        return Row(depth, text, f"{before} → {leaf.out}", (costs,), tuple(notes))

    # Totals

    def totals(self) -> Iterator[str]:
        """Everything that the table rounds, in full, and what each number means."""
        costs, memory = self.costs, self.costs.memory
        assert memory is not None, "a page tells of training"
        parameters = {
            "in all": costs.parameters,
            "active: those that one token uses": costs.active_parameters,
            "embedding: of what reads tokens and gives logits": costs.embedding_parameters,
        }
        yield from _block("parameters", parameters)
        per_token = {name: costs.per_token(getattr(costs, name)) for name in ("prefill", "train")}
        flops = {
            f"prefill: a forward over {costs.length} tokens": per_token["prefill"],
            f"decode: one token after {costs.length - 1} cached": costs.decode,
            f"train: forward and backward over {costs.length}": per_token["train"],
        }
        yield from _block("FLOPs a token", flops)
        cache = {
            f"a token in {costs.dtype}, before any window is full": costs.cache_bytes_per_token,
            f"a sequence of {costs.length}": costs.cache_bytes,
        }
        yield from _block("cache, in bytes", cache)
        train = {
            "weights": memory.weights,
            **({"average of the weights": memory.average} if memory.average else {}),
            "gradients": memory.gradients,
            f"optimizer: {_optimizer(self.recipe)}": memory.optimizer,
            f"activations of {costs.batch} × {costs.length} tokens, computed in {costs.dtype}": (
                memory.activations
            ),
            **({"weights gathered from the others": memory.gathered} if memory.gathered else {}),
            "in all": memory.total,
        }
        of = "to train" if costs.world == 1 else f"of each of {costs.world}"
        yield from _block(f"memory {of}, in bytes", train)
        yield ""
        yield "FLOPs are those of matrix products, as torch.utils.flop_counter counts them: causal"
        yield "attention in full, a window as computed.  Activations are those that a CPU keeps."

    # Blocks

    def blocks(self) -> Iterator[str]:
        """Each block's formula, source and file."""
        used = {(e.kind, e.word): e for leaf in leaves(self.recipe.graph) for e in self.words(leaf)}
        for entry in used.values():
            yield f"{entry.word}, {entry.place}"
            yield _paragraph(_plain(entry.summary), "  ")
            if entry.source:
                yield _paragraph(_plain(entry.source), "  ")

    def words(self, block: Leaf | Filler) -> Iterator[Entry]:
        """A block, and whatever fills its slots."""
        yield registered(block, self.index)
        for _, value in block.options:
            if isinstance(value, Filler):
                yield from self.words(value)


def registered(block: Leaf | Filler, index: Index) -> Entry:
    """The signature of a block."""
    if isinstance(block, Leaf):
        return index.node(block.word)
    return index.filler(block.kind, block.word)


def options(block: Leaf | Filler, index: Index) -> dict[str, Any]:
    """What a block is given beside its width and its defaults, as a page would write it."""
    entry, beside = registered(block, index), dict(block.options)
    changed = dict(without_defaults(block, index)[1])

    def is_given(name: str) -> bool:
        default = entry.parameter(name).default
        if isinstance(default, SizeDefault):
            return not follows(default, beside[name], beside)
        return name in changed

    return {
        name: written(value, index)
        for name, value in beside.items()
        if name not in ("dim", "vocab") and is_given(name)
    }


def written(value: Value, index: Index) -> Any:
    """A resolved value as a page would write it, its defaults left out."""
    match value:
        case Leaf() | Filler():
            return _under(value, index)
        case Joined(joiner, body):
            return {joiner.word: written(body, index), **options(joiner, index)}
        case Chain(items):
            return [written(item, index) for item in items]
        case Residual(body):
            return {"residual": written(body, index)}
        case Parallel(branches):
            return {"parallel": [written(branch, index) for branch in branches]}
        case Edge(_, source):
            return source if isinstance(source, str) else _tap(source)
        case tuple():
            return [written(part, index) for part in value]
    return "none" if value is None else value


def _under(block: Leaf | Filler, index: Index) -> Any:
    given = options(block, index)
    lone = list(given) == [parameter.name for parameter in registered(block, index).value]
    return {block.word: next(iter(given.values())) if lone else given} if given else block.word


def as_json(recipe: Recipe, costs: Costs) -> dict[str, Any]:
    """The page for machines: numbers in full, None for what is unknown, one node for each leaf."""
    index, memory = load_index(recipe.plugins), costs.memory
    assert memory is not None, "a page tells of training"
    parts = ("weights", "average", "gradients", "optimizer", "activations", "gathered", "total")
    totals = {
        **_numbers((*costs.leaves,), costs),
        "embedding_parameters": costs.embedding_parameters,
        "memory": {name: getattr(memory, name) for name in parts},
    }
    return {
        "name": recipe.name,
        "hash": recipe.hash,
        "length": costs.length,
        "batch": costs.batch,
        "dtype": costs.dtype,
        "totals": totals,
        "nodes": [_json_node(leaf, costs, index) for leaf in costs.leaves],
    }


def _json_node(own: LeafCosts, costs: Costs, index: Index) -> dict[str, Any]:
    leaf, entry = own.leaf, index.node(own.leaf.word)
    reads = [] if NODES[leaf.kind].reads == "tokens" else [leaf.dim]
    return {
        "name": leaf.name,
        "word": leaf.word,
        "layer": own.layer,
        "weights": leaf.weights,
        "formula": _plain(entry.summary),
        "source": _plain(entry.source),
        "file": entry.place,
        "shape": {"reads": ["B", "T", *reads], "gives": ["B", "T", leaf.out]},
        "options": options(leaf, index),
        "reads_length": own.reads_length,
        **_numbers((own,), costs),
    }


def _numbers(some: tuple[LeafCosts, ...], costs: Costs) -> dict[str, int | float | None]:
    def summed(name: str) -> int | None:
        return total(getattr(leaf, name) for leaf in some)

    return {
        "parameters": summed("parameters"),
        "active_parameters": summed("active_parameters"),
        "flops_per_token": costs.per_token(summed("prefill")),
        "decode_flops_per_token": summed("decode"),
        "train_flops_per_token": costs.per_token(summed("train")),
        "cache_bytes_per_token": summed("cache_bytes_per_token"),
        "cache_bytes_per_sequence": summed("cache_bytes"),
    }


# Text


def _cells(some: tuple[LeafCosts, ...], costs: Costs) -> str:
    if not some:
        return ""
    numbers = _numbers(some, costs)
    flops = ("flops_per_token", "decode_flops_per_token", "train_flops_per_token")
    texts = [
        _whole(numbers["parameters"]),
        *(_rounded(numbers[name]) for name in flops),
        _rounded(numbers["cache_bytes_per_token"]),
    ]
    return "".join(f"{t:>{size}}" for t, size in zip(texts, COLUMNS.values(), strict=True))


def _whole(number: float | None) -> str:
    if number is None:
        return "unknown"
    return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"


def _rounded(number: float | None) -> str:
    """Four digits and a unit: ``134.2 M``."""
    if not number:
        return "unknown" if number is None else "–"
    scale = min(int(math.log10(number)) // 3, len(UNITS) - 1)
    return f"{number / 1000**scale:.4g} {UNITS[scale]}".rstrip()


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "").split())


def _paragraph(text: str, indent: str) -> str:
    return fill(text, PAGE, initial_indent=indent, subsequent_indent=indent)


def _block(head: str, rows: Mapping[str, float | None]) -> Iterator[str]:
    for name, number in rows.items():
        yield f"{head:<26}{_whole(number):>21}  {name}"
        head = ""


def _flow(given: dict[str, Any]) -> str:
    """``position: rope, mask: {sliding_window: 48}``."""
    text: str = yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()[1:-1]


def _tap(number: int) -> str:
    return f"tap {number}"


def _optimizer(recipe: Recipe) -> str:
    filler = recipe.train["optimizer"]
    assert isinstance(filler, Filler), filler
    return filler.word


def _layers(items: Iterable[Folded]) -> int:
    counts = (item.times * _layers(item.items) for item in items if isinstance(item, Repeat))
    return sum(counts) + sum(isinstance(item, Layer) for item in items)
