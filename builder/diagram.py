"""What a diagram shows of a recipe: alike layers once, a caption for each leaf, and what is read
across depth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from blocks.kinds import NODES
from builder.expressions import evaluate, names, parse
from builder.fold import Folded, Repeat, fold
from builder.graph import (
    NODE,
    Chain,
    Edge,
    Filler,
    Graph,
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
from builder.index import Entry, Index, Parameter, SizeDefault, load_index
from builder.recipe import Recipe

Source: TypeAlias = int | str  # a tap's number, or a leaf's name


@dataclass(frozen=True)
class Link:
    """The leaf ``reader`` reads ``source`` by ``option``, which is empty for a lone value."""

    source: Source
    reader: str
    option: str


@dataclass(frozen=True)
class Caption:
    """What is written of a leaf: its word with its lone value, and what else matters of it."""

    word: str
    details: tuple[str, ...] = ()

    def with_detail(self, *details: str) -> Caption:
        return replace(self, details=(*self.details, *details))


@dataclass(frozen=True)
class View:
    """A recipe folded for drawing.

    ``captions`` go by the names of the leaves that are drawn.  ``shared`` are the repeats whose
    every leaf has weights that are used more than once.  Links join what is drawn.
    """

    title: str
    about: str
    items: tuple[Folded, ...]
    captions: dict[str, Caption]
    shared: frozenset[Repeat]
    links: tuple[Link, ...]


def view(recipe: Recipe) -> View:
    """A recipe as its diagram shows it.  Torch is not needed."""
    graph, index = recipe.graph, load_index(recipe.plugins)
    items = fold(graph)
    drawn = _drawn(graph, items)
    every = list(leaves(graph))
    captions = {leaf.name: caption(leaf, index) for leaf in every if drawn[leaf.name] == leaf.name}
    uses = Counter(leaf.weights for leaf in every)
    often = {str(drawn[leaf.name]) for leaf in every if uses[leaf.weights] > 1}
    shared = frozenset(r for r in _repeats(items) if all(x.name in often for x in inside(r)))
    told = {leaf.name for repeat in shared for leaf in inside(repeat)}
    for leaf in every:
        if leaf.name in often - told and NODES[leaf.kind].anchor:
            captions[leaf.name] = captions[leaf.name].with_detail("shared weights")
    links = tuple(dict.fromkeys(_links(every, index, drawn)))
    return View(recipe.name, _about(graph), items, captions, shared, links)


def inside(item: Folded) -> Iterator[Leaf]:
    """The leaves of an item, those of a repeat once."""
    if isinstance(item, Repeat):
        for part in item.items:
            yield from inside(part)
    else:
        yield from leaves(item)


def _repeats(items: tuple[Folded, ...]) -> Iterator[Repeat]:
    for item in items:
        if isinstance(item, Repeat):
            yield item
            yield from _repeats(item.items)


def _about(graph: Graph) -> str:
    depth = len(graph.layers)
    layers = [f"{depth} layer{'s' * (depth != 1)}"] if depth else []
    width = next(leaf.out for leaf in leaves(graph))
    sizes = {"dim": width, "vocab": graph.vocab, "context": graph.context}
    return " · ".join([*layers, *(f"{name} {size}" for name, size in sizes.items())])


def _drawn(graph: Graph, items: tuple[Folded, ...]) -> dict[Source, Source]:
    """What stands in the drawing for each leaf and each tap: that of the first layer alike."""
    drawn: dict[Source, Source] = {leaf.name: leaf.name for leaf in leaves(graph)}
    drawn |= {number: number for number in taps(graph)}
    for layer, shown in zip(graph.layers, _unfolded(items), strict=True):
        of_leaves = zip(leaves(layer), leaves(shown), strict=True)
        drawn |= {ours.name: theirs.name for ours, theirs in of_leaves}
        drawn |= dict(zip(taps(layer), taps(shown), strict=True))
    return drawn


def _unfolded(items: tuple[Folded, ...]) -> Iterator[Layer]:
    """For each layer of the model, the one that is drawn for it."""
    for item in items:
        if isinstance(item, Repeat):
            for _ in range(item.times):
                yield from _unfolded(item.items)
        elif isinstance(item, Layer):
            yield item


def taps(node: Node | Graph) -> Iterator[int]:
    """The numbers of the taps in a node, in order of execution."""
    match node:
        case Tap():
            yield node.number
        case Residual() | Layer() | Joined():
            yield from taps(node.body)
        case Chain() | Graph():
            for item in node.items:
                yield from taps(item)
        case Parallel():
            for branch in node.branches:
                yield from taps(branch)


def _links(every: list[Leaf], index: Index, drawn: dict[Source, Source]) -> Iterator[Link]:
    for leaf in every:
        for name, value in leaf.options:
            lone = index.node(leaf.word).parameter(name).role == "value"
            for edge in value if isinstance(value, tuple) else (value,):
                if isinstance(edge, Edge):
                    reader = str(drawn[leaf.name])
                    yield Link(drawn[edge.source], reader, "" if lone else name)


# Captions


def caption(leaf: Leaf, index: Index) -> Caption:
    """What fills the slots, whole numbers unless another size gives them, and whatever is not at
    its default.
    """
    entry = index.node(leaf.word)
    worth = [(p, text) for p, text in _worth(entry, leaf.options, index) if p.name != "dim"]
    lone = [text for p, text in worth if p.role == "value"]
    details = [_named(p, text) for p, text in worth if p.role != "value"]
    return Caption(" ".join([leaf.word, *lone]), tuple(details))


def _worth(
    entry: Entry, options: tuple[tuple[str, Value], ...], index: Index
) -> Iterator[tuple[Parameter, str]]:
    """The options worth telling, each with its value in a word or two."""
    for name, value in options:
        parameter = entry.parameter(name)
        if not _is_plain(parameter, value, dict(options)):
            yield parameter, told(value, index)


def _is_plain(parameter: Parameter, value: Value, beside: dict[str, Value]) -> bool:
    """Whether an option needs no telling, or is drawn otherwise."""
    match value:
        case None:
            return True
        case tuple() if any(isinstance(item, Edge) for item in value):
            return True
        case Edge():
            return True
        case Filler():
            return False
        case int() if not isinstance(value, bool):
            return isinstance(parameter.default, SizeDefault) and follows(
                parameter.default, value, beside
            )
    return isinstance(value, NODE) or value == parameter.default


def follows(default: SizeDefault, value: Value, beside: dict[str, Value]) -> bool:
    """Whether the leaf's other sizes, ``dim`` aside, make a size what it is."""
    expression = parse(default.expression)

    def lookup(name: str, args: tuple[object, ...]) -> Value:
        return beside.get(name)

    return names(expression) != {"dim"} and evaluate(expression, lookup) == value


def told(value: Value, index: Index) -> str:
    """An option's value in a word or two."""
    match value:
        case Filler():
            worth = _worth(index.filler(value.kind, value.word), value.options, index)
            inside = [text if p.role == "value" else _named(p, text) for p, text in worth]
            return " ".join([value.word, *inside])
        case tuple():
            return ", ".join(told(item, index) for item in value)
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.6g}")
    return str(value)


def _named(parameter: Parameter, text: str) -> str:
    """An option in words; a slot of its kind's own name is told by what fills it."""
    if parameter.type.base == "bool":
        return parameter.name if text == "true" else f"no {parameter.name}"
    return text if parameter.type.slot == parameter.name else f"{parameter.name} {text}"
