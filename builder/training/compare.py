"""Where two runs part: at which step, and in what of it first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from builder.diff import compare as compare_recipes
from builder.training.runs import Run, score

# What a step finds, causes before effects.
CAUSES = {"batch": "batch", "lr": "rate", "loss": "loss", "gradient": "gradient", "norm": "norm"}
APART = ("folder", "command", "started", "loggers")  # of the environment: not what it computes by


@dataclass(frozen=True)
class Parting:
    """The first step at which two runs differ, and what is alike there and what is not.

    ``after`` is the last step before it that both logged, 0 if there is none.
    """

    step: int
    after: int
    alike: tuple[str, ...]
    different: tuple[str, ...]

    def __str__(self) -> str:
        known = self.after == self.step - 1
        place = f"at step {self.step}" if known else f"between steps {self.after} and {self.step}"
        parts = [f"same {', same '.join(self.alike)}"] if self.alike and known else []
        parts += [f"different {' and '.join(self.different)}"]
        return f"first difference {place}: {', '.join(parts)}"


@dataclass(frozen=True)
class Comparison:
    """Two runs: what they were made of, where they part, and what they come to."""

    made: tuple[str, ...]
    common: int  # steps that both logged
    steps: tuple[int, int]  # the last of each
    parting: Parting | None
    validation: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all that both did is alike, and both did as much."""
        return self.parting is None and not self.validation and self.steps[0] == self.steps[1]

    def lines(self) -> Iterator[str]:
        yield from self.made
        if self.parting is not None:
            yield str(self.parting)
        else:
            yield f"no difference in the {self.common} steps that both logged"
        if self.steps[0] != self.steps[1]:
            yield f"one ends at step {self.steps[0]}, the other at step {self.steps[1]}"
        yield from self.validation


def compare(first: Run, second: Run) -> Comparison:
    """Compare two runs by all that they logged."""
    ours, theirs = steps_of(first), steps_of(second)
    common = sorted(ours.keys() & theirs.keys())
    ends = max(ours, default=0), max(theirs, default=0)
    parting = first_parting([(ours[step], theirs[step]) for step in common])
    return Comparison(
        tuple(made_otherwise(first, second)),
        len(common),
        ends,
        parting,
        tuple(validated_otherwise(first, second)),
    )


def steps_of(run: Run) -> dict[int, dict[str, Any]]:
    return {event["step"]: event for event in run.metrics() if event["event"] == "step"}


def first_parting(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Parting | None:
    """The first pair of steps that differ."""
    after = 0
    for ours, theirs in pairs:
        known = [key for key in CAUSES if key in ours and key in theirs]
        different = [CAUSES[key] for key in known if ours[key] != theirs[key]]
        if different:
            alike = [CAUSES[key] for key in known if ours[key] == theirs[key]]
            shown = [what for what in different if what != "norm" or len(different) == 1]
            return Parting(ours["step"], after, tuple(alike), tuple(shown))
        after = ours["step"]
    return None


def made_otherwise(first: Run, second: Run) -> Iterator[str]:
    """How what the runs are made of differs: model, training, texts, machine."""
    difference = compare_recipes(first.recipe, second.recipe)
    changes = [*difference.model, *difference.training]
    yield f"other recipe: {', '.join(map(str, changes))}" if changes else "same recipe"
    ours, theirs = first.environment, second.environment
    changed = [
        f"{key} {shown(ours.get(key))} → {shown(theirs.get(key))}"
        for key in dict.fromkeys([*ours, *theirs])
        if key not in APART and ours.get(key) != theirs.get(key)
    ]
    yield f"other surroundings: {', '.join(changed)}" if changed else "same surroundings"


def shown(value: object) -> str:
    """A value of the environment; of a digest its first letters."""
    text = "none" if value is None else str(value)
    return text[:12] if len(text) >= 40 and " " not in text else text


def validated_otherwise(first: Run, second: Run) -> Iterator[str]:
    """The last validation of each text that both made, where they differ."""
    ours, theirs = validations(first), validations(second)
    last = {name: step for step, name in sorted(ours.keys() & theirs.keys())}
    for name, step in last.items():
        a, b = ours[step, name], theirs[step, name]
        if a != b:
            label = f" on {name}" if name else ""
            yield f"validation{label} at step {step}: {a[0]:.4f} → {b[0]:.4f} {b[1]}"


def validations(run: Run) -> dict[tuple[int, str], tuple[float, str]]:
    found = (event for event in run.metrics() if event["event"] == "validation")
    return {(e["step"], e.get("set", "")): score(e) for e in found}
