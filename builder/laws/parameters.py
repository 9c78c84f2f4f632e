"""Parameters: each learns, has one name, is moved by one optimizer group, and is saved whole."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blocks.registry import REGISTRY
from builder.assemble import count_adds
from builder.graph import edges, leaves
from builder.laws.case import Case, gradients
from builder.laws.probe import TOLERANCE
from builder.model import Model, build
from builder.recipe import Recipe
from builder.training import checkpoints
from builder.training.optimizers import learners
from builder.training.runs import load_weights

TABLES = ("embedding", "positions", "norm")  # kinds whose parameters never decay
FEW = 10  # draws before it is asked what may keep a parameter from learning


def every_parameter_learns(case: Case) -> float:
    """Every parameter gets a gradient that is a number, and not zero unless its leaf says why."""
    unmoved: set[str] | None = None
    draws = case.draws()
    for other in chain(islice(draws, FEW), [case.faint(), case.stir()], draws):
        nulls, lent = null_parameters(other.model), _lenders(case.recipe)
        found = gradients(other.model, other.weigh(other.model(other.ids())))
        for name, gradient in found.items():
            assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
            null = name in nulls and not name.startswith(lent)
            largest = float(gradient.abs().max())
            assert not (null and largest > TOLERANCE), (
                f"{name} has a gradient of {largest:.3g}, though {nulls[name]}"
            )
        still = {name for name, gradient in found.items() if not gradient.any()} - set(nulls)
        unmoved = still if unmoved is None else unmoved & still
        if not unmoved or case.vanishes:
            return 0.0
    raise AssertionError(f"no gradient reaches {', '.join(sorted(unmoved or ()))}")


def null_parameters(model: Model) -> dict[str, str]:
    """Parameters without gradient, and why: what every module that uses them declares."""
    uses: Counter[int] = Counter()
    declared: Counter[int] = Counter()
    reasons: dict[int, str] = {}
    for module in model.modules():
        if (nulls := getattr(module, "nulls", None)) is None:
            continue
        for name, parameter in module.named_parameters():
            uses[id(parameter)] += 1
            for part, reason in nulls().items():
                if name.startswith(part):
                    declared[id(parameter)] += 1
                    reasons[id(parameter)] = reason
    named = {name: id(parameter) for name, parameter in model.named_parameters()}
    return {n: reasons[i] for n, i in named.items() if i in reasons and declared[i] == uses[i]}


def _lenders(recipe: Recipe) -> tuple[str, ...]:
    """Leaves from which others read something: there what is null here may be none."""
    sources = (edge.source for leaf in leaves(recipe.graph) for _, edge in edges(leaf))
    return tuple(f"{source}." for source in sources if isinstance(source, str))


def names_are_unique(case: Case) -> float:
    """Every leaf has a name of its own, and every parameter is named by the leaf that owns it."""
    graph = case.recipe.graph
    model = build(case.recipe, device="meta")
    shared = tuple(f"{leaf.weights}." for leaf in leaves(graph) if leaf.weights != leaf.name)
    names = [leaf.name for leaf in leaves(graph) if not leaf.name.startswith(shared)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    assert not doubled, f"two leaves are named {', '.join(doubled)}"
    owners = tuple(f"{leaf.weights}." for leaf in leaves(graph))
    for name, _ in model.named_parameters():
        plain = name.replace(".experts.", ".")
        assert name.startswith(owners) or plain.startswith(owners), f"{name} belongs to no leaf"
    return 0.0


def each_is_moved_by_one_group(case: Case) -> float:
    """Every parameter is in exactly one group of any optimizer; only matrices that mix decay."""
    model, graph = case.model, case.recipe.graph
    tables = [leaf.weights for leaf in leaves(graph) if leaf.kind in TABLES]
    for word, make in optimizers().items():
        made = make().over(learners(model, graph))
        groups = [group for optimizer in made for group in optimizer.param_groups]
        counts = Counter(id(p) for group in groups for p in group["params"])
        decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        for name, parameter in model.named_parameters():
            count = counts.pop(id(parameter), 0)
            assert count == 1, f"{name} is in {count} groups of {word}"
            lookup = any(name.startswith(f"{table}.") for table in tables)
            vector = parameter.dim() - getattr(parameter, "stacked", False) < 2
            decays = id(parameter) in decayed
            assert decays != (lookup or vector), (
                f"{name} {'decays' if decays else 'does not decay'} under {word}"
            )
        assert not counts, f"{len(counts)} parameters of no model are in a group of {word}"
    return 0.0


def optimizers() -> dict[str, Callable[[], Any]]:
    """Every registered optimizer that needs no options."""
    return {word: cls for (kind, word), cls in REGISTRY.items() if kind == "optimizer"}


def tied_stays_tied(case: Case) -> float:
    """A weight used twice stays one through a copy, a change of type, and its saved state."""
    model, ids = case.model, case.ids()
    tied, before = _tied(model), model(ids)
    owners = {leaf.weights: dict(leaf.options) for leaf in leaves(case.recipe.graph)}
    table = next(leaf.weights for leaf in leaves(case.recipe.graph) if leaf.kind == "embedding")
    for name in (name for name, options in owners.items() if options.get("tie")):
        together = any({f"{name}.weight", f"{table}.weight"} <= group for group in tied)
        assert together, f"{name} is not tied to {table}"
    twin = build(case.recipe, seed=1, dtype=torch.float64).eval()
    twin.load_state_dict(model.state_dict())
    copied = copy.deepcopy(model)
    for claim, other in {"a deep copy": copied, "a loaded state": twin}.items():
        assert _tied(other) == tied, f"{claim} has other ties"
        assert torch.equal(other(ids), before), f"{claim} gives other logits"
    assert _tied(twin.float()) == tied, "a change of type unties"
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1.0)
    assert torch.equal(model(ids), before), "a deep copy shares weights with its original"
    return 0.0


def _tied(model: Model) -> set[frozenset[str]]:
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values()}


@torch.no_grad()
def saved_equals_loaded(case: Case) -> float:
    """A checkpoint read into a new model gives every weight, and every logit, to the bit."""
    model, ids = case.model, case.ids()
    weights = dict(model.named_parameters())
    other = build(case.recipe, seed=1, dtype=torch.float64).eval()
    with tempfile.TemporaryDirectory() as folder:
        load_weights(other, checkpoints.write(Path(folder), 1, {"model": weights}, {}))
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, weights[name]), f"{name} is loaded otherwise"
    assert torch.equal(other(ids), model(ids)), "a loaded model gives other logits"
    return 0.0


def initial_weights_are_keyed(case: Case, other: Recipe | None = None) -> float:
    """A weight that two recipes name alike begins alike, to the bit, whatever else they hold.

    Within one recipe no two begin alike.
    """
    recipe = case.recipe
    other = recipe if other is None else other
    ours = build(recipe, seed=case.seed)
    theirs = dict(build(other, seed=case.seed).named_parameters())
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
            value = parameter.detach().cpu().numpy().tobytes()
            assert value not in first, f"{name} begins as {first[value]} does"
            first[value] = name
    return 0.0


def _role(parameter: Tensor) -> tuple[object, ...]:
    return tuple(getattr(parameter, name, None) for name in ("initial", "stacked", "output"))
