"""What a model costs: parameters, FLOPs, cache and memory, measured on a build that has no data.

The forward is the only truth.  FLOPs and caches are those of the model run on the ``meta`` device;
memory is that of a training step on a CPU whose tensors are shapes alone.  What cannot run so is
None, unknown, and so is every sum that it is part of.

"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from blocks.cache import State
from blocks.kinds import NODES
from builder.errors import InputError
from builder.fold import shape
from builder.graph import Graph, Layer, Leaf, edges, walk
from builder.initial import materialise
from builder.loss import at_once
from builder.model import Model, build, length_read
from builder.recipe import Recipe
from builder.training.layers import around_layers
from builder.training.optimizers import learners, state_tensors
from builder.training.parallel import shares_across_layers
from builder.training.settings import settings_of
from builder.training.step import numerics

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # as `train` names them
META = torch.device("meta")
OUTSIDE = -1  # of every leaf
ALIKE = 2  # of the leaves alike, how many are run: the first may pay for what the others share


@dataclass(frozen=True)
class LeafCosts:
    """What one leaf costs in its place; a weight is counted where it first occurs.

    ``prefill``, ``decode`` and ``train`` are FLOPs: of a forward over ``length`` tokens, of the
    last one of them after the others, and of a training step over them.  The cache's bytes are
    those of one sequence, per token before any window is full, and at the length.  A text longer
    than ``reads_length``, where that is a number, is read at once by other angles than in parts.
    """

    leaf: Leaf
    layer: int | None
    parameters: int
    active_parameters: int | None
    prefill: int | None
    decode: int | None
    train: int | None
    cache_bytes_per_token: int | None
    cache_bytes: int | None
    reads_length: int | None


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step as ``train`` takes it in one process, every expert in use.

    Weights, their average, gradients and the optimizer's memory are float32; ``activations`` is
    what forward keeps for backward, parameters aside; ``gathered`` is what of sharded weights is
    whole at once: the largest layer, the one that is fetched ahead, and all outside of layers.
    """

    weights: int
    gradients: int
    optimizer: int | None
    activations: int | None
    average: int = 0
    gathered: int = 0

    @property
    def total(self) -> int | None:
        own = (self.weights, self.average, self.gradients, self.gathered)
        return total((*own, self.optimizer, self.activations))


@dataclass(frozen=True)
class Costs:
    """What a whole model costs at a ``length``, a ``batch`` and a ``dtype``, leaf by leaf."""

    length: int
    batch: int
    dtype: str
    leaves: tuple[LeafCosts, ...]
    memory: Memory | None  # None if no training was looked into
    world: int = 1  # processes that train, of which memory is that of one

    @property
    def parameters(self) -> int:
        return sum(costs.parameters for costs in self.leaves)

    @property
    def active_parameters(self) -> int | None:
        """Those that one token uses: all but those of the experts that are not chosen for it."""
        return total(costs.active_parameters for costs in self.leaves)

    @property
    def embedding_parameters(self) -> int:
        """Those of what reads tokens and gives logits: the embedding, and an untied head."""
        ends = (costs for costs in self.leaves if costs.leaf.kind in ("embedding", "head"))
        return sum(costs.parameters for costs in ends)

    @property
    def prefill(self) -> int | None:
        return total(costs.prefill for costs in self.leaves)

    @property
    def decode(self) -> int | None:
        return total(costs.decode for costs in self.leaves)

    @property
    def train(self) -> int | None:
        return total(costs.train for costs in self.leaves)

    @property
    def cache_bytes_per_token(self) -> int | None:
        return total(costs.cache_bytes_per_token for costs in self.leaves)

    @property
    def cache_bytes(self) -> int | None:
        return total(costs.cache_bytes for costs in self.leaves)

    def per_token(self, flops: int | None) -> int | float | None:
        """Of a pass over the length, a token's share; whole if it is."""
        if flops is None:
            return None
        return flops / self.length if flops % self.length else flops // self.length


def total(parts: Iterable[int | None]) -> int | None:
    """The sum, unknown if a part of it is."""
    known = list(parts)
    return None if None in known else sum(cast("list[int]", known))


