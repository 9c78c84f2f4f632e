"""The laws: each takes a recipe and a seed, raises AssertionError, or gives the largest error.

Models are in float64 with every weight in general position, so that what should agree does so to
the last digits.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from blocks.cache import Cache
from builder.assemble import count_adds
from builder.graph import Edge, Leaf, leaves
from builder.laws.noise import noise_of, perturb
from builder.laws.nulls import null_parameters
from builder.laws.probe import TOLERANCE, agree, distance, traced
from builder.model import Model, build
from builder.recipe import Recipe, load_recipe

Law: TypeAlias = Callable[[Recipe, int], float]

TRIES = (
    6  # draws of weights and tokens in which a gradient may be nonzero: a unit can be dead in one
)
LENGTH = 10
LONG = 40  # past the first buffer of a cache, so that it is moved
MODERATE = 1e3  # of a leaf's largest output


@torch.no_grad()
def model_of(recipe: Recipe, seed: int) -> Model:
    """The recipe's model in float64, ready to be asked, its weights in general position.

    Where squares of squares explode, the weights are smaller: rounding would drown what is asked.
    """
    model = build(recipe, dtype=torch.float64).eval()
    ids = ids_of(recipe, seed, 2, min(LONG, recipe.graph.context))  # some sums grow with the length
    for gain in (1.0, 0.5, 0.2, 0.1):
        perturb(model, seed, gain)
        with traced(model) as seen:
            model(ids)
        if all(float(x.abs().max()) < MODERATE for outputs in seen.values() for x in outputs):
            break
    return model


def ids_of(recipe: Recipe, seed: int, rows: int = 2, length: int | None = None) -> Tensor:
    """Token ids, (rows, length)."""
    length = min(LENGTH, recipe.graph.context) if length is None else length
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(recipe.graph.vocab, (rows, length), generator=generator)


def read(model: Model, ids: Tensor, cache: Cache | None = None, **given: Tensor) -> Tensor:
    """The logits of some tokens."""
    logits: Tensor = model(ids, cache=cache, **given)
    return logits


def whole(x: Tensor) -> Tensor:
    return x


# What a token may depend on


@torch.no_grad()
def has_right_shapes(recipe: Recipe, seed: int) -> float:
    """Logits are (B, T, vocab), finite, and of the model's type; one token is enough."""
    for dtype in (torch.float64, torch.float32):
        model = model_of(recipe, seed).to(dtype)
        for ids in (ids_of(recipe, seed), ids_of(recipe, seed, 1, 1)):
            logits = model(ids)
            assert logits.shape == (*ids.shape, recipe.graph.vocab), f"logits are {logits.shape}"
            assert logits.dtype == dtype, f"a model of {dtype} gives {logits.dtype}"
            assert logits.isfinite().all(), "logits are not finite"
    return 0.0


@torch.no_grad()
def is_causal_by_value(recipe: Recipe, seed: int) -> float:
    """Whatever follows a token changes none of its logits."""
    model, before = model_of(recipe, seed), ids_of(recipe, seed)
    worst = 0.0
    for cut in range(1, before.shape[1]):
        after = before.clone()
        after[:, cut:] = (after[:, cut:] + 1) % recipe.graph.vocab

        def part(x: Tensor, cut: int = cut) -> Tensor:
            return x[:, :cut]

        def then(ids: Tensor = after) -> Tensor:
            return read(model, ids)

        claim = f"tokens from {cut} on changed what comes before"
        worst = max(worst, agree(model, lambda: model(before), then, claim, part, part))
    return worst


def is_causal_by_gradient(recipe: Recipe, seed: int) -> float:
    """No logit has a gradient to a later embedding, and some have one to another."""
    reached = any(_reaches(recipe, attempt) for attempt in range(seed, seed + TRIES))
    assert reached, "no token's logits depend on any embedding"
    return 0.0


