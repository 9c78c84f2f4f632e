"""A decode step of fixed shapes: one more token a row, compiled once, whatever the recipe.

A model is cut where its layers begin and end.  Each piece is traced into a graph of plain
operations, whose weights and memories are arguments: so layers that are alike share what is
compiled, and nothing is looked up at a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from blocks.cache import Cache, KeyValues
from blocks.call import step_call
from blocks.recurrent import Summary
from blocks.static_cache import StaticKeyValues, with_room
from builder.assemble import Run, leaf_runs
from builder.fingerprint import fingerprint
from builder.fold import shape
from builder.graph import Layer, edges, leaves
from builder.matrices import Joined, join

if TYPE_CHECKING:
    from builder.model import Model


Runs: TypeAlias = Callable[..., list[Tensor]]
Lower: TypeAlias = Callable[[GraphModule, list[Tensor]], Runs]


class NotCompiled(Exception):
    """A step that cannot be compiled, and why."""


class Decoder:
    """The steps that follow what a cache has read, up to ``room`` positions in all, of a model that
    is not training.

    It copies what the cache holds, and the model's matrices, which it lays out for its steps; with
    ``int8`` these are rounded to 8 bits.  What is compiled and laid out is kept for its next
    decoder.  ``padding`` (B, room) is True where there is no token; ``lower`` makes a traced graph
    run.  Raises NotCompiled where a block, or the machine, does not allow it.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Model,
        cache: Cache,
        room: int,
        padding: Tensor | None = None,
        int8: bool = False,
        lower: Lower | None = None,
    ) -> None:
        lower = lower or inductor
        device = next(model.parameters()).device
        ids = torch.zeros(cache.batch_size, 1, dtype=torch.long, device=device)
        self.place = torch.full((1,), len(cache), device=device)
        self.beside = [self.place] if padding is None else [self.place, padding.contiguous()]
        kept = KEPT.setdefault(model, Kept())
        asked = lower, int8, room, len(ids), padding is None, device
        self.steps: list[Step] = []
        x = ids
        for place, (key, parts) in enumerate(cut(model)):
            piece = Piece(parts, room, cache)
            memories = piece.memories
            arrange = partial(kept.weights, place, piece.weights)
            read = chain(piece.parameters(), *memories)
            kind = key, *((t.shape, t.dtype) for t in read), *asked
            if kind not in kept.compiled:
                given = [x.contiguous(), ids, *self.beside]
                run, joined = compiled(piece, given, memories, int8, arrange, lower)
                out = Step(run, *piece.memories, arrange(joined)).out(*given)
                kept.compiled[kind] = run, joined, out[0]
            run, joined, x = kept.compiled[kind]
            self.steps.append(Step(run, *memories, arrange(joined)))

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """The logits that follow one more token a row: (B, 1) to (B, vocab)."""
        x = ids = ids.contiguous()
        for step in self.steps:
            x, *step.summaries = step.out(x, ids, *self.beside)
        self.place += 1
        return x[:, -1]


@dataclass
class Kept:
    """What has been made for a model's steps.

    ``compiled`` holds what runs of each kind of piece, how its weights are joined for that, and
    such a stream as it gives; ``arranged`` each piece's weights as they are read, and what they
    were made of.
    """

    compiled: dict[Hashable, tuple[Runs, list[Joined], Tensor]] = field(default_factory=dict)
    arranged: dict[Hashable, tuple[Hashable, list[Tensor]]] = field(default_factory=dict)

    def weights(self, place: int, own: list[Tensor], joined: Sequence[Joined]) -> list[Tensor]:
        """A piece's weights, and behind them those that are joined; anew if they have changed."""
        made_of = int(fingerprint(own)), *(weight.data_ptr() for weight in own)
        key = place, *joined
        if self.arranged.get(key, (None,))[0] != made_of:
            self.arranged[key] = made_of, [*own, *(t for one in joined for t in one.of(own))]
        return self.arranged[key][1]


KEPT: MutableMapping[Model, Kept] = WeakKeyDictionary()


def cut(model: Model) -> Iterator[tuple[Hashable, Sequence[Run]]]:
    """A model's parts, with equal keys for those that are alike: what stands before its layers,
    each layer, and what stands behind; all in one where something is read across depth.
    """
    items, parts = model.recipe.graph.items, model._run.parts
    whole = any(True for leaf in leaves(model.recipe.graph) for _ in edges(leaf))
    layers = [] if whole else [n for n, item in enumerate(items) if isinstance(item, Layer)]
    places = sorted({0, *layers, *(n + 1 for n in layers), len(items)})
    for first, end in pairwise(places):
        bodies = (item.body if isinstance(item, Layer) else item for item in items[first:end])
        yield tuple(map(shape, bodies)), parts[first:end]


