"""A recipe made small: what laws say of the small one, they say of each kind of layer of its own.

The twin has every distinct layer, its widths divided by one number, few words and few positions.
It is a graph that no page says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

import torch

from blocks.kinds import NODES
from builder.arguments import check_holds
from builder.fold import shape
from builder.graph import NODE, Filler, Graph, Layer, Leaf, Node, Value, edges, leaves, rebuilt
from builder.index import Index, load_index
from builder.laws.options import words_of
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
WIDTHS = re.compile(r"ff|(.+_)?(dim|rank|width)")  # sizes that go with the stream's
LAYER = re.compile(r"\blayers\.(\d+)\b")


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
        width, wide = max(stream_widths(small)), max(stream_widths(whole))
        counts = (
            ("layers", len(small.layers), len(whole.layers)),
            ("words", small.vocab, whole.vocab),
            ("positions", small.context, whole.context),
        )
        said = [f"width {width} for {wide:,}"] if width != wide else []
        said += [f"{few} of {many:,} {what}" for what, few, many in counts if few != many]
        return f"as a twin: {', '.join(said) or 'other sizes'}"


def twin(recipe: Recipe) -> Twin:
    """The smallest recipe that is legal, can run, and has every distinct layer of this one.

    If none can run, the smallest that is legal: the laws will say what is wrong with it.
    """
    index = load_index(recipe.plugins)
    layers = kept_layers(recipe.graph)
    shallow = with_layers(recipe.graph, layers)
    smaller = (Shrink(shallow, factor).graph() for factor in factors(shallow))
    legal = [graph for graph in smaller if is_legal(graph, index)] or [recipe.graph]
    found = next((graph for graph in legal if _runs(meant(recipe, graph))), legal[0])
    return Twin(recipe if found == recipe.graph else meant(recipe, found), recipe, layers)


def meant(recipe: Recipe, graph: Graph) -> Recipe:
    """The recipe with another graph, which its page does not say."""
    dims = {"vocab": graph.vocab, "context": graph.context}
    return replace(recipe, meaning=replace(recipe.meaning, graph=graph, dims=dims))


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
    """How many numbers its parameters hold."""
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
    """The layers of a twin: two of those alike, and those whose weights they share.

    All of them, if something is read across depth.
    """
    layers = graph.layers
    if any(True for leaf in leaves(graph) for _ in edges(leaf)):
        return tuple(layer.index for layer in layers)
    seen: Counter[Hashable] = Counter()
    kept: set[int] = set()
    for layer in layers:
        key = _likeness(layer)
        seen[key] += 1
        kept |= {layer.index} if seen[key] <= ALIKE else set()
    owners = {leaf.name: layer.index for layer in layers for leaf in leaves(layer)}
    used = [leaf.weights for index in kept for leaf in leaves(layers[index])]
    return tuple(sorted(kept | {owners[name] for name in used if name in owners}))


def _likeness(layer: Layer) -> Hashable:
    """Equal for two layers that do the same, with weights of their own or the same others."""
    own = f"layers.{layer.index}."
    shared = (leaf.weights for leaf in leaves(layer) if not leaf.weights.startswith(own))
    return shape(layer.body), tuple(shared)


def with_layers(graph: Graph, kept: tuple[int, ...]) -> Graph:
    """The graph with these layers alone, counted from 0."""
    new = {str(old): str(index) for index, old in enumerate(kept)}

    def moved(name: str) -> str:
        return LAYER.sub(lambda found: f"layers.{new[found[1]]}", name)

    def renamed(leaf: Leaf) -> Leaf:
        return replace(leaf, name=moved(leaf.name), weights=moved(leaf.weights))

    items = [item for item in graph.items if not isinstance(item, Layer) or item.index in kept]
    placed = (
        replace(item, index=kept.index(item.index)) if isinstance(item, Layer) else item
        for item in items
    )
    return with_leaves(replace(graph, items=tuple(placed)), renamed)


def with_leaves(graph: Graph, change: Callable[[Leaf], Leaf]) -> Graph:
    """The graph with every leaf changed, experts included."""

    def visit(node: Node) -> Node:
        if not isinstance(node, Leaf):
            return node
        options = tuple((name, inside(value)) for name, value in node.options)
        return change(replace(node, options=options))

    def inside(value: Value) -> Value:
        return rebuilt(value, visit) if isinstance(value, NODE) else value

    return replace(graph, items=tuple(rebuilt(item, visit) for item in graph.items))


# Sizes


def stream_widths(graph: Graph) -> set[int]:
    """Every width that a stream has somewhere; what takes any type says nothing of its own."""
    read = {leaf.dim for leaf in leaves(graph) if NODES[leaf.kind].reads == "stream"}
    return read | {leaf.out for leaf in leaves(graph) if NODES[leaf.kind].gives == "stream"}


def factors(graph: Graph) -> Iterator[int]:
    """What to divide widths by, the most first.

    Every stream's width stays whole, so that what held of one in terms of another still holds.
    """
    widths = stream_widths(graph)
    for factor in range(max(1, max(widths) // WIDE), 0, -1):
        if all(w % factor == 0 and w // factor >= min(w, NARROWEST) for w in widths):
            yield factor


@dataclass(frozen=True)
class Shrink:
    """A graph whose widths are to be divided by one number."""

    whole: Graph
    factor: int

    def graph(self) -> Graph:
        """The graph made smaller; it may be one that no page could ask for."""
        vocab, context = self.ends[self.whole.vocab], min(self.whole.context, CONTEXT)
        return replace(with_leaves(self.whole, self.leaf), vocab=vocab, context=context)

    def leaf(self, leaf: Leaf) -> Leaf:
        """A leaf made smaller, with what fills its slots."""
        dim, out = (self.ends.get(width, width) for width in (leaf.dim, leaf.out))
        return replace(leaf, options=self.options(leaf.options), dim=dim, out=out)

    def options(
        self, options: tuple[tuple[str, Value], ...], are_spans: bool = False
    ) -> tuple[tuple[str, Value], ...]:
        return tuple((name, self.option(name, value, are_spans)) for name, value in options)

    def option(self, name: str, value: Value, is_span: bool) -> Value:
        """Smaller, if it counts what there are fewer of."""
        if isinstance(value, Filler):
            return replace(value, options=self.options(value.options, value.kind == "mask"))
        if type(value) is not int:
            return value
        if is_span or name in SPANS:
            return self.spans[value]
        if name == "context":
            return min(value, CONTEXT)
        if value in self.ends:
            return self.ends[value]
        return self.narrow(value) if WIDTHS.fullmatch(name) else value

    def narrow(self, width: int) -> int:
        return min(width, max(NARROWEST, -(-width // self.factor)))

    @cached_property
    def ends(self) -> dict[int, int]:
        """What the widths of streams become, and the size of the vocabulary."""
        widths = {width: self.narrow(width) for width in stream_widths(self.whole)}
        return {self.whole.vocab: min(self.whole.vocab, VOCAB)} | widths

    @cached_property
    def spans(self) -> dict[int, int]:
        """What windows and chunks become: short, and as many different ones as there were."""
        found = {
            value
            for word in words_of(self.whole)
            for name, value in word.options
            if type(value) is int and (word.kind == "mask" or name in SPANS)
        }
        return {span: min(span, short) for span, short in zip(sorted(found), count(3, 2))}
