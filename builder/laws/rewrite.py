"""Change the leaves of a graph together with their weights.

A pair is a graph in which every leaf has weights of its own, and these by name; ``unshared`` makes
the first.  A rewriting gives another pair, or None where it has nothing to rewrite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from builder.graph import NODE, Filler, Graph, Leaf, Node, edges, leaves, rebuilt, spliced
from builder.recipe import load_recipe

State: TypeAlias = Mapping[str, Tensor]
Pair: TypeAlias = tuple[Graph, State]
Rewriting: TypeAlias = Callable[[Graph, State], Pair | None]
Own: TypeAlias = dict[str, Tensor]  # a leaf's weights by what follows its name, as in ".q.weight"
Change: TypeAlias = Callable[[Leaf, Own], tuple[Node, Own] | None]
Block = TypeVar("Block", Leaf, Filler)


def each(graph: Graph, state: State, change: Change) -> Pair | None:
    """The pair with each leaf changed that ``change`` gives something for; None if there is none.

    What it gives is a node, and the weights of all leaves in it, by what follows the old name.
    """
    owned = _by_leaf(graph, state)
    changed = []

    def visit(node: Node) -> Node:
        if not isinstance(node, Leaf) or (made := change(node, owned[node.name])) is None:
            return node
        changed.append(node)
        owned[node.name] = made[1]
        return made[0]

    graph = over(graph, visit)
    if not changed:
        return None
    return graph, {name + suffix: t for name, own in owned.items() for suffix, t in own.items()}


def over(graph: Graph, visit: Callable[[Node], Node]) -> Graph:
    """The graph with each node changed, the inner ones first."""
    return replace(graph, items=spliced(rebuilt(item, visit) for item in graph.items))


def _by_leaf(graph: Graph, state: State) -> dict[str, Own]:
    owned: dict[str, Own] = {leaf.name: {} for leaf in leaves(graph)}
    for key, tensor in state.items():
        name = key
        while name not in owned:
            name = name.rpartition(".")[0]
        owned[name][key.removeprefix(name)] = tensor
    return owned


def but(block: Block, **options: Any) -> Block:
    """A leaf or a filler with other options."""
    return replace(block, options=tuple((k, options.get(k, v)) for k, v in block.options))


def made(written: Mapping[str, Any], dim: int, name: str) -> Leaf:
    """The leaf of a page's node where ``dim`` reaches it, every default filled in."""
    return replace(_resolved(json.dumps(written), dim), name=name, weights=name)


@cache
def _resolved(written: str, dim: int) -> Leaf:
    node = json.loads(written)
    dims = {"dim": dim, "vocab": 2, "context": 2}
    page = {"recipe": 1, "dims": dims, "model": ["token_embedding", node, "lm_head"]}
    return next(leaf for leaf in leaves(load_recipe(page).graph) if leaf.word in node)


def unshared(graph: Graph, state: State) -> Pair:
    """The pair with each leaf's weights its own: copies of those that it shared."""
    owned = _by_leaf(graph, state)

    def visit(node: Node) -> Node:
        if not isinstance(node, Leaf) or node.weights == node.name:
            return node
        owned[node.name] = owned[node.name] or owned[node.weights]
        return renamed(node, node.weights, node.name)

    graph = over(graph, visit)
    return graph, {name + suffix: t for name, own in owned.items() for suffix, t in own.items()}


def renamed(leaf: Leaf, old: str, new: str) -> Leaf:
    """A leaf whose weights, and those of what it holds, are named otherwise."""

    def within(node: Node) -> Node:
        if not isinstance(node, Leaf):
            return node
        name, weights = (new + n.removeprefix(old) for n in (node.name, node.weights))
        return replace(node, name=name, weights=weights)

    held = {k: rebuilt(v, within) for k, v in leaf.options if isinstance(v, NODE)}
    return replace(but(leaf, **held), name=new, weights=new)


def links(graph: Graph) -> Iterator[tuple[Leaf, Leaf]]:
    """Leaves that read what another lends, each with that one."""
    named = {leaf.name: leaf for leaf in leaves(graph)}
    for leaf in named.values():
        for _, edge in edges(leaf):
            if isinstance(edge.source, str):
                yield leaf, named[edge.source]