def measure(
    recipe: Recipe,
    length: int | None = None,
    batch: int = 1,
    dtype: str | None = None,
    *,
    training: bool = True,
    world: int = 1,
    shard: bool = False,
) -> Costs:
    """What a recipe's model costs, nothing allocated.

    ``length`` is the context if not given; ``dtype``, as ``train`` names it (its own if not given),
    is that of the cache, and of what a training step computes; without ``training`` what a step
    costs is not looked into, and unknown.  Memory is that of one process of a ``world``, which hold
    all weights each, or ``shard`` them.  InputError if the model cannot read so many tokens.
    """
    length = recipe.graph.context if length is None else length
    dtype = str(recipe.train["dtype"]) if dtype is None else dtype
    model = shapes_alone(recipe, DTYPES[dtype])
    if model.limit is not None and length > model.limit:
        message = f"length={length}, and the model reads {model.limit} positions at the most"
        raise InputError("length-over-limit", message, f"--length {model.limit}")
    return Costs(
        length,
        batch,
        dtype,
        tuple(_measured(model, recipe.graph, length, training)),
        measure_memory(recipe, length, batch, dtype, world if shard else 1) if training else None,
        world,
    )


def count(recipe: Recipe) -> tuple[int, int | None]:
    """All parameters of a recipe's model, and the active ones: as ``measure`` does, and sooner."""
    model = build(recipe, device=META)
    named = dict(model.named_modules())
    modules = [named.get(leaf.name) or named[leaf.weights] for _, leaf in places(recipe.graph)]
    every, active = zip(*count_parameters(modules), strict=True)
    return sum(every), total(active)


def shapes_alone(recipe: Recipe, dtype: torch.dtype) -> Model:
    """The model without data."""
    model = build(recipe, device=META, dtype=dtype)
    choose_evenly(model)
    return model


def choose_evenly(model: nn.Module) -> None:
    """Tell every module that chooses ``by_data`` not to: its costs are those of any choice."""
    for module in model.modules():
        if hasattr(module, "by_data"):
            module.by_data = False  # type: ignore[assignment]


def _measured(model: Model, graph: Graph, length: int, training: bool) -> Iterator[LeafCosts]:
    meter = Meter(model, [leaf for _, leaf in places(graph)])
    counts = count_parameters(meter.modules)
    prefill = meter.prefill(length)
    meter.decode(1)
    caches = zip(meter.cache_bytes(), meter.fixed(), strict=True)
    first = [0 if fixed else bytes for bytes, fixed in caches]
    decode = meter.decode(length)
    last = meter.cache_bytes()
    train = meter.train(length) if training else [None] * len(prefill)
    lengths = map(length_read, meter.modules)
    own = zip(prefill, decode, train, first, last, lengths, strict=True)
    for (layer, leaf), count, costs in zip(places(graph), counts, own, strict=True):
        yield LeafCosts(leaf, layer, *count, *costs)


# Parameters


def count_parameters(modules: Iterable[nn.Module]) -> Iterator[tuple[int, int | None]]:
    """All and active ones of each module, those left out that one before it has."""
    seen: set[int] = set()
    for module in modules:
        new = [p for p in dict.fromkeys(module.parameters()) if id(p) not in seen]
        seen |= {id(parameter) for parameter in new}
        yield sum(p.numel() for p in new), total(_active(p, module) for p in new)


def _active(parameter: nn.Parameter, module: nn.Module) -> int | None:
    """How much of a parameter one token uses: of stacked experts, the share that its leaf says."""
    if not getattr(parameter, "stacked", False):
        return parameter.numel()
    share = getattr(module, "active", None)
    return None if share is None else int(parameter.numel() * share)


# FLOPs and caches


def places(graph: Graph) -> Iterator[tuple[int | None, Leaf]]:
    """Every leaf in order of execution with its layer; what a leaf holds is part of it."""
    for item in graph.items:
        for leaf in walk(item):
            if isinstance(leaf, Leaf):
                yield (item.index if isinstance(item, Layer) else None), leaf


def stand_ins(every: Sequence[Leaf]) -> list[int]:
    """For each leaf the number of the one that is run for it: another if enough are alike."""
    lent = {edge.source for leaf in every for _, edge in edges(leaf)}
    alike: dict[Hashable, list[int]] = defaultdict(list)
    found = []
    for n, leaf in enumerate(every):
        wired = leaf.name in lent or leaf.kind == "joiner" or any(edges(leaf))
        same = alike[n if wired else shape(replace(leaf, name="", weights=""))]
        same += [n] if len(same) < ALIKE else []
        found.append(same[-1])
    return found


