"""The resolved graph: what a recipe means, with names, defaults, sizes and layers filled in.

Two spellings of one model resolve to equal graphs.  Marks tell where a thing was written; they take
no part in comparisons.  Everything is frozen, so a graph can be printed, compared, hashed and
shared.

"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from builder.errors import Mark


@dataclass(frozen=True)
class Filler:
    """What fills a slot: a word of the slot's kind, every option resolved, in signature order."""

    word: str
    kind: str
    options: tuple[tuple[str, Value], ...]
    mark: Mark | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, option: str) -> Value:
        return dict(self.options)[option]


@dataclass(frozen=True)
class Leaf:
    """A registered block in its place.

    ``name`` is the first part of its parameters' names (``layers.3.attention``); ``weights`` is the
    name of the leaf whose parameters it uses, which is its own unless they are shared.  ``dim`` is
    the width that reaches it, ``out`` the width it gives: of logits, how many.  ``options`` holds
    values, sizes and options in signature order.
    """

    word: str
    kind: str
    options: tuple[tuple[str, Value], ...]
    name: str
    weights: str
    dim: int
    out: int
    mark: Mark | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, option: str) -> Value:
        return dict(self.options)[option]


@dataclass(frozen=True)
class Named:
    """Values by names that the page chose, in the written order, and the place of each."""

    entries: tuple[tuple[str, Value], ...]
    marks: tuple[Mark, ...] = field(default=(), compare=False, repr=False)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return iter(self.entries)


@dataclass(frozen=True)
class Stream:
    """What passes between two nodes: ``tokens``, a ``stream`` of some width, or ``logits``; and the
    number of the tap that it has just passed.
    """

    type: str
    dim: int
    tap: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"a stream of width {self.dim}" if self.type == "stream" else self.type


@dataclass(frozen=True)
class Chain:
    """Nodes one after another.  A chain holds no chains, and never exactly one node."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Residual:
    """``x + body(x)``."""

    body: Node
    mark: Mark | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Parallel:
    """``f(x) + g(x) + ...``, in the written order."""

    branches: tuple[Node, ...]
    mark: Mark | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Joined:
    """``joiner(x, body)``: a registered way round a branch, such as ``lerp``.

    The joiner is a leaf whose body is a branch beside it, and not one of its options.
    """

    joiner: Leaf
    body: Node


@dataclass(frozen=True)
class Layer:
    """The ``index``-th layer of the model, from 0."""

    index: int
    body: Node


@dataclass(frozen=True)
class Tap:
    """A place whose stream is read further on: ``x -> x``.  Numbered from 0 in order of execution;
    a label that nothing reads leaves none.
    """

    number: int


@dataclass(frozen=True)
class Edge:
    """What an option of reference type reads: a tap by its number, or what the leaf of this name
    lends (the ``keys_values`` or the ``values`` of an attention).
    """

    port: str  # "stream", or what is lent
    source: int | str


Node: TypeAlias = Leaf | Chain | Residual | Parallel | Joined | Layer | Tap
NODE = Leaf | Chain | Residual | Parallel | Joined | Layer | Tap  # for isinstance
Value: TypeAlias = (
    "int | float | str | bool | tuple[Value, ...] | Named | Filler | Edge | Node | None"
)


@dataclass(frozen=True)
class Graph:
    """A whole model: ``tokens -> logits``.  ``context`` is part of it, whoever reads it."""

    items: tuple[Node, ...]
    vocab: int
    context: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(item for item in self.items if isinstance(item, Layer))


def walk(node: Node | Graph) -> Iterator[Node | Graph]:
    """A node and all inside it, in order of execution, a joiner before its body; what a leaf holds,
    such as an expert, is the leaf's own.
    """
    yield node
    inside: tuple[Node, ...] = ()
    match node:
        case Joined():
            inside = (node.joiner, node.body)
        case Residual() | Layer():
            inside = (node.body,)
        case Chain() | Graph():
            inside = node.items
        case Parallel():
            inside = node.branches
    for part in inside:
        yield from walk(part)


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """The node with ``change`` made to each node in it, the inner ones first, and then to itself.

    A joiner must stay a leaf; what a leaf holds is the leaf's own.
    """
    match node:
        case Joined():
            joiner = change(node.joiner)
            assert isinstance(joiner, Leaf), joiner
            node = Joined(joiner, rebuilt(node.body, change))
        case Residual() | Layer():
            node = replace(node, body=rebuilt(node.body, change))
        case Chain():
            node = Chain(spliced(rebuilt(item, change) for item in node.items))
        case Parallel():
            node = replace(node, branches=tuple(rebuilt(b, change) for b in node.branches))
    return change(node)


def spliced(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes of a chain, those of chains among them in their place."""
    parts = (node.items if isinstance(node, Chain) else (node,) for node in nodes)
    return tuple(item for items in parts for item in items)


def leaves(node: Node | Graph) -> Iterator[Leaf]:
    """Every leaf in order of execution, a joiner before its body; experts included."""
    for part in walk(node):
        if isinstance(part, Leaf):
            yield part
            for _, value in part.options:
                if isinstance(value, NODE):
                    yield from leaves(value)


def taps(node: Node | Graph) -> Iterator[int]:
    """The numbers of the taps in a node, in order of execution."""
    return (part.number for part in walk(node) if isinstance(part, Tap))


def edges_in(value: Value) -> tuple[Edge, ...]:
    """What an option reads: nothing, unless it is a reference, or several."""
    every = value if isinstance(value, tuple) else (value,)
    return tuple(part for part in every if isinstance(part, Edge))


def edges(leaf: Leaf) -> Iterator[tuple[str, Edge]]:
    """All that a leaf reads across depth, each with its option."""
    return ((option, edge) for option, value in leaf.options for edge in edges_in(value))
