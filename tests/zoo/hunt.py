"""Which law sees a bug: recipes are drawn, and every law is asked about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from builder.laws import LAWS, recipes
from builder.laws.case import Case
from builder.laws.parameters import initial_weights_are_keyed
from builder.laws.spellings import spelling_changes_nothing
from builder.laws.strategies import respellings, swaps
from builder.recipe import Recipe

Pair = tuple[Recipe, Recipe] | None
SEED = 0  # of the draws: the same recipes for every bug


@dataclass
class Hunt:
    """How many recipes have been asked about, and the first that broke a law, and how."""

    recipes: int = 0
    law: str = ""
    said: str = ""
    also: list[str] = field(default_factory=list)  # the other laws that it breaks


def hunt(limit: int) -> Hunt:
    """Draw up to ``limit`` recipes, until one breaks a law."""
    found = Hunt()

    @seed(SEED)
    @settings(
        max_examples=limit,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        recipe=recipes(),
        spelling=st.none() | st.none() | st.none() | respellings(),
        swap=st.none() | st.none() | st.none() | swaps(),
        number=st.integers(0, 999),
    )
    def ask(recipe: Recipe, spelling: Pair, swap: Pair, number: int) -> None:
        if not found.law:
            found.recipes += 1
            for name, law in questions(Case(recipe, number), spelling, swap):
                if said := complaint(law):
                    found.law, found.said = found.law or name, found.said or said
                    found.also += [name] if name != found.law else []
        assert not found.law

    if (said := complaint(ask)) and not found.law:
        found.law, found.said = "drawing", said
    return found


def questions(case: Case, spelling: Pair, swap: Pair) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every law about a case, and those about two recipes where two are given."""
    for name, law in LAWS.items():
        yield name, lambda law=law: law(case)
    if spelling:
        ours, theirs = spelling
        name = "spelling_changes_nothing"
        yield name, lambda: spelling_changes_nothing(Case(ours, case.seed), theirs)
    if swap:
        ours, theirs = swap
        name = "initial_weights_are_keyed"
        yield name, lambda: initial_weights_are_keyed(Case(ours, case.seed), theirs)


def complaint(ask: Callable[[], object]) -> str:
    """What an exception says, and nothing if there is none."""
    try:
        ask()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
