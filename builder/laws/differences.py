"""What sets two models apart, once they have the same weights wherever theirs overlap.

These are found by name, or else by what is left over: so an option that only renames a parameter,
or only gives it another shape, is seen to do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from builder.laws.noise import perturb
from builder.laws.probe import TOLERANCE, distance
from builder.model import Model, build
from builder.recipe import Recipe

LENGTH = 12  # of the rows that both read


def difference(first: Recipe, second: Recipe) -> str:
    """What two models with the same weights differ in, or nothing."""
    ours, theirs = Seen.of(first), Seen.of(second)
    lend(ours.model, theirs.model)
    ids = torch.arange(2 * LENGTH).view(2, LENGTH) * 7 % min(first.graph.vocab, second.graph.vocab)
    if what := different_logits(ours.model, theirs.model, ids):
        return what
    if what := different_training(ours.model, theirs.model, ids):
        return what
    begun = alike(ours.begun, theirs.begun)
    return "the initial weights" if any(not torch.equal(a, b) for a, b in begun) else ""


@dataclass(frozen=True)
class Seen:
    """A model in float64 with weights in general position, and those that it began with."""

    model: Model
    begun: Mapping[str, Tensor]

    @classmethod
    def of(cls, recipe: Recipe) -> Seen:
        model = build(recipe, dtype=torch.float64).eval()
        begun = {name: p.detach().clone() for name, p in model.named_parameters()}
        return cls(perturb(model, 0), begun)


@torch.no_grad()
def lend(ours: Model, theirs: Model) -> None:
    """Give a model the weights of another wherever they overlap: those of the same name, else the
    next of the same shape that is left over.
    """
    mine, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    left = [weight for name, weight in mine.items() if name not in others]
    for name, weight in others.items():
        source = mine.get(name)
        if source is None:
            place = next((i for i, spare in enumerate(left) if spare.shape == weight.shape), None)
            source = None if place is None else left.pop(place)
        if source is not None and source.dim() == weight.dim():
            corner = tuple(map(slice, map(min, source.shape, weight.shape)))
            weight[corner] = source[corner]


@torch.no_grad()
def different_logits(ours: Model, theirs: Model, ids: Tensor) -> str:
    """Whether two models give other logits, of plain, packed or padded tokens, or for so many none.

    Logits that are no numbers say nothing.
    """
    packed = torch.arange(LENGTH).expand(ids.shape) // 5
    padded = torch.arange(LENGTH).expand(ids.shape) < torch.tensor([[0], [3]])
    plain: dict[str, Tensor] = {}
    for given in (plain, {"documents": packed}, {"padding": padded}):
        a, b = read(ours, ids, given), read(theirs, ids, given)
        if a is None or b is None:
            return "" if a is b else "how much can be read"
        if not (a.isfinite().all() and b.isfinite().all()):
            return ""
        if distance(a, b) > TOLERANCE:
            return "the logits"
    return ""


def read(model: Model, ids: Tensor, given: Mapping[str, Tensor]) -> Tensor | None:
    """The logits; None where only fewer tokens can be read."""
    try:
        return model(ids, **given)  # type: ignore[no-any-return]
    except (ValueError, IndexError):
        model(ids[:, :1])
        return None


def different_training(ours: Model, theirs: Model, ids: Tensor) -> str:
    """Whether two models learn otherwise, of one batch and from one state of the random numbers.

    A loss that is no number says nothing.
    """
    (a, mine), (b, others) = (learn(model, ids) for model in (ours, theirs))
    if not (a.isfinite() and b.isfinite()):
        return ""
    if distance(a, b) > TOLERANCE:
        return "the loss"
    pairs = alike(mine, others)
    return "the gradients" if any(distance(x, y) > TOLERANCE for x, y in pairs) else ""


def learn(model: Model, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss in training, and the gradient of each parameter that gets one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = model.train().loss(ids, ids.roll(-1, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    named = ((name, p.grad) for name, p in model.named_parameters())
    return loss.detach(), {name: gradient for name, gradient in named if gradient is not None}


def alike(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The tensors that two models name alike, where they have one shape."""
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    return [(a, b) for a, b in pairs if a.shape == b.shape]
