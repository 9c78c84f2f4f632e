"""The resolved graph -> modules.  A module's path is its parameters' name; the order of execution
is held beside.

What runs is a small tree of plain objects that mirrors the graph; what is registered is a flat list
of leaves by name.  So regrouping a recipe renames nothing, and wrappers (hooks, sharding, adapters)
meet only leaves and layers.

"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from blocks.cache import Cache, State
from blocks.call import Call
from builder.construct import make
from builder.graph import (
    Chain,
    Edge,
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


class Run(Protocol):
    """A node of the graph, ready to run."""

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor: ...


@dataclass(eq=False)
class LeafRun:
    """One leaf in one place, given by name what its ``forward`` asks for.

    ``site`` is the key of its own state, shared weights or not; ``reads`` are its references, by
    option; ``body`` is a joiner's.
    """

    module: nn.Module
    name: str
    site: int
    takes: frozenset[str]
    reads: tuple[tuple[str, Value], ...] = ()
    body: Run | None = None

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        given: dict[str, Any] = {option: _read(edge, call) for option, edge in self.reads}
        if "call" in self.takes:
            given["call"] = call
        if "cache" in self.takes and cache is not None:
            given["cache"] = cache.states.get(self.site)
        if body := self.body:
            given["body"] = lambda inner: body(inner, call, cache)
        if "lend" not in self.takes:
            return self.module(x, **given)  # type: ignore[no-any-return]
        lent: dict[str, object] = {}
        out = self.module(x, **given, lend=lent)
        call.taps.update({Edge(port, self.name): what for port, what in lent.items()})
        return out  # type: ignore[no-any-return]


def _read(edge: Value, call: Call) -> Any:
    return [call.taps[e] for e in edge] if isinstance(edge, tuple) else call.taps[edge]


@dataclass(eq=False)
class TapRun:
    """Remembers, for this call, what passes."""

    edge: Edge

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        call.taps[self.edge] = x
        return x


@dataclass(eq=False)
class ChainRun:
    parts: list[Run]

    def __call__(self, x: Tensor, call: Call, cache: Cache | None) -> Tensor:
        for part in self.parts:
            x = part(x, call, cache)
        return x

    def split(self, at: int) -> tuple[ChainRun, ChainRun]:
        """The first ``at`` parts, and the others."""
        return ChainRun(self.parts[:at]), ChainRun(self.parts[at:])


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


def leaf_runs(run: Run) -> Iterator[LeafRun]:
    """Every leaf of what runs, a joiner before its body."""
    match run:
        case LeafRun():
            yield run
            inside = [] if run.body is None else [run.body]
        case ChainRun():
            inside = run.parts
        case ParallelRun():
            inside = run.branches
        case ResidualRun():
            inside = [run.body]
        case TapRun():
            inside = []
        case _:  # a layer, or what training has put round it
            inside = [run.run]  # type: ignore[attr-defined]
    for part in inside:
        yield from leaf_runs(part)


class Body(nn.Module):
    """A layer, or an expert: its leaves by name, and the order in which they run."""

    run: Run

    def forward(self, x: Tensor, call: Call | None = None, cache: Cache | None = None) -> Tensor:
        return self.run(x, call, cache)  # type: ignore[arg-type]  # an expert's leaves ask for no call


def opened(part: Run, at: int) -> tuple[Run, ChainRun]:
    """A layer's parts before this one, and the others; whole, with none behind it, if it is no
    layer, or something is called when it is.
    """
    if not isinstance(part, Body) or watched(part):
        return part, ChainRun([])
    run = getattr(part.run, "run", part.run)  # what training puts round it is for training
    return run.split(at) if isinstance(run, ChainRun) else (part, ChainRun([]))


def watched(module: nn.Module) -> bool:
    """Whether something else is called when the module is."""
    around = module._forward_hooks, module._forward_pre_hooks
    behind = module._backward_hooks, module._backward_pre_hooks
    return any((*around, *behind)) or "forward" in vars(module)


@dataclass
class Remembering:
    """A place that remembers something; ``readers`` are the leaves that read what it remembers."""

    module: Any
    readers: list[nn.Module] = field(default_factory=list)

    def state(self) -> State:
        """An empty memory."""
        state: State = self.module.state(self.readers) if self.readers else self.module.state()
        return state


@dataclass
class Assembler:
    """Builds each leaf once; ``states`` collects the places that remember something.

    ``lent`` holds the names that something is read from beside an output, ``owners`` who remembers
    it.
    """

    made: dict[str, tuple[Leaf, nn.Module]] = field(default_factory=dict)
    states: dict[int, Remembering] = field(default_factory=dict)
    owners: dict[str, Remembering] = field(default_factory=dict)
    lent: frozenset[str] = frozenset()
    sites: int = 0

    def into(self, home: nn.Module, graph: Graph) -> ChainRun:
        """Put every leaf of a graph into ``home`` under its name, and give what runs."""
        every = (edge for leaf in leaves(graph) for _, edge in edges(leaf))
        self.lent = frozenset(e.source for e in every if isinstance(e.source, str))
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
            case Joined():
                run = self._leaf(node.joiner, home, prefix)
                run.body = self.run(node.body, home, prefix)
                return run
            case Tap():
                return TapRun(Edge("stream", node.number))
            case Chain():
                return ChainRun([self.run(item, home, prefix) for item in node.items])
            case Residual():
                return ResidualRun(self.run(node.body, home, prefix))
            case Parallel():
                return ParallelRun([self.run(branch, home, prefix) for branch in node.branches])
        raise AssertionError(f"{node} inside a layer")

    def _leaf(self, leaf: Leaf, home: nn.Module, prefix: str) -> LeafRun:
        module = self._module(leaf, home, prefix)
        takes = frozenset(inspect.signature(module.forward).parameters)
        reads = tuple(pair for pair in leaf.options if pair[0] in takes and _is_reference(pair[1]))
        self.sites += 1
        self._remember(leaf, module)
        if leaf.name not in self.lent:
            takes -= {"lend"}
        return LeafRun(module, leaf.name, self.sites, takes, reads)

    def _remember(self, leaf: Leaf, module: nn.Module) -> None:
        """Note a state of its own, or whose it reads: that one then serves both."""
        if getattr(module, "state", lambda: None)() is not None:
            self.states[self.sites] = self.owners[leaf.name] = Remembering(module)
            return
        for _, edge in edges(leaf):
            if isinstance(edge.source, str) and edge.source in self.owners:
                self.owners[leaf.name] = self.owners[edge.source]
                self.owners[edge.source].readers.append(module)

    def _module(self, leaf: Leaf, home: nn.Module, prefix: str) -> nn.Module:
        """A leaf's module; where weights are shared, the first one's, or another on its weights."""
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


def _is_reference(value: Value) -> bool:
    return isinstance(value, Edge) or (
        isinstance(value, tuple) and all(isinstance(part, Edge) for part in value)
    )


def count_adds(node: Node | Graph | Any) -> int:
    """How often something is added to the residual stream, for depth-scaled initial weights."""
    match node:
        case Residual() | Joined():
            return 1 + count_adds(node.body)
        case Layer():
            return count_adds(node.body)
        case Chain() | Graph():
            return sum(count_adds(item) for item in node.items)
        case Parallel():
            return sum(count_adds(branch) for branch in node.branches)
    return 0