def _reaches(recipe: Recipe, seed: int) -> bool:
    """Whether a logit has a gradient to some embedding; AssertionError if to a later one."""
    model, ids = model_of(recipe, seed), ids_of(recipe, seed, 1)
    embedded: list[Tensor] = []
    name = next(leaf.name for leaf in leaves(recipe.graph) if leaf.kind == "embedding")
    handle = model.get_submodule(name).register_forward_hook(lambda m, g, out: embedded.append(out))
    logits = model(ids)
    handle.remove()
    weighed = (logits * noise_of(seed, "logits", logits)).sum(-1)[0]
    reached = 0.0
    for i, logit in enumerate(weighed):
        (gradient,) = torch.autograd.grad(logit, embedded[0], retain_graph=True)
        assert gradient.isfinite().all(), f"the gradient of token {i} is not finite"
        later = gradient[0, i + 1 :].abs().sum(-1)
        assert not later.any(), (
            f"token {i} reads token {i + 1 + int(later.bool().long().argmax())}, which is later"
        )
        reached += float(gradient[0, : i + 1].abs().sum())
    return reached > 0


@torch.no_grad()
def rows_are_independent(recipe: Recipe, seed: int) -> float:
    """A row's logits don't depend on what else is in its batch."""
    model, ids = model_of(recipe, seed), ids_of(recipe, seed, 3)
    return max(
        agree(
            model,
            lambda: model(ids),
            lambda row=row: model(ids[row : row + 1]),  # type: ignore[misc]
            f"row {row} of the batch is not what it is alone",
            lambda x, row=row: x[row : row + 1],  # type: ignore[misc]
            whole,
        )
        for row in range(3)
    )


@torch.no_grad()
def dropout_is_off_in_eval(recipe: Recipe, seed: int) -> float:
    """An evaluated model gives the same logits at any state of the random numbers."""
    model, ids = model_of(recipe, seed), ids_of(recipe, seed)

    def after(state: int) -> Tensor:
        torch.manual_seed(state)
        return read(model, ids)

    claim = "two evaluations of one input"
    return agree(model, lambda: after(seed), lambda: after(seed + 1), claim, whole, whole)


# Caches


def pieces(length: int, seed: int) -> list[int]:
    """Lengths of chunks that add up to this one: single tokens, a few, or many."""
    chance, left, chunks = random.Random(seed), length, []
    while left:
        chunks.append(min(left, chance.choice([1, 1, 2, 3, 5, length])))
        left -= chunks[-1]
    return chunks


def read_in_chunks(model: Model, ids: Tensor, chunks: Sequence[int], **given: Tensor) -> Tensor:
    """Logits of a new cache fed chunk by chunk; what is given is cut as the model wants it."""
    cache, logits = model.new_cache(len(ids)), []
    for chunk in chunks:
        start, end = len(cache), len(cache) + chunk
        first = {"padding": 0, "documents": start}
        extra = {name: x[:, first[name] : end] for name, x in given.items()}
        logits.append(model(ids[:, start:end], cache=cache, **extra))
    return torch.cat(logits, 1)


