"""A recipe made small: what laws say of the small one, they say of each kind of layer of its own.

The twin has every distinct layer, its widths divided by one number, few words and few positions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any, TypeAlias

import torch

from blocks.kinds import NODES
from builder.arguments import check_holds
from builder.fold import shape
from builder.graph import (
    NODE,
    Chain,
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
    edges,
    leaves,
)
from builder.index import Entry, Index, load_index
from builder.measure import no_ids, shapes_alone
from builder.model import Model, build
from builder.recipe import Recipe

ALIKE = 2  # of the layers that are alike, how many are kept
WIDE = 32  # a stream of this width is small
NARROWEST = 4  # a norm of one number is its sign, and of two not much more
VOCAB = 64
CONTEXT = 40
FEW = 4  # tokens that a twin is tried on
LARGE = 20_000_000  # weights: more are not drawn only to try something
SPANS = ("window", "chunk")  # options that count positions, beside all of a mask's
WIDTHS = re.compile(r"ff|out|(.+_)?(dim|rank|width)")  # sizes that go with the stream's
LAYER = re.compile(r"\blayers\.(\d+)\b")
OF_THE_PAGE = ("page", "text", "resolved", "set")

Change: TypeAlias = Callable[[Leaf, str], Leaf]  # a leaf, and the type of what reaches it


class NoPage(Exception):
    """A law asked for a recipe's page, which only the recipe itself has."""


class SmallRecipe(Recipe):
    """A recipe that nobody wrote: no page says what it means."""

    def __getattribute__(self, name: str) -> Any:
        if name in OF_THE_PAGE:
            raise NoPage(name)
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Twin:
    """A small recipe, and the recipe that it stands for.

    ``layers`` are the numbers of the original's layers that the small one has, in order.
    """

    recipe: Recipe
    original: Recipe
    layers: tuple[int, ...]

    @property
    def is_itself(self) -> bool:
        return self.recipe is self.original

    def in_original(self, text: str) -> str:
        """A name, or words about names, with the numbers of the original's layers."""
        own = dict(enumerate(map(str, self.layers)))
        return LAYER.sub(lambda found: f"layers.{own.get(int(found[1]), found[1])}", text)

    def __str__(self) -> str:
        if self.is_itself:
            return "as it is"
        small, whole = self.recipe.graph, self.original.graph
        width, wide = widest(small), widest(whole)
        counts = (
            ("layers", len(small.layers), len(whole.layers)),
            ("words", small.vocab, whole.vocab),
            ("positions", small.context, whole.context),
        )
        said = [f"width {width} for {wide:,}"] if width != wide else []
        said += [f"{few} of {many:,} {what}" for what, few, many in counts if few != many]
        return f"as a twin: {', '.join(said) or 'shorter windows'}"


def twin(recipe: Recipe) -> Twin:
    """The smallest recipe that is legal, can run, and has every distinct layer of this one."""
    index = load_index(recipe.plugins)
    layers = kept_layers(recipe.graph)
    shallow = with_layers(recipe.graph, layers)
    smaller = (Shrink(index, shallow, *way).graph() for way in _ways(shallow))
    legal = [graph for graph in smaller if is_legal(graph, index)]
    found = next((graph for graph in legal if _runs(unwritten(recipe, graph))), None)
    if found is None:  # at no size, or not without data: the laws will say what is wrong
        found = legal[0] if legal else recipe.graph
    if found == recipe.graph:
        return Twin(recipe, recipe, layers)
    return Twin(unwritten(recipe, found), recipe, layers)


def unwritten(recipe: Recipe, graph: Graph) -> Recipe:
    """The recipe, of another meaning."""
    dims = {"vocab": graph.vocab, "context": graph.context}
    meaning = replace(recipe.meaning, graph=graph, dims=dims)
    return SmallRecipe("", recipe.page, meaning, recipe.plugins)


def _runs(recipe: Recipe) -> bool:
    """Whether the model can be built, and reads a few tokens: without data, if it is large."""
    length = min(FEW, recipe.graph.context)
    try:
        model, ids = shapes_alone(recipe, torch.float32), no_ids(length)
        if count_weights(model) <= LARGE:
            model, ids = build(recipe), torch.zeros(1, length, dtype=torch.long)
        with torch.no_grad():
            model(ids)
    except Exception:  # whatever a plug-in's block raises
        return False
    return True


