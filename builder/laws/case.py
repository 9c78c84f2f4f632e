"""What a law is asked about: a recipe and a seed, and so its model and its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from builder.laws.noise import noise_of, perturb, stir
from builder.laws.probe import traced
from builder.model import Model, build
from builder.recipe import Recipe

LENGTH = 10
MODERATE = 1e3  # of a leaf's largest output
FAINT = 1e-50  # a leaf may multiply six of less, which is 0
DRAWS = 200  # in which something is to show: a single unit is dead in half of them
SPREADS = (1.0, 0.5, 0.2, 0.1)
STIRRED = 3.0  # far enough to either side for every piece of a function


@dataclass(frozen=True, eq=False)
class Case:
    """A recipe, the seed of its weights and tokens, and how many tokens most laws read.

    ``model`` is made once and shared by all laws: none may leave it changed, or with gradients.
    """

    recipe: Recipe
    seed: int = 0
    length: int = LENGTH
    spreads: tuple[float, ...] = SPREADS  # of the weights: the first that keeps numbers moderate
    stirred: float = 0.0  # the noise that every module with weights reads too
    scratch: Model | None = None  # a model of the recipe, to be given these weights

    @cached_property
    def model(self) -> Model:
        """In float64, ready to be asked, every weight in general position."""
        scratch = blank(self.recipe) if self.scratch is None else self.scratch
        model = drawn(scratch, self.seed, self.spreads)
        return stir(model, self.seed, self.stirred) if self.stirred else model

    def ids(self, rows: int = 2, length: int | None = None) -> Tensor:
        """Token ids, (rows, length), no more than the recipe's context."""
        length = self.length if length is None else length
        return ids_of(self.recipe, self.seed, rows, min(length, self.recipe.graph.context))

    def other(self, seed: int) -> Case:
        """The same recipe with other weights and tokens."""
        return self if seed == self.seed else Case(self.recipe, seed, self.length)

    def draws(self) -> Iterator[Case]:
        """The same recipe with one set of weights and tokens after another, each until the next."""
        yield self
        scratch = blank(self.recipe)
        for seed in range(self.seed + 1, self.seed + DRAWS):
            yield replace(self.other(seed), scratch=scratch)

    def faint(self) -> Case:
        """The same recipe with weights so small that nothing is saturated, as a soft cap may be."""
        return replace(self, spreads=SPREADS[-1:])

    def stir(self) -> Case:
        """The same recipe, with noise in what each module with weights reads.

        What stands before it may never give it all that it is for: what is above 0 alone, say.
        """
        return replace(self, stirred=STIRRED)

    @cached_property
    def vanishes(self) -> bool:
        """Whether numbers become so small on their way that what depends on what cannot be seen."""
        with torch.no_grad(), traced(self.model) as seen:
            self.model(self.ids())
        largest = [float(x.abs().max()) for outputs in seen.values() for x in outputs]
        return any(0 < size < FAINT for size in largest)

    def weigh(self, logits: Tensor) -> Tensor:
        """A number that depends on every logit: what gradients are taken of."""
        return (logits * noise_of(self.seed, "logits", logits)).sum()


Law: TypeAlias = Callable[[Case], float]  # the largest error, or AssertionError


def model_of(recipe: Recipe, seed: int) -> Model:
    """A recipe's model in float64 with weights in general position."""
    return drawn(blank(recipe), seed)


def blank(recipe: Recipe) -> Model:
    return build(recipe, dtype=torch.float64).eval()


@torch.no_grad()
def drawn(model: Model, seed: int, spreads: tuple[float, ...] = SPREADS) -> Model:
    """A model with its weights drawn anew, in general position.

    Where squares of squares explode, the weights are smaller: rounding would drown what is asked.
    """
    context = model.recipe.graph.context
    ids = ids_of(model.recipe, seed, 2, min(40, context))  # some sums grow with the length
    for spread in spreads:
        perturb(model, seed, spread)
        with traced(model) as seen:
            model(ids)
        if all(float(x.abs().max()) < MODERATE for outputs in seen.values() for x in outputs):
            break
    return model


def ids_of(recipe: Recipe, seed: int, rows: int, length: int) -> Tensor:
    """Token ids, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(recipe.graph.vocab, (rows, length), generator=generator, device="cpu")
    return ids.to(torch.get_default_device())


def read(model: Model, ids: Tensor, **given: Any) -> Tensor:
    """The logits of some tokens."""
    logits: Tensor = model(ids, **given)
    return logits


def gradients(model: Model, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter, by name; zero where none is reached."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(names, found, parameters, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for name, g, p in pairs}
