"""One training run of an ablation: what it is known by, and what was found."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from builder.ablation.swaps import Variant
from builder.construct import import_plugins, make
from builder.graph import Filler
from builder.index import sources
from builder.recipe import Recipe
from builder.tokenizers import Tokenizer
from builder.training.corpus import count_bytes, file_digest
from builder.training.data import digest
from builder.training.evaluate import at_lengths, examine, held_out
from builder.training.exam import Exam, Text
from builder.training.runs import Run
from builder.training.samples import Answers
from builder.training.settings import settings_of
from builder.training.step import Evaluation

CELLS = Path("runs/cells")
QUIET = ("train.sample_tokens=0", "train.keep=1")
SOLVED = 0.9  # of the way from chance to the ceiling


@dataclass(frozen=True)
class Cell:
    """A row's recipe with a seed and a rate: the same one is trained once, whoever asks for it."""

    variant: Variant
    seed: int
    rate: float

    @cached_property
    def ready(self) -> Variant:
        """As it is trained: nothing is written on the way but what a run needs to be resumed."""
        steps = self.variant.recipe.train["steps"]
        own = (f"train.seed={self.seed}", f"train.lr={self.rate!r}", f"train.eval_every={steps}")
        return self.variant.with_settings(*own, *QUIET)

    @cached_property
    def key(self) -> str:
        """Of all that decides what comes out: recipe, data, seed, rate, and the code."""
        recipe = self.ready.recipe
        beside = (recipe.tokenizer, recipe.train)
        known = [recipe.hash, repr(beside), data_digest(recipe), code_version()]
        known += [file_digest(path) for path in recipe.plugins]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        return CELLS / self.key

    @property
    def command(self) -> str:
        """What trains it again, by itself."""
        plugins = [word for path in self.variant.plugins for word in ("--plugin", str(path))]
        words = ["train", str(self.variant.path), *self.ready.words, *plugins]
        return shlex.join(["python", "-m", "builder", *words, "--run", f"runs/{self.key}"])


def data_digest(recipe: Recipe) -> str:
    """Of the texts that a recipe reads."""
    import_plugins(recipe.plugins)
    return "" if recipe.data is None else digest_once(recipe.data)


@cache  # texts stay as they are while an ablation lasts
def digest_once(data: Filler) -> str:
    return digest(make(data))


@cache
def code_version() -> str:
    """Of the source of everything that a run computes by, and of torch."""
    total = hashlib.sha256(torch.__version__.encode())
    for path in sources():
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Result:
    """What a cell came to: numbers by name, or why there are none.

    One that ``diverged`` counts as guessing does: with the loss of equal chances.  Numbers at
    ``lengths`` are of those lengths together, for which tokens they measure depends on the longest.
    """

    status: str  # done, diverged, failed
    numbers: Mapping[str, float]
    seconds: float = 0.0
    error: str = ""
    lengths: Sequence[int] = ()

    def text(self) -> str:
        return json.dumps(vars(self), indent=1) + "\n"


def measured(run: Run, lengths: Sequence[int]) -> dict[str, float]:
    """What is asked of a trained model: the loss on the half of the held-out text by which rates
    are chosen, and on the half that is reported; at lengths too.
    """
    wanted = exams(run, lengths)
    numbers: dict[str, float] = {}
    for name, one in examine(run.model(), settings_of(run.recipe), wanted).items():
        numbers |= told(name, one, solved_at(wanted[name]))
    return numbers


def guessed(run: Run, lengths: Sequence[int]) -> dict[str, float]:
    """The same numbers of one who guesses: what a run that diverged counts as."""
    loss, batch = guess(run), settings_of(run.recipe).batch
    numbers: dict[str, float] = {}
    for name, exam in exams(run, lengths).items():
        tokens = sum(part().learnt for part in exam.parts(batch))
        right = int(tokens * exam.task.chance) if isinstance(exam, Answers) else None
        numbers |= told(name, Evaluation(loss, tokens, exam.bytes, right), solved_at(exam))
    return numbers


def guess(run: Run) -> float:
    """The loss of equal chances."""
    return math.log(run.recipe.graph.vocab)


def exams(run: Run, lengths: Sequence[int]) -> dict[str, Exam]:
    """All that a cell is measured on, by name."""
    own = next(iter(held_out(run, lambda text: None).values()))
    choosing, reported = halves(own, run.tokenizer)
    found = {"choosing": choosing, "loss": reported}
    return found | (dict(at_lengths({"loss": reported}, lengths)) if lengths else {})


def halves(exam: Exam, tokenizer: Tokenizer) -> tuple[Exam, Exam]:
    """One half to choose by, another to report."""
    if isinstance(exam, Answers):
        half = exam.count // 2
        return replace(exam, count=half), replace(exam, count=exam.count - half, first=half)
    assert isinstance(exam, Text)
    middle, end = len(exam.tokens) // 2, len(exam.tokens)
    first, second = exam.tokens.stretch(0, middle), exam.tokens.stretch(middle, end)
    size = count_bytes(second, tokenizer)
    return replace(exam, tokens=first), replace(exam, tokens=second, bytes=size)


def told(name: str, found: Evaluation, solved: float | None) -> dict[str, float]:
    """An evaluation's numbers: ``loss@64`` has its ``accuracy@64``, and ``solved@64``."""
    numbers = {name: found.loss}
    if found.accuracy is not None and solved is not None and name.startswith("loss"):
        numbers[name.replace("loss", "accuracy")] = found.accuracy
        numbers[name.replace("loss", "solved")] = float(found.accuracy >= solved)
    elif name == "loss":
        numbers["bits_per_byte"] = found.bits_per_byte
    return numbers


def solved_at(exam: Exam) -> float | None:
    """The accuracy from which a task is solved."""
    if not isinstance(exam, Answers):
        return None
    chance, ceiling = exam.task.chance, exam.task.ceiling
    return chance + SOLVED * (ceiling - chance)


def result_of(text: str) -> Result:
    """A result as it was written.  ValueError if it is none."""
    found: dict[str, Any] = json.loads(text)
    if not isinstance(found, dict) or not {"status", "numbers"} <= found.keys():
        raise ValueError("no result")
    return Result(**{**found, "lengths": tuple(found.get("lengths", ()))})