def count_weights(model: Model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def is_legal(graph: Graph, index: Index) -> bool:
    """Whether every leaf, and what fills its slots, keeps what its class states."""
    return all(_keeps_checks(leaf, index) for leaf in leaves(graph))


def _keeps_checks(leaf: Leaf, index: Index) -> bool:
    known = {"dim": leaf.dim, **dict(leaf.options)}
    held = [(index.node(leaf.word), known)]
    for filler in (value for value in known.values() if isinstance(value, Filler)):
        own = {**known, **dict(filler.options)}
        held.append((index.filler(filler.kind, filler.word), own))
    return all(check_holds(check, own) for entry, own in held for check in entry.checks)


# Layers


def kept_layers(graph: Graph) -> tuple[int, ...]:
    """The layers of a twin: two of those alike, and whose weights they share.

    All of them, if something is read across depth.
    """
    layers = graph.layers
    if any(True for leaf in leaves(graph) for _ in edges(leaf)):
        return tuple(range(len(layers)))
    seen: Counter[Hashable] = Counter()
    kept: set[int] = set()
    for layer in layers:
        key = _likeness(layer)
        seen[key] += 1
        kept |= {layer.index} if seen[key] <= ALIKE else set()
    owners = {leaf.name: layer.index for layer in layers for leaf in leaves(layer)}
    while lent := _lenders(graph, kept, owners) - kept:
        kept |= lent
    return tuple(sorted(kept))


def _likeness(layer: Layer) -> Hashable:
    """Equal for two layers that do the same, with weights of their own or the same others."""
    own = f"layers.{layer.index}."
    shared = (leaf.weights for leaf in leaves(layer) if not leaf.weights.startswith(own))
    return shape(layer.body), tuple(shared)


def _lenders(graph: Graph, kept: set[int], owners: dict[str, int]) -> set[int]:
    """The layers whose weights these use."""
    used = (leaf.weights for layer in graph.layers if layer.index in kept for leaf in leaves(layer))
    return {owners[name] for name in used if name in owners}


def with_layers(graph: Graph, kept: tuple[int, ...]) -> Graph:
    """The graph with these layers alone, counted from 0."""
    new = {str(old): str(index) for index, old in enumerate(kept)}

    def moved(name: str) -> str:
        return LAYER.sub(lambda found: f"layers.{new[found[1]]}", name)

    def renamed(leaf: Leaf, type: str) -> Leaf:
        return replace(leaf, name=moved(leaf.name), weights=moved(leaf.weights))

    def placed(item: Node) -> Node:
        return replace(item, index=kept.index(item.index)) if isinstance(item, Layer) else item

    if len(kept) == len(graph.layers):
        return graph
    items = (item for item in graph.items if not isinstance(item, Layer) or item.index in kept)
    return rebuilt(replace(graph, items=tuple(map(placed, items))), renamed)


def rebuilt(graph: Graph, change: Change) -> Graph:
    """The graph with every leaf changed, experts included."""
    return replace(graph, items=_in_turn(graph.items, "tokens", change)[0])


def _in_turn(items: tuple[Node, ...], type: str, change: Change) -> tuple[tuple[Node, ...], str]:
    """Nodes one after another, changed, and the type of what the last gives."""
    done = []
    for item in items:
        node, type = _rebuilt(item, type, change)
        done.append(node)
    return tuple(done), type


def _rebuilt(node: Node, type: str, change: Change) -> tuple[Node, str]:
    match node:
        case Leaf():
            gives = NODES[node.kind].gives
            return _leaf(node, type, change), type if gives == "any" else gives
        case Chain():
            items, type = _in_turn(node.items, type, change)
            return Chain(items), type
        case Residual() | Layer():
            body, _ = _rebuilt(node.body, type, change)
            return replace(node, body=body), type
        case Joined():
            body, _ = _rebuilt(node.body, type, change)
            return Joined(_leaf(node.joiner, type, change), body), type
        case Parallel():
            branches, types = zip(*(_rebuilt(b, type, change) for b in node.branches), strict=True)
            return replace(node, branches=branches), types[0]
        case Tap():
            return node, type


def _leaf(leaf: Leaf, type: str, change: Change) -> Leaf:
    """A leaf changed, what it holds first."""

    def inside(value: Value) -> Value:
        return _rebuilt(value, "stream", change)[0] if isinstance(value, NODE) else value

    options = tuple((name, inside(value)) for name, value in leaf.options)
    return change(replace(leaf, options=options), type)


# Widths


def widest(graph: Graph) -> int:
    """The width of the widest stream."""
    return max(stream_widths(graph))


def stream_widths(graph: Graph) -> set[int]:
    """Every width that a stream has somewhere."""
    found: set[int] = set()

    def note(leaf: Leaf, type: str) -> Leaf:
        reads, gives = NODES[leaf.kind].reads, NODES[leaf.kind].gives
        found.update({leaf.dim} if "stream" in (reads, type if reads == "any" else "") else ())
        found.update({leaf.out} if "stream" in (gives, type if gives == "any" else "") else ())
        return leaf

    rebuilt(graph, note)
    return found


def _ways(graph: Graph) -> Iterator[tuple[int, bool]]:
    """What to divide widths by, the most first, and whether a plug-in's numbers too.

    Every stream's width stays whole, so that what held of one in terms of another still holds.
    """
    widths = stream_widths(graph)
    most = max(1, max(widths) // WIDE)
    for factor in range(most, 0, -1):
        if all(
            width % factor == 0 and width // factor >= min(width, NARROWEST) for width in widths
        ):
            yield factor, False
            yield factor, True


@dataclass(frozen=True)
class Shrink:
    """One way to make a graph smaller; ``bold`` divides any number that is a stream's width."""

    index: Index
    whole: Graph
    factor: int
    bold: bool

    def graph(self) -> Graph:
        """The graph made smaller; it may be one that no page could ask for."""
        vocab, context = self.vocab(self.whole.vocab), self.context(self.whole.context)
        return replace(rebuilt(self.whole, self.leaf), vocab=vocab, context=context)

    def leaf(self, leaf: Leaf, type: str) -> Leaf:
        entry = self.index.node(leaf.word)
        options = tuple((name, self.option(entry, name, v, type)) for name, v in leaf.options)
        gives = NODES[leaf.kind].gives
        return replace(
            leaf,
            options=options,
            dim=self.width(leaf.dim, type),
            out=self.width(leaf.out, type if gives == "any" else gives),
        )

    def option(self, entry: Entry, name: str, value: Value, type: str) -> Value:
        """A leaf's or a filler's option, smaller if it counts what there are fewer of."""
        if isinstance(value, Filler):
            filler = self.index.filler(value.kind, value.word)
            own = ((n, self.option(filler, n, v, type)) for n, v in value.options)
            return replace(value, options=tuple(own))
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        if entry.kind == "mask" or name in SPANS:
            return self.spans.get(value, value)
        if name == "vocab":
            return self.vocab(value)
        if name == "context":
            return self.context(value)
        if WIDTHS.fullmatch(name) or (self.bold and value in self.streams):
            return self.width(value, type)
        return value

    def width(self, value: int, type: str = "stream") -> int:
        """A stream's width, or a size that goes with it; of logits, the vocabulary alone."""
        if type == "logits":
            return self.vocab(value) if value == self.whole.vocab else value
        return min(value, max(NARROWEST, -(-value // self.factor)))

    def vocab(self, value: int) -> int:
        return min(value, VOCAB)

    def context(self, value: int) -> int:
        return min(value, CONTEXT)

    @cached_property
    def streams(self) -> set[int]:
        """The widths of the whole graph's streams."""
        return stream_widths(self.whole)

    @cached_property
    def spans(self) -> dict[int, int]:
        """What windows and chunks become: short, and as many different ones as there were."""
        found: set[int] = set()

        def note(options: tuple[tuple[str, Value], ...], is_mask: bool = False) -> None:
            for name, value in options:
                if isinstance(value, Filler):
                    note(value.options, value.kind == "mask")
                elif type(value) is int and (is_mask or name in SPANS):
                    found.add(value)

        for leaf in leaves(self.whole):
            note(leaf.options)
        return {span: min(span, short) for span, short in zip(sorted(found), count(3, 2))}