class Piece(nn.Module):
    """Parts of a model that run after another, as a function of tensors alone."""

    def __init__(self, parts: Sequence[Run], room: int, cache: Cache) -> None:
        super().__init__()
        found = [leaf for part in parts for leaf in leaf_runs(part)]
        self.parts, self.room = parts, room
        self.leaves = nn.ModuleList(dict.fromkeys(leaf.module for leaf in found))
        own = {leaf.site: cache.states[leaf.site] for leaf in found if leaf.site in cache.states}
        if strange := {type(state) for state in own.values()} - {KeyValues, Summary}:
            raise NotCompiled(f"{strange.pop().__name__} has no fixed shapes")
        self.written = {n: state for n, state in own.items() if isinstance(state, KeyValues)}
        self.moved = {n: state for n, state in own.items() if isinstance(state, Summary)}

    def forward(
        self,
        x: Tensor,
        ids: Tensor,
        place: Tensor,
        padding: Tensor | None,
        keys_values: Sequence[Tensor],
        summaries: Sequence[Tensor],
    ) -> list[Tensor]:
        """The stream, and the summaries that come instead of these; buffers are written into."""
        call, cache = step_call(ids, place, self.room, padding), Cache({}, len(ids))
        pairs, rest = zip(keys_values[::2], keys_values[1::2], strict=True), iter(summaries)
        states: dict[int, Any] = {}
        for site, pair in zip(self.written, pairs, strict=True):
            states[site] = StaticKeyValues(pair, place)
        for site, state in self.moved.items():
            states[site] = Summary()
            states[site].advance(state.length, **{name: next(rest) for name in state.tensors})
        cache.states = states
        for part in self.parts:
            x = part(x, call, cache)
        return [x, *(t for site in self.moved for t in states[site].tensors.values())]

    @property
    def memories(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values, with room, and summaries."""
        moved = (t for state in self.moved.values() for t in state.tensors.values())
        written = [t for state in self.written.values() for t in with_room(state, self.room)]
        return written, [t.contiguous() for t in moved]

    @property
    def weights(self) -> list[Tensor]:
        return [p.detach().contiguous() for p in self.parameters()]


@dataclass
class Step:
    """What runs of a piece, and on what."""

    run: Runs
    keys_values: list[Tensor]
    summaries: list[Tensor]
    weights: list[Tensor]

    def out(self, x: Tensor, *given: Tensor) -> list[Tensor]:
        """What is compiled reads all as it lay when it was compiled: contiguous."""
        summaries = [t.contiguous() for t in self.summaries]
        return self.run(x.contiguous(), *given, *self.keys_values, *summaries, *self.weights)


def compiled(
    piece: Piece,
    given: list[Tensor],
    memories: tuple[list[Tensor], list[Tensor]],
    int8: bool,
    arrange: Callable[[list[Joined]], list[Tensor]],
    lower: Lower,
) -> tuple[Runs, list[Joined]]:
    """Trace a piece, join its matrices, and compile it; NotCompiled if that cannot be."""
    names = [name for name, _ in piece.named_parameters()]
    parts = given, *memories, piece.weights

    def flat(*every: Tensor) -> list[Tensor]:
        rest = iter(every)
        (x, ids, place, *padding), *held, own = ([next(rest) for _ in part] for part in parts)
        named = dict(zip(names, own, strict=True))
        beside = x, ids, place, padding[0] if padding else None
        out: list[Tensor] = functional_call(piece, named, (*beside, *held))
        return out

    every = [tensor for part in parts for tensor in part]
    try:
        traced = make_fx(flat, tracing_mode="fake")(*every)
        inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
        joined = join(traced.graph, inputs[len(every) - len(names) :], int8)
        traced.recompile()
        return lower(traced, [*every[: len(every) - len(names)], *arrange(joined)]), joined
    except Exception as error:
        raise NotCompiled(str(error).strip().partition("\n")[0]) from error


def inductor(traced: GraphModule, given: list[Tensor]) -> Runs:
    """A graph as torch compiles it, which takes a C++ compiler for a CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch's own modules import
        from torch._inductor.compile_fx import compile_fx

    run: Any = compile_fx(traced, given)
    return run  # type: ignore[no-any-return]
