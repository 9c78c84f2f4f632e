"""A recipe asked every law: how large the error of each is, or where it is broken and how.

A law is asked of the recipe's twin, with a few draws of weights and tokens.  One that fails is
asked again on fewer tokens.  Whatever a block raises is a failure too, and stops no other law.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch import Tensor

from builder.laws.blame import Blame, blame
from builder.laws.case import Case, Law
from builder.laws.laws import LAWS
from builder.laws.spellings import resolved_page_is_its_own, spelling_changes_nothing
from builder.laws.twin import LARGE, Twin, count_weights, meant, twin
from builder.model import build, length_read
from builder.recipe import Recipe

SEEDS = 5
LONGEST = 16  # tokens: a failure that takes more is told with what the law read
ROWS = 3  # of one input; a batch of more is many variants of one
OF_THE_PAGE = (spelling_changes_nothing, resolved_page_is_its_own)  # which a twin has not


@dataclass(frozen=True, eq=False)
class Witness(Case):
    """A case that remembers the longest tokens that a law took from it."""

    taken: list[Tensor] = field(default_factory=list)

    def ids(self, rows: int = 2, length: int | None = None) -> Tensor:
        ids = super().ids(rows, length)
        if not self.taken or ids.shape[1] > self.taken[0].shape[1]:
            self.taken[:] = [ids]
        return ids


@dataclass(frozen=True)
class Failure:
    """How a law failed, who is to blame, and the smallest input that shows it: tokens, a row each.

    There are none where the law read none.
    """

    blame: Blame
    seed: int
    ids: tuple[tuple[int, ...], ...] = ()

    @property
    def tokens(self) -> int:
        """How long a row is."""
        return max(map(len, self.ids), default=0)

    def is_like(self, other: Failure) -> bool:
        """Whether both are at one place."""
        mine, theirs = self.blame, other.blame
        return (mine.leaf, mine.mark, mine.fault) == (theirs.leaf, theirs.mark, theirs.fault)


@dataclass(frozen=True)
class Answer:
    """What one law says: the largest error, or a failure; or why it was not asked."""

    law: str
    error: float = 0.0
    failure: Failure | None = None
    unasked: str = ""

    @property
    def title(self) -> str:
        """The law's name, as words."""
        return self.law.replace("_", " ")


@dataclass(frozen=True)
class Examination:
    """A recipe's twin, and the seeds of the weights and tokens that the laws are asked about."""

    twin: Twin
    seeds: Sequence[int]

    @classmethod
    def of(cls, recipe: Recipe, seed: int = 0) -> Examination:
        return cls(twin(recipe), range(seed, seed + SEEDS))

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.twin.original.name} {self.twin}; seeds {seeds}"

    @cached_property
    def reads_length(self) -> int | None:
        """The length of text up to which the laws about caches can hold; None if always."""
        return length_read(build(self.twin.original, device="meta"))

    @property
    def limits(self) -> str:
        """What the laws do not say of this recipe, in a sentence; empty if nothing."""
        if self.reads_length is None:
            return ""
        return (
            f"reads how long a text is: past {self.reads_length:,} tokens, in parts and at once "
            "differ, and laws of caches are asked up to there"
        )

    def answers(self) -> Iterator[Answer]:
        """What each law says, as soon as it is known."""
        cases = [Witness(self.twin.recipe, seed) for seed in self.seeds]
        for name, law in LAWS.items():
            if law in OF_THE_PAGE:
                yield self._of_the_page(name, law)
            else:
                yield self._of_the_twin(name, law, cases)

    def _of_the_twin(self, name: str, law: Law, cases: Sequence[Witness]) -> Answer:
        worst = 0.0
        for case in cases:
            found = ask(law, case)
            if isinstance(found, Failure):
                return Answer(name, failure=self._in_original(self._smallest(law, found)))
            worst = max(worst, found)
        return Answer(name, worst)

    def _smallest(self, law: Law, failure: Failure) -> Failure:
        """The same failure, on the fewest tokens that show it."""
        graph = self.twin.recipe.graph
        for length in range(1, min(failure.tokens, LONGEST + 1)):
            shorter = replace(graph, context=min(length, graph.context))
            recipe = meant(self.twin.recipe, shorter)
            for seed in self.seeds:
                found = ask(law, Witness(recipe, seed, length))
                if isinstance(found, Failure) and found.is_like(failure):
                    return found
        return failure

    def _in_original(self, failure: Failure) -> Failure:
        """With the numbers of the original's layers."""
        known, told = failure.blame, self.twin.in_original
        leaf = known.leaf and told(known.leaf)
        own = replace(known, says=told(known.says), leaf=leaf, fault=told(known.fault))
        return replace(failure, blame=own)

    def _of_the_page(self, name: str, law: Law) -> Answer:
        """A law about the page: of the original, if its weights are few or need not be drawn."""
        count = count_weights(build(self.twin.original, device="meta"))
        if count > LARGE and law is spelling_changes_nothing:
            return Answer(name, unasked=f"it would draw all {count:,} weights")
        found = ask(law, Witness(self.twin.original, self.seeds[0]))
        if isinstance(found, Failure):
            return Answer(name, failure=found)
        return Answer(name, found)


def ask(law: Law, case: Witness) -> float | Failure:
    """The largest error, or how the law fails."""
    case.taken.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on what a faulty block gave it
            return law(case)
    except MemoryError:
        raise
    except Exception as error:
        taken = [ids if len(ids) <= ROWS else ids[:1] for ids in case.taken]
        rows = tuple(tuple(row) for ids in taken for row in ids.tolist())
        return Failure(blame(error, case), case.seed, rows)
