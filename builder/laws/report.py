"""What the laws say of one recipe: how large the error of each is, or where it is broken and how.

A law is asked of the recipe's twin, with a few draws of weights and tokens.  One that fails is
asked again on fewer tokens.  Whatever a block raises is a failure too, and stops no other law.
"""

from __future__ import annotations

import copy
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from builder.assemble import LeafRun
from builder.errors import BuilderError, Finding, Mark, render, show
from builder.graph import Leaf, leaves
from builder.index import ROOT
from builder.laws.case import Case, Law
from builder.laws.laws import LAWS
from builder.laws.options import words_of
from builder.laws.probe import traced
from builder.laws.twin import LARGE, NoPage, Twin, count_weights, twin, unwritten
from builder.model import build
from builder.recipe import Recipe

SEEDS = 5
LONGEST = 16  # tokens: a failure that takes more is told with what the law read
ROWS = 3  # of one input; a batch of more is many variants of one
OF_WORD = re.compile(r"\b\w+ of (\w+):")  # as a law of options names one

Frames: TypeAlias = list[tuple[FrameType, int]]  # outermost first, each with its line


class NoWeights(Exception):
    """A law about the page asked for the weights of a recipe that is too large to draw any."""


class LargeRecipe(Recipe):
    """A recipe whose weights are not to be drawn: nothing says how they begin."""

    def __getattribute__(self, name: str) -> Any:
        if name == "train":
            raise NoWeights
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Failure:
    """How a law failed: in a sentence, and at which leaf of the original, if that is known.

    ``raised`` names the class of an exception that was no law's, and ``at`` its file and line.
    ``ids`` are the tokens, a row each, of the smallest input on which it failed; ``cause`` is what
    an output was that is no number, or of a wrong type.
    """

    says: str
    seed: int
    leaf: str | None = None
    mark: Mark | None = None
    raised: str | None = None
    at: str | None = None
    ids: tuple[tuple[int, ...], ...] = ()
    cause: str | None = None

    @property
    def tokens(self) -> int:
        """How long a row is."""
        return max(map(len, self.ids), default=0)

    def is_like(self, other: Failure) -> bool:
        """Whether both are at one place."""
        return (self.leaf, self.raised, self.at) == (other.leaf, other.raised, other.at)

    def is_as_told(self, other: Failure) -> bool:
        """Whether one need not be told after the other: some faults break nearly every law."""
        told = self.says == other.says or (self.cause is not None and self.cause == other.cause)
        return told or (self.raised is not None and self.is_like(other))


@dataclass(frozen=True)
class Answer:
    """What one law says: the largest error, or a failure; ``unasked`` tells what was left out."""

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

    def answers(self) -> Iterator[Answer]:
        """What each law says, as soon as it is known."""
        cases = [Case(self.twin.recipe, seed) for seed in self.seeds]
        for name, law in LAWS.items():
            try:
                yield self._answer(name, law, cases)
            except NoPage:
                yield self._of_the_page(name, law)

    def _answer(self, name: str, law: Law, cases: Sequence[Case]) -> Answer:
        worst = 0.0
        for case in cases:
            found = self.ask(law, case)
            if isinstance(found, Failure):
                return Answer(name, failure=self._smallest(law, found))
            worst = max(worst, found)
        return Answer(name, worst)

    def ask(self, law: Law, case: Case) -> float | Failure:
        """The largest error, or how the law fails.  NoPage if it is one of the original alone."""
        seen = Seen()
        try:
            with seen.watching(case), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, on what a faulty block gave it
                return law(case)
        except (NoPage, MemoryError):
            raise
        except Exception as error:
            return self._failure(error, case, seen)

    def _smallest(self, law: Law, failure: Failure) -> Failure:
        """The same failure, on the fewest tokens that show it."""
        graph = self.twin.recipe.graph
        for length in range(1, min(failure.tokens, LONGEST + 1)):
            shorter = replace(graph, context=min(length, graph.context))
            for seed in self.seeds:
                found = self.ask(law, Case(unwritten(self.twin.original, shorter), seed, length))
                if isinstance(found, Failure) and found.ids and found.is_like(failure):
                    return found
        return failure

    def _of_the_page(self, name: str, law: Law) -> Answer:
        """A law about the page: asked of the original, whose weights are drawn if they are few."""
        original, seed = self.twin.original, self.seeds[0]
        count = count_weights(build(original, device="meta"))
        if count > LARGE:
            original = LargeRecipe(original.text, original.page, original.meaning, original.plugins)
        case = Case(original, seed)
        try:
            return Answer(name, law(case))
        except NoWeights:
            return Answer(name, unasked=f"but for what draws all {count:,} weights")
        except Exception as error:
            return Answer(name, failure=self._failure(error, case, Seen()))

    def _failure(self, error: Exception, case: Case, seen: Seen) -> Failure:
        frames = list(traceback.walk_tb(error.__traceback__))
        theirs = _in_plugins(frames, case.recipe.plugins)
        says, raised, at = _first_line(error), None, None
        if theirs or not isinstance(error, AssertionError):
            raised, at = type(error).__name__, theirs or _where(frames)
            says = f"{raised}: {says}, raised at {at}"
        name = _running(frames) if theirs else _named(says, case.recipe)
        cause = seen.first_unsound(case, only_numbers=name is not None)
        if cause is not None:
            name, what = cause
            says = f"{says}; {name} gives {what}"
        name = name or _running(frames)
        return Failure(
            self.twin.in_original(says),
            case.seed,
            name and self.twin.in_original(name),
            _mark(name, says, case.recipe),
            raised,
            at,
            seen.rows,
            cause and f"{cause[0]} {cause[1]}",
        )


