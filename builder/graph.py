"""The resolved graph: what a recipe means, with names, defaults, sizes and layers filled in.

Two spellings of one model resolve to equal graphs.  Marks tell where a thing was written; they take
no part in comparisons.  Everything is frozen, so a graph can be printed, compared, hashed and
shared.

"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from builder.errors import Mark


@dataclass(frozen=True)
class Filler:
    """What fills a slot: a registered word of the slot's kind, every option resolved, in signature
    order.
    """

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
    the width that reaches it, ``out`` the width it gives.  ``options`` holds values, sizes and
    options in signature order.
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
class Layer:
    """The ``index``-th layer of the model, from 0."""

    index: int
    body: Node


Node: TypeAlias = Leaf | Chain | Residual | Parallel | Layer
Value: TypeAlias = "int | float | str | bool | tuple[Value, ...] | Filler | Node | None"


@dataclass(frozen=True)
class Graph:
    """A whole model: ``tokens -> logits``.  ``context`` is part of it, whoever reads it."""

    items: tuple[Node, ...]
    vocab: int
    context: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(item for item in self.items if isinstance(item, Layer))


def leaves(node: Node | Graph) -> Iterator[Leaf]:
    """Every leaf in order of execution, experts included."""
    match node:
        case Leaf():
            yield node
            for _, value in node.options:
                if isinstance(value, Leaf | Chain | Residual | Parallel):
                    yield from leaves(value)
        case Residual() | Layer():
            yield from leaves(node.body)
        case Chain() | Graph():
            for item in node.items:
                yield from leaves(item)
        case Parallel():
            for branch in node.branches:
                yield from leaves(branch)
