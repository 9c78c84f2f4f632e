"""A cache driven step by step by hypothesis, beside the plain list of ids that it stands for."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from builder.laws.caches import Edited
from builder.laws.case import Case
from builder.laws.strategies import recipes
from builder.recipe import Recipe

ROWS = st.lists(st.integers(0, 3), min_size=1, max_size=3)
ids = st.integers(0, 999)


class CacheMachine(RuleBasedStateMachine):
    """Any recipe; any order of reads, crops, forks, reorders and resets, in any number of rows."""

    @initialize(
        recipe=recipes(),
        seed=st.integers(0, 999),
        kind=st.sampled_from(["plain", "padding", "documents"]),
        marks=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    )
    def begin(self, recipe: Recipe, seed: int, kind: str, marks: list[int]) -> None:
        self.case = Case(recipe, seed)
        self.edited = Edited.new(self.case.model, kind, marks)
        self.other: Edited | None = None

    @rule(count=st.integers(1, 12), seed=ids)
    def read(self, count: int, seed: int) -> None:
        if count := min(count, self.edited.room):
            new = Case(self.case.recipe, seed).ids(len(self.edited.held), count)
            with torch.no_grad():
                self.edited.read(new)

    @rule(share=st.floats(0, 1))
    def crop(self, share: float) -> None:
        self.edited.crop(round(share * self.edited.length))

    @rule()
    def fork(self) -> None:
        """The one that is left goes on too, when it is taken up again."""
        self.other = self.edited.fork()

    @precondition(lambda self: self.other is not None)
    @rule()
    def change_over(self) -> None:
        assert self.other is not None
        self.edited, self.other = self.other, self.edited

    @rule(rows=ROWS)
    def reorder(self, rows: list[int]) -> None:
        self.edited.reorder([row % len(self.edited.held) for row in rows])

    @rule()
    def reset(self) -> None:
        self.edited.reset()