# Where a law failed


@dataclass
class Seen:
    """What a model was given while it was asked: its longest input, and its last call."""

    ids: Tensor | None = None
    call: tuple[Tensor, dict[str, Any]] | None = None

    @contextmanager
    def watching(self, case: Case) -> Iterator[None]:
        """Note what the case's model reads from here on, if it can be made at all."""
        try:
            model = case.model
        except Exception:  # a law that asks for it meets the same
            yield
            return

        def called(module: nn.Module, given: tuple[Tensor], named: dict[str, Any]) -> None:
            self.call = given[0], {name: x for name, x in named.items() if name != "cache"}

        def embedded(module: nn.Module, given: tuple[Tensor]) -> None:
            if self.ids is None or _size(given[0]) > _size(self.ids):
                self.ids = given[0]

        table = next(
            leaf.weights for leaf in leaves(model.recipe.graph) if leaf.kind == "embedding"
        )
        handles = [
            model.register_forward_pre_hook(called, with_kwargs=True),
            model.get_submodule(table).register_forward_pre_hook(embedded),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The longest input, of many variants the first."""
        if self.ids is None:
            return ()
        few = self.ids if len(self.ids) <= ROWS else self.ids[:1]
        return tuple(map(tuple, few.tolist()))

    def first_unsound(self, case: Case, only_numbers: bool) -> tuple[str, str] | None:
        """The first leaf whose output, in the last call, is no number; or of another type."""
        if self.ids is None:
            return None
        ids, given = self.call or (self.ids, {})
        for dtype in (torch.float64, torch.float32):
            model = copy.deepcopy(case.model).to(dtype)
            with traced(model) as outputs, torch.no_grad(), suppress(Exception):
                model(ids, **given)
            for (name, _), calls in outputs.items():
                for output in calls:
                    if not output.isfinite().all():
                        return name, "what is no finite number"
                    if output.dtype != dtype and not only_numbers:
                        return name, f"{_type(output.dtype)} in a model of {_type(dtype)}"
        return None


def _size(ids: Tensor) -> tuple[int, int]:
    """Longer rows are more, then more of them, but for what are variants of one."""
    return ids.shape[1], len(ids) if len(ids) <= ROWS else 0


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0]


def _in_plugins(frames: Frames, plugins: Sequence[Path]) -> str:
    """The file and line of the innermost frame in a plug-in, or nothing."""
    files = {str(path.resolve()): path for path in plugins}
    found = ((files.get(frame.f_code.co_filename), line) for frame, line in reversed(frames))
    return next((f"{path}:{line}" for path, line in found if path is not None), "")


def _where(frames: Frames) -> str:
    """The file and line of the innermost frame that is ours."""
    found = ((Path(frame.f_code.co_filename), line) for frame, line in reversed(frames))
    ours = ((path, line) for path, line in found if path.is_relative_to(ROOT))
    return next(f"{path.relative_to(ROOT)}:{line}" for path, line in ours)


def _running(frames: Frames) -> str | None:
    """The leaf that was run, or made, when something was raised."""
    for frame, _ in reversed(frames):
        known = frame.f_locals
        if isinstance(run := known.get("self"), LeafRun):
            return run.name
        if isinstance(leaf := known.get("leaf"), Leaf):
            return leaf.name
    return None


def _named(says: str, recipe: Recipe) -> str | None:
    """The first leaf that a sentence names, itself or by one of its parameters."""
    names = {leaf.name for leaf in leaves(recipe.graph)}
    for word in re.findall(r"\w[\w.]*\w", says):
        parts = word.split(".")
        for end in range(len(parts), 0, -1):
            if (name := ".".join(parts[:end])) in names:
                return name
    return None


def _mark(name: str | None, says: str, recipe: Recipe) -> Mark | None:
    """Where a leaf is written; else, the first word of which the sentence names an option."""
    if name is not None:
        return next((leaf.mark for leaf in leaves(recipe.graph) if leaf.name == name), None)
    found = OF_WORD.search(says)
    words = (word for word in words_of(recipe.graph) if found and word.word == found[1])
    return next((word.mark for word in words), None)


# What is told


def told(answer: Answer, before: Iterable[Answer] = (), *, colour: bool = False) -> str:
    """A law in one line, and in a few if it is broken as none before it was."""
    title, failure = f"{answer.title:<{max(map(len, LAWS)) + 2}}", answer.failure
    if failure is None:
        return title + (f"ok, {answer.unasked}" if answer.unasked else f"ok  {answer.error:.2g}")
    for other in before:
        if other.failure is not None and failure.is_as_told(other.failure):
            return f"{title}broken, as {other.title!r} is"
    return f"{title}broken\n{paragraph(answer.law, failure, colour)}"


def paragraph(law: str, failure: Failure, colour: bool = False) -> str:
    """What a broken law says, with the leaf's place on the page and the smallest input."""
    notes = []
    if failure.leaf is not None and failure.leaf not in failure.says:
        notes.append(f"in {failure.leaf}")
    if failure.ids:
        notes.append(_input(failure))
    if failure.mark is not None:
        return render(Finding(law, failure.says, failure.mark, "", tuple(notes)), colour=colour)
    head = show(BuilderError(law, failure.says), colour=colour)
    return "\n".join([head, *(f"   {note}" for note in notes)])


def _input(failure: Failure) -> str:
    """The fewest tokens, and which."""
    count = f"{failure.tokens} token{'s'[: failure.tokens > 1]}"
    rows = "; ".join(" ".join(map(str, row)) for row in failure.ids)
    return f"on {count}, seed {failure.seed}: {rows}"


def as_json(path: Path, examination: Examination, answers: Sequence[Answer]) -> dict[str, Any]:
    """All of it for machines; what takes time, or how long, is left out, so that it is stable."""
    whole = examination.twin
    return {
        "recipe": str(path),
        "name": whole.original.name,
        "twin": None if whole.is_itself else str(whole),
        "seeds": list(examination.seeds),
        "holds": all(answer.failure is None for answer in answers),
        "laws": [_row(answer) for answer in answers],
    }


def _row(answer: Answer) -> dict[str, Any]:
    failure = answer.failure
    row: dict[str, Any] = {"law": answer.law, "holds": failure is None}
    if failure is None:
        return row | {"error": answer.error, "unasked": answer.unasked or None}
    mark = failure.mark
    return row | {
        "says": failure.says,
        "raised": failure.raised,
        "at": failure.at,
        "leaf": failure.leaf,
        "file": mark and mark.source.name,
        "line": mark and mark.line,
        "column": mark and mark.column,
        "seed": failure.seed,
        "tokens": failure.tokens or None,
        "ids": [list(row) for row in failure.ids],
    }
