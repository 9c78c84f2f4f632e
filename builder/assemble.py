"""The resolved graph -> modules.  A module's path is its parameters' name; the order of execution
is held beside.

What runs is a small tree of plain objects that mirrors the graph; what is registered is a flat list
of leaves by name.  So regrouping a recipe renames nothing, and wrappers (hooks, sharding, adapters)
meet only leaves and layers.

"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from blocks.cache import Cache
from blocks.call import Call
from builder.construct import make
from builder.graph import Chain, Graph, Layer, Leaf, Node, Parallel, Residual, leaves


class Run(Protocol):
    """A node of the graph, ready to run."""

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor: ...


@dataclass(eq=False)
class LeafRun:
    """One leaf in one place; ``site`` is the key of its own state, shared weights or not."""

    module: nn.Module
    site: int
    wants_call: bool
    wants_cache: bool

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        if self.wants_cache:
            out = self.module(x, call, None if cache is None else cache.states[self.site])
        else:
            out = self.module(x, call) if self.wants_call else self.module(x)
        return out  # type: ignore[no-any-return]


@dataclass(eq=False)
class ChainRun:
    parts: list[Run]

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        for part in self.parts:
            x = part(x, call, cache)
        return x


@dataclass(eq=False)
class ResidualRun:
    body: Run

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        return x + self.body(x, call, cache)


@dataclass(eq=False)
class ParallelRun:
    branches: list[Run]

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        total = self.branches[0](x, call, cache)
        for branch in self.branches[1:]:
            total = total + branch(x, call, cache)
        return total


class Body(nn.Module):
    """A layer, or an expert: its leaves by name, and the order in which they run."""

    run: Run

    def forward(self, x: Tensor, call: Call | None = None, cache: Cache | None = None) -> Tensor:
        return self.run(x, call, cache)  # type: ignore[arg-type]  # an expert's leaves ask for no call


@dataclass
class Assembler:
    """Builds each leaf once; ``states`` collects the places that remember something."""

    made: dict[str, tuple[Leaf, nn.Module]] = field(default_factory=dict)
    states: dict[int, nn.Module] = field(default_factory=dict)
    sites: int = 0

    def into(self, home: nn.Module, graph: Graph) -> Run:
        """Put every leaf of a graph into ``home`` under its name, and give what runs."""
        parts = [self._part(item, home) for item in graph.items]
        self._tie(graph)
        return ChainRun(parts)

    def _part(self, item: Node, home: nn.Module) -> Run:
        if not isinstance(item, Layer):
            return self.run(item, home, "")
        if not hasattr(home, "layers"):
            home.layers = nn.ModuleList()
        body = Body()
        body.run = self.run(item.body, body, f"layers.{item.index}.")
        home.layers.append(body)  # type: ignore[union-attr, operator]
        return body

    def run(self, node: Node, home: nn.Module, prefix: str) -> Run:
        match node:
            case Leaf():
                return self._leaf(node, home, prefix)
            case Chain():
                return ChainRun([self.run(item, home, prefix) for item in node.items])
            case Residual():
                return ResidualRun(self.run(node.body, home, prefix))
            case Parallel():
                return ParallelRun([self.run(branch, home, prefix) for branch in node.branches])
        raise AssertionError(f"{node} inside a layer")

    def _leaf(self, leaf: Leaf, home: nn.Module, prefix: str) -> LeafRun:
        module = self._module(leaf, home, prefix)
        takes = inspect.signature(module.forward).parameters
        self.sites += 1
        if hasattr(module, "state"):
            self.states[self.sites] = module
        return LeafRun(module, self.sites, "call" in takes, "cache" in takes)

    def _module(self, leaf: Leaf, home: nn.Module, prefix: str) -> nn.Module:
        """A leaf's module; where weights are shared, the first one's, or one of other options on
        its weights.
        """
        first = self.made.get(leaf.weights)
        if first is not None and first[0].options == leaf.options:
            return first[1]
        module = make(leaf, node=lambda node: self._expert(node, leaf))
        if output := getattr(module, "output", None):
            parent, _, name = output.rpartition(".")
            getattr(module.get_submodule(parent), name).output = True
        if first is not None:
            share(module, first[1])
        self.made[leaf.weights] = first or (leaf, module)
        home.add_module(leaf.name.removeprefix(prefix), module)
        return module  # type: ignore[no-any-return]

    def _expert(self, node: Node, parent: Leaf) -> nn.Module:
        """An expert as a module of its own: a lone leaf needs no name."""
        inner = Assembler()
        body = Body()
        body.run = inner.run(node, body, f"{parent.weights}.")
        return next(iter(body.children())) if isinstance(node, Leaf) else body

    def _tie(self, graph: Graph) -> None:
        modules = {
            leaf.name: self.made[leaf.weights][1]
            for leaf in leaves(graph)
            if leaf.weights in self.made
        }
        embeddings = [modules[leaf.name] for leaf in leaves(graph) if leaf.kind == "embedding"]
        for module in modules.values():
            if getattr(module, "tie", False):
                module.weight = embeddings[0].weight


def share(module: nn.Module, first: nn.Module) -> None:
    """Make every parameter of ``module`` that of ``first``."""
    for name, parameter in first.named_parameters():
        parent, _, last = name.rpartition(".")
        module.get_submodule(parent).register_parameter(last, parameter)


def count_adds(node: Node | Graph | Any) -> int:
    """How many times something is added to the residual stream, which depth-scaled initial weights
    divide by.
    """
    match node:
        case Residual():
            return 1 + count_adds(node.body)
        case Layer():
            return count_adds(node.body)
        case Chain() | Graph():
            return sum(count_adds(item) for item in node.items)
        case Parallel():
            return sum(count_adds(branch) for branch in node.branches)
    return 0
