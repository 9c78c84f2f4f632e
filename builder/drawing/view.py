"""What a diagram shows of a recipe: alike layers once, captions, and what is read across depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from blocks.kinds import NODES
from builder.captions import Caption, caption
from builder.fold import Folded, Repeat, fold
from builder.graph import Graph, Layer, Leaf, edges, leaves, taps
from builder.index import Index, load_index
from builder.recipe import Recipe

Source: TypeAlias = int | str  # a tap's number, or a leaf's name


@dataclass(frozen=True)
class Link:
    """The leaf ``reader`` reads ``source`` by ``option``, which is empty for a lone value."""

    source: Source
    reader: str
    option: str


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


def _links(every: list[Leaf], index: Index, drawn: dict[Source, Source]) -> Iterator[Link]:
    for leaf in every:
        for name, edge in edges(leaf):
            lone = index.node(leaf.word).parameter(name).role == "value"
            yield Link(drawn[edge.source], str(drawn[leaf.name]), "" if lone else name)