@dataclass
class Meter:
    """Runs a model on meta and tells what each leaf costs, in order of execution.

    Leaves that are alike cost alike: all but two of them are passed over.
    """

    model: Model
    leaves: Sequence[Leaf]
    own: Counter[int] = field(default_factory=Counter)  # FLOPs of each place
    states: dict[int, State | None] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    next: int = 0
    place: int = OUTSIDE
    counted: int = 0

    def __post_init__(self) -> None:
        self.run_for = stand_ins(self.leaves)
        named = dict(self.model.named_modules())
        self.modules = [named.get(leaf.name) or named[leaf.weights] for leaf in self.leaves]
        self.counter = FlopCounterMode(display=False)
        for module in dict.fromkeys(self.modules):
            module.forward = self._watched(module, module.forward)

    def prefill(self, length: int) -> list[int | None]:
        """FLOPs of each leaf in a forward over ``length`` tokens."""
        self.model.eval()
        with torch.no_grad():
            return self._count(lambda: self.model(no_ids(length)))

    def decode(self, length: int) -> list[int | None]:
        """FLOPs of each leaf for the last of ``length`` tokens, those before it cached."""
        self.model.eval()
        cache = self.model.new_cache(1)
        if length > 1:
            self._count(lambda: self.model(no_ids(length - 1), cache=cache))
        return self._count(lambda: self.model(no_ids(1), cache=cache))

    def train(self, length: int) -> list[int | None]:
        """FLOPs of each leaf in the forward and the backward of the loss.

        A product's gradient first asks for what its leaf's forward saved: so it is known whose it
        is.
        """

        def step() -> None:
            ids = no_ids(length)
            with saved_tensors_hooks(lambda tensor: (self.place, tensor), self._unpack):
                self.model.loss(ids, ids).backward()  # type: ignore[no-untyped-call]

        self.model.train()
        return self._count(step)

    def cache_bytes(self) -> list[int | None]:
        """Bytes that each leaf's own state remembers since the last ``decode``."""
        states = [(n, self.states.get(n)) for n in self.run_for]
        return [
            0 if state is None else None if n in self.failed else state.nbytes
            for n, state in states
        ]

    def fixed(self) -> list[bool]:
        """Whether each leaf's state is of a size that does not grow with the tokens."""
        return [getattr(self.states.get(n), "fixed", False) for n in self.run_for]

    def _count(self, run: Callable[[], object]) -> list[int | None]:
        self.next, self.place, self.counted = 0, OUTSIDE, 0
        self.own, self.states, self.failed = Counter(), {}, set()
        with self.counter:
            run()
            self._move(OUTSIDE)
        assert not self.own[OUTSIDE], f"{self.own[OUTSIDE]} FLOPs between the leaves"
        return [None if n in self.failed else self.own[n] for n in self.run_for]

    def _move(self, place: int) -> None:
        """What was counted since the last move belongs to where we were."""
        now = self.counter.get_total_flops()
        self.own[self.place] += now - self.counted
        self.place, self.counted = place, now

    def _unpack(self, saved: tuple[int, Tensor]) -> Tensor:
        self._move(saved[0])
        return saved[1]

    def _watched(self, module: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(forward)
        def watched(x: Tensor, **given: Any) -> Tensor:
            place, around = self.next, self.place
            leaf = self.leaves[place]
            assert self.modules[place] is module, f"{leaf.name} is not the leaf that runs"
            self.next += 1
            if self.run_for[place] != place:
                return self._in_place_of(leaf, x)
            self.states[place] = given.get("cache")
            self._move(place)
            try:
                return forward(x, **given)
            except Exception:  # it asks for data, or has a limit of its own
                self.failed.add(place)
                if "body" in given and self.next == place + 1:  # what it joins is yet to run
                    given["body"](_widened(x, self.leaves[self.next].dim))
                return self._in_place_of(leaf, x)
            finally:
                self._move(around)

        return watched

    def _in_place_of(self, leaf: Leaf, x: Tensor) -> Tensor:
        """Of the shape that the leaf would give."""
        if NODES[leaf.kind].reads == "tokens":
            dtype = next(self.model.parameters()).dtype
            return torch.empty(*x.shape, leaf.out, dtype=dtype, device=META, requires_grad=True)
        return _widened(x, leaf.out)


def _widened(x: Tensor, width: int) -> Tensor:
    """Of another width, with a way back for gradients."""
    return x if x.shape[-1] == width else x[..., :1].expand(*x.shape[:-1], width)


def no_ids(*shape: int) -> Tensor:
    """Token ids without data, of one row."""
    return torch.empty(1, *shape, dtype=torch.long, device=META)


# Memory


def measure_memory(recipe: Recipe, length: int, batch: int, dtype: str, shards: int = 1) -> Memory:
    """What a training step over ``(batch, length)`` tokens keeps, as it would on a CPU; of weights
    in so many ``shards``, the first one's.
    """
    model = shapes_alone(recipe, torch.float32)
    as_on_cpu = _LayerNormOfCPU()  # type: ignore[no-untyped-call]
    with FakeTensorMode(), as_on_cpu, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how fast a run would be, which never happens
        materialise(model, lambda _, parameter: torch.empty(parameter.shape))
        weights = sum(first_part(parameter, shards) for parameter in model.parameters())
        optimizer = _known(lambda: optimizer_bytes(model, recipe, shards))
        ids = torch.empty(batch, length).long()
        chunk = at_once(settings_of(recipe).loss_chunk, recipe.graph.vocab)
        around_layers(model, None, bool(recipe.train["recompute"]))
        activations = _known(lambda: saved_bytes(model, ids, dtype, chunk))
        gathered = gathered_bytes(model) if shards > 1 else 0
    average = 0 if recipe.train["ema"] is None else weights
    return Memory(weights, weights, optimizer, activations, average, gathered)


def first_part(tensor: Tensor, shards: int) -> int:
    """Bytes of the first of the parts that a tensor's rows are cut into: none has more."""
    if not tensor.dim() or not len(tensor):
        return int(tensor.nbytes)
    row = int(tensor.nbytes) // len(tensor)
    return row * -(-len(tensor) // shards)


def gathered_bytes(model: Model) -> int:
    """What of sharded weights is whole at once at most."""
    whole = sum(int(parameter.nbytes) for parameter in model.parameters())
    if shares_across_layers(model):
        return whole
    modules: Iterable[nn.Module] = getattr(model, "layers", ())
    layers = [sum(int(p.nbytes) for p in layer.parameters()) for layer in modules]
    return whole - sum(layers) + sum(sorted(layers)[-2:])


class _LayerNormOfCPU(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps a layer norm's mean and deviation in the dtype of its weights, as a CPU does; a tensor
    without data would keep them in that of its input.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.native_layer_norm.default:
            return out
        dtype = next((given.dtype for given in args[2:4] if given is not None), args[0].dtype)
        return out[0], *(kept.to(dtype) for kept in out[1:])


def optimizer_bytes(model: Model, recipe: Recipe, shards: int = 1) -> int:
    """What the recipe's optimizer remembers after a step, of the first part of the weights."""
    optimizers = settings_of(recipe).optimizer.over(  # type: ignore[attr-defined]
        learners(model, recipe.graph)
    )
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()
    return sum(first_part(tensor, shards) for tensor in state_tensors(optimizers, model).values())


def saved_bytes(model: Model, ids: Tensor, dtype: str, loss_chunk: int | None = None) -> int:
    """Bytes that the loss's forward keeps for its backward, parameters aside; views of one storage
    count once, and what a chunk of the loss needs for itself alone is gone by then.
    """
    weakly: Callable[[torch.UntypedStorage], Any] = StorageWeakRef
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, tuple[Any, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (weakly(storage), storage.nbytes())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), numerics(ids.device, dtype):
        loss = model.loss(ids, ids, chunk=loss_chunk)
    found = sum(size for held, size in kept.values() if not held.expired())
    del loss  # until here it held them
    return found


def _known(measured: Callable[[], int]) -> int | None:
    """A number, or None if it cannot be had without data."""
    try:
        return measured()
    except Exception:
        return None
