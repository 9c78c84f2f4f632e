"""The matrices of a traced graph: those that read the same are joined, and laid out for a few rows.

A product of a few rows and a matrix takes as long as the matrix takes to be read, and it is read
fastest in long rows: so one whose outputs are more than its inputs is transposed in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from builder import int8

aten = torch.ops.aten
VIEWS = aten.view.default, aten._unsafe_view.default


@dataclass(frozen=True)
class Joined:
    """Matrices that read the same rows, and their biases, by their places among the weights."""

    matrices: tuple[int, ...]
    biases: tuple[int, ...]  # none, or one for each
    rounded: bool

    def of(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """What the product reads: one matrix (all outputs, inputs), and all biases."""
        matrix = torch.cat([weights[n] for n in self.matrices])
        bias = torch.cat([weights[n] for n in self.biases]) if self.biases else None
        if self.rounded:
            return int8.rounded(matrix, bias)
        return [laid_out(matrix)] if bias is None else [laid_out(matrix), bias]


def laid_out(matrix: Tensor) -> Tensor:
    """A matrix in the layout that is read fastest by a few rows on a CPU."""
    wide = matrix.shape[0] >= matrix.shape[1] and matrix.device.type == "cpu"
    return matrix.t().contiguous().t() if wide else matrix


def join(graph: Graph, weights: Sequence[Node], rounded: bool = False) -> list[Joined]:
    """Make one product of those that read the same; what each reads becomes the graph's last
    inputs, in the order of what is given back.  ``rounded`` makes them products of integers.
    """
    place = {weight: n for n, weight in enumerate(weights)}
    groups: dict[Any, list[Product]] = defaultdict(list)
    for node in graph.nodes:
        product = product_of(node)
        if product is not None and {product.matrix, product.bias} <= {None, *place}:
            groups[product.reads, product.bias is None].append(product)
    found: list[Joined] = []
    for group in groups.values():
        biases = tuple(place[one.bias] for one in group if one.bias is not None)
        one = Joined(tuple(place[one.matrix] for one in group), biases, rounded)
        names = int8.PARTS if rounded else ("matrix", "bias") if biases else ("matrix",)
        replace(graph, group, [_input(graph, f"{name}_{len(found)}") for name in names], rounded)
        found.append(one)
    return found


@dataclass(frozen=True)
class Product:
    """``rows matrix^T + bias``, as a node of a graph."""

    node: Node
    rows: Node
    matrix: Node
    bias: Node | None

    @property
    def reads(self) -> tuple[Node, Any]:
        """What is read, in which shape: every product has a view of its own."""
        rows = self.rows
        while rows.target in VIEWS:
            rows = rows.args[0]  # type: ignore[assignment]
        return rows, self.rows.meta["val"].shape


def product_of(node: Node) -> Product | None:
    """The product that a node is, if it is one with a transposed matrix."""
    if node.target not in (aten.mm.default, aten.addmm.default):
        return None
    *bias, rows, turned = node.args
    if turned.target != aten.t.default:  # type: ignore[union-attr]
        return None
    return Product(node, rows, turned.args[0], *(bias or [None]))  # type: ignore[arg-type, union-attr]


def replace(graph: Graph, group: Sequence[Product], inputs: list[Node], rounded: bool) -> None:
    """Take the place of some products by one, whose result is cut into theirs."""
    first = group[0]
    with graph.inserting_before(first.node):
        if rounded:
            out = int8.product(graph, first.rows, inputs)
        else:
            turned = graph.call_function(aten.t.default, (inputs[0],))
            target = aten.mm.default if first.bias is None else aten.addmm.default
            out = graph.call_function(target, (*inputs[1:], first.rows, turned))
        at = 0
        for product in group:
            end = at + product.node.meta["val"].shape[1]
            part = graph.call_function(aten.slice.Tensor, (out, 1, at, end))
            whole: Any = {"memory_format": torch.contiguous_format}  # as what it replaces
            product.node.replace_all_uses_with(
                graph.call_function(aten.clone.default, (part,), whole)
            )
            at = end
    for product in group:
        graph.erase_node(product.node)


def _input(graph: Graph, name: str) -> Node:
    *_, last = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(last):
        return graph.placeholder(name)