@torch.no_grad()
def cached_equals_full(recipe: Recipe, seed: int) -> float:
    """Any chunking gives the logits of one forward; with padding or documents too."""
    model = model_of(recipe, seed)
    ids = ids_of(recipe, seed, 2, min(LONG, recipe.graph.context))
    length = ids.shape[1]
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[1, : length // 3] = True
    documents = (torch.arange(length)[None] >= torch.tensor([[length // 2], [length // 4]])).long()
    cases: list[tuple[list[int], dict[str, Tensor]]] = [
        ([1] * length, {}),
        (pieces(length, seed), {}),
        (pieces(length, seed + 1), {"padding": padding}),
        (pieces(length, seed + 2), {"documents": documents}),
    ]
    worst = 0.0
    for chunks, given in cases:

        def in_chunks(chunks: Sequence[int] = chunks, given: dict[str, Tensor] = given) -> Tensor:
            return read_in_chunks(model, ids, chunks, **given)

        def at_once(given: dict[str, Tensor] = given) -> Tensor:
            return read(model, ids, None, **given)

        seen = ~given.get("padding", torch.zeros_like(padding))

        def part(x: Tensor, seen: Tensor = seen) -> Tensor:
            return x[seen]

        claim = f"read in chunks of {chunks} with {list(given) or 'a cache'}"
        worst = max(worst, agree(model, at_once, in_chunks, claim, part, part))
    return worst


@torch.no_grad()
def caches_can_be_edited(recipe: Recipe, seed: int) -> float:
    """After any crops, forks, reorders and resets, a cache goes on as one just filled would."""
    model, chance = model_of(recipe, seed), random.Random(seed)
    cache, held = model.new_cache(2), ids_of(recipe, seed, 2, 0)
    worst, done = 0.0, []
    for step in range(8):
        action = chance.choice(["read", "read", "read", "crop", "crop", "fork", "reorder", "reset"])
        done.append(action)
        if action == "crop":
            length = chance.randint(0, held.shape[1])
            cache.crop(length)
            held = held[:, :length]
        elif action == "fork":
            cache.fork().reset()
            cache = cache.fork()
        elif action == "reorder":
            rows = torch.tensor([chance.randint(0, len(held) - 1) for _ in range(2)])
            cache.reorder(rows)
            held = held[rows]
        elif action == "reset":
            cache.reset()
            held = held[:, :0]
        assert len(cache) == held.shape[1], f"after {done} the cache says {len(cache)} positions"
        room = recipe.graph.context - held.shape[1]
        if room < 1:
            continue
        new = ids_of(recipe, seed + step, len(held), min(room, chance.choice([1, 2, 4])))
        both = torch.cat([held, new], 1)

        def onward(new: Tensor = new, cache: Cache = cache) -> Tensor:
            return read(model, new, cache=cache.fork())

        def tail(x: Tensor, count: int = new.shape[1]) -> Tensor:
            return x[:, -count:]

        def afresh(both: Tensor = both) -> Tensor:
            return read(model, both)

        worst = max(worst, agree(model, afresh, onward, f"a cache after {done}", tail, tail))
        if action == "read":
            model(new, cache=cache)
            held = both
    return worst


@torch.no_grad()
def cache_size_is_known(recipe: Recipe, seed: int) -> float:
    """A cache holds, to the byte, the keys and values that its masks can reach."""
    model, ids = model_of(recipe, seed), ids_of(recipe, seed, 2)
    cache = model.new_cache(2)
    assert cache.nbytes == 0, f"an empty cache holds {cache.nbytes} bytes"
    model(ids, cache=cache)
    mixers = [leaf for leaf in leaves(recipe.graph) if leaf.word == "attention"]
    expected = sum(_kept(leaf, mixers, ids.shape[1]) for leaf in mixers) * len(ids) * 8
    held = sum(state.nbytes for state in cache.states.values() if not state.fixed)
    assert held == expected, f"{held} bytes are held, not {expected}"
    return 0.0


def _kept(leaf: Leaf, mixers: Sequence[Leaf], length: int) -> int:
    """Numbers that an attention remembers of one row, for itself and for who reads its keys."""
    if leaf["kv_from"] is not None:
        return 0
    options: dict[str, Any] = dict(leaf.options)
    kept = max(_reach(other, length) for other in (leaf, *_readers(leaf, mixers)))
    return 2 * int(options["kv_heads"] * options["head_dim"]) * kept


def _readers(leaf: Leaf, mixers: Sequence[Leaf]) -> list[Leaf]:
    """Those that read an attention's keys, and those that read them from these."""
    own = [m for m in mixers if m["kv_from"] == Edge("keys_values", leaf.name)]
    return [reader for other in own for reader in (other, *_readers(other, mixers))]


def _reach(leaf: Leaf, length: int) -> int:
    options: dict[str, Any] = dict(leaf.options)
    window: int | None = dict(options["mask"].options).get("window")
    return length if window is None else min(length, window - 1)


# Padding and packing


def padded_equals_unpadded(recipe: Recipe, seed: int) -> float:
    """Padding changes no token's logits; where there is no token all is finite, gradients too."""
    model, chance = model_of(recipe, seed), random.Random(seed)
    ids = ids_of(recipe, seed, 3)
    length = ids.shape[1]
    left, right = chance.randint(1, length - 1), chance.randint(1, length - 1)
    padding = torch.zeros_like(ids, dtype=torch.bool)
    padding[0, :left] = True
    padding[1, length - right :] = True
    padding[2, :] = True
    logits = model(ids, padding=padding)
    assert logits.isfinite().all(), "a padded place has logits that are not finite"
    (logits * noise_of(seed, "logits", logits)).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
    worst = 0.0
    for row, real in ((0, slice(left, length)), (1, slice(0, length - right))):

        def part(x: Tensor, row: int = row, real: slice = real) -> Tensor:
            return x[row : row + 1, real]

        def alone(row: int = row, real: slice = real) -> Tensor:
            return read(model, ids[row : row + 1, real])

        claim = f"{('left', 'right')[row]} padding changed the tokens beside it"
        with torch.no_grad():
            padded = agree(model, lambda: model(ids, padding=padding), alone, claim, part, whole)
        worst = max(worst, padded)
    return worst


def packed_equals_separate(recipe: Recipe, seed: int) -> float:
    """Documents in one row are as each would be alone: logits, loss and gradients."""
    model, chance = model_of(recipe, seed), random.Random(seed)
    ids = ids_of(recipe, seed, 1)
    length = ids.shape[1]
    cuts = [0, *sorted(chance.sample(range(1, length), 2)), length]
    documents = torch.bucketize(torch.arange(length), torch.tensor(cuts[1:-1]), right=True)[None]
    spans = [slice(a, b) for a, b in pairwise(cuts)]

    def separate() -> Tensor:
        return torch.cat([model(ids[:, span]) for span in spans], 1)

    def packed() -> Tensor:
        return read(model, ids, documents=documents % 2)

    with torch.no_grad():
        error = agree(model, separate, packed, f"documents cut at {cuts}", whole, whole)
    labels = ids.roll(-1, 1)
    together = _gradients(model, model.loss(ids, labels, documents=documents))
    losses = [model.loss(ids[:, s], labels[:, s]) * (s.stop - s.start) / length for s in spans]
    apart = _gradients(model, sum(losses, torch.zeros((), dtype=torch.float64)))
    for name, gradient in together.items():
        error = max(error, distance(gradient, apart[name]))
        assert error <= TOLERANCE, f"packing changes the gradient of {name} by {error:.3g}"
    return error


def _gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(names, found, parameters, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for name, g, p in pairs}


# Parameters


def every_parameter_learns(recipe: Recipe, seed: int) -> float:
    """Every parameter gets a finite gradient, and one that is not zero unless its leaf says why."""
    nulls = null_parameters(recipe.graph)
    unmoved: set[str] | None = None
    for attempt in range(seed, seed + TRIES):
        model, ids = model_of(recipe, attempt), ids_of(recipe, attempt)
        logits = model(ids)
        gradients = _gradients(model, (logits * noise_of(attempt, "logits", logits)).sum())
        for name, gradient in gradients.items():
            assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
        still = {name for name, gradient in gradients.items() if not gradient.any()}
        unmoved = still if unmoved is None else unmoved & still
        unmoved = {name for name in unmoved if not name.startswith(tuple(nulls))}
        if not unmoved:
            return 0.0
    raise AssertionError(f"no gradient reaches {', '.join(sorted(unmoved or ()))}")


def names_are_unique(recipe: Recipe, seed: int) -> float:
    """Every leaf has a name of its own, and every parameter is named by the leaf that owns it."""
    model = build(recipe, device="meta")
    shared = tuple(f"{leaf.weights}." for leaf in leaves(recipe.graph) if leaf.weights != leaf.name)
    names = [leaf.name for leaf in leaves(recipe.graph) if not leaf.name.startswith(shared)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    assert not doubled, f"two leaves are named {', '.join(doubled)}"
    owners = tuple(f"{leaf.weights}." for leaf in leaves(recipe.graph))
    for name, _ in model.named_parameters():
        plain = name.replace(".experts.", ".")
        assert name.startswith(owners) or plain.startswith(owners), f"{name} belongs to no leaf"
    return 0.0


def tied_stays_tied(recipe: Recipe, seed: int) -> float:
    """A weight used twice stays one through a copy, a change of type, and its saved state."""
    model, ids = model_of(recipe, seed), ids_of(recipe, seed)
    tied = _tied(model)
    owners = {leaf.weights: dict(leaf.options) for leaf in leaves(recipe.graph)}
    table = next(leaf.weights for leaf in leaves(recipe.graph) if leaf.kind == "embedding")
    for name in (name for name, options in owners.items() if options.get("tie")):
        together = any({f"{name}.weight", f"{table}.weight"} <= group for group in tied)
        assert together, f"{name} is not tied to {table}"
    twin = build(recipe, seed=1, dtype=torch.float64).eval()
    twin.load_state_dict(model.state_dict())
    others = {"a deep copy": copy.deepcopy(model), "a loaded state": twin}
    for claim, other in others.items():
        assert _tied(other) == tied, f"{claim} has other ties"
        assert torch.equal(other(ids), model(ids)), f"{claim} gives other logits"
    single = copy.deepcopy(model).float()
    assert _tied(single) == tied, "a change of type unties"
    before = model(ids)
    with torch.no_grad():
        for parameter in others["a deep copy"].parameters():
            parameter.add_(1.0)
    assert torch.equal(model(ids), before), "a deep copy shares weights with its original"
    return 0.0


def _tied(model: Model) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values()}


def initial_weights_are_keyed(recipe: Recipe, seed: int, other: Recipe | None = None) -> float:
    """A weight that two recipes name alike begins alike, to the bit, whatever else they hold.

    Within one recipe no two begin alike.

    """
    other = recipe if other is None else other
    ours, theirs = build(recipe, seed=seed), dict(build(other, seed=seed).named_parameters())
    shrinks_alike = count_adds(recipe.graph) == count_adds(other.graph)
    for name, parameter in ours.named_parameters():
        twin = theirs.get(name)
        if twin is None or twin.shape != parameter.shape or _role(twin) != _role(parameter):
            continue
        if shrinks_alike or not getattr(parameter, "output", False):
            assert torch.equal(parameter, twin), f"{name} begins otherwise beside other blocks"
    first: dict[bytes, str] = {}
    for name, parameter in ours.named_parameters():
        drawn = getattr(parameter, "initial", None) is None
        if drawn and (parameter != parameter.flatten()[0]).any():  # else it begins at one value
            value = parameter.detach().numpy().tobytes()
            assert value not in first, f"{name} begins as {first[value]} does"
            first[value] = name
    return 0.0


def _role(parameter: Tensor) -> tuple[object, ...]:
    return tuple(getattr(parameter, name, None) for name in ("initial", "stacked", "output"))


# Spellings


def spelling_changes_nothing(recipe: Recipe, seed: int, other: Recipe | None = None) -> float:
    """Two spellings of a model are one graph, with equal names, weights and logits to the bit."""
    other = recipe if other is None else other
    assert recipe.graph == other.graph, "another spelling is another graph"
    assert recipe.hash == other.hash, "another spelling has another hash"
    ours, theirs = build(recipe, seed=seed).eval(), build(other, seed=seed).eval()
    first, second = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(first) == list(second), f"other names: {sorted(set(first) ^ set(second))}"
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), f"{name} begins otherwise in another spelling"
    ids = ids_of(recipe, seed)
    assert torch.equal(ours(ids), theirs(ids)), "another spelling gives other logits"
    return 0.0


def resolved_text_means_the_same(recipe: Recipe, seed: int) -> float:
    """The resolved page resolves to the same graph, and is its own resolved page."""
    again = load_recipe(recipe.resolved, (), recipe.plugins)
    assert again.graph == recipe.graph, "the resolved page is another graph"
    assert again.hash == recipe.hash, "the resolved page has another hash"
    assert again.resolved == recipe.resolved, "the resolved page does not resolve to itself"
    return 0.0


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        has_right_shapes,
        is_causal_by_value,
        is_causal_by_gradient,
        rows_are_independent,
        dropout_is_off_in_eval,
        cached_equals_full,
        caches_can_be_edited,
        cache_size_is_known,
        padded_equals_unpadded,
        packed_equals_separate,
        every_parameter_learns,
        names_are_unique,
        tied_stays_tied,
        initial_weights_are_keyed,
        spelling_changes_nothing,
        resolved_text_means_the_same,
    )
}
