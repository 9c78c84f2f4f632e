"""A page of claims: what papers found, as what an ablation must find again.

recipe: bases/text.yaml          # from the folder of this page
source: Zhang & Sennrich 2019, arXiv:1910.07467
seeds: 5
claims:
  - says: RMSNorm does as well as LayerNorm
    variant: {blocks.decoder.rmsnorm.all: layernorm}
    metric: loss
    expect: equal
    smallest: 0.01
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from builder.ablation.metrics import KNOWN, is_metric
from builder.ablation.named import COUNTED, MATCHES, SEEDS, TOLERANCE
from builder.ablation.verdicts import Word
from builder.edit import Assignment
from builder.errors import Finding, Mark, RecipeError
from builder.expressions import ExpressionError, evaluate, parse
from builder.index import nearest
from builder.read import Mapping, Scalar, Sequence, Value, read_file
from builder.recipe import find

DIRECTIONS = ("lower", "higher", "equal")
VERDICTS: tuple[str, ...] = get_args(Word)
SHARES = ("all", "none")  # of the seeds, that solve a task
RATES = ("shared", "best", "change")


@dataclass(frozen=True)
class Claim:
    """One finding, and how it is looked for.

    ``variant`` is set on one side, ``against`` on the other, which may be a number too, and
    ``both`` on both.  ``expect`` is a direction, how many seeds solve the task, or the number of
    something that is counted; ``smallest`` is the least effect that counts, or the most that is
    none.  ``rate`` says at which rates: the shared one, each side's best, or what changes from one
    to the other.
    """

    says: str
    mark: Mark
    recipe: Path
    expect: str | float
    source: str = ""
    both: tuple[Assignment, ...] = ()
    variant: tuple[Assignment, ...] = ()
    against: tuple[Assignment, ...] | float = ()
    metric: str = ""
    smallest: float | None = None
    allowed: tuple[str, ...] = ()
    rate: str = "shared"
    match: str = "none"
    absorb: str = ""
    multiple: int = 1
    tolerance: float = TOLERANCE
    seeds: int = SEEDS
    lr_sweep: int = 0


def read_claims(path: Path) -> list[Claim]:
    """The claims of a page; one that is not here is looked for beside the installed package.

    RecipeError carries every finding, at its place.
    """
    path = find(path)
    page = read_file(path)
    reader = _Reader(path.parent)
    claims = list(reader.page(page))
    if reader.findings:
        raise RecipeError(reader.findings)
    return claims


@dataclass
class _Reader:
    """Reads a page, and collects what is wrong with it."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)

    def page(self, page: Mapping) -> Iterator[Claim]:
        common = self.entries(page, {**COMMON, "recipe": text, "claims": items})
        if "recipe" not in page or "claims" not in page:
            message = "a page of claims names its recipe, and lists its claims"
            self.report("missing-option", message, page.mark, "recipe: FILE and claims: [...]")
            return
        common["recipe"] = self.folder / common.get("recipe", "")
        for item in common.pop("claims", ()):
            if not isinstance(item, Mapping):
                self.report("not-a-map", "a claim is a map", item.mark, "says: ..., expect: ...")
                continue
            own = self.entries(item, {**COMMON, **OWN})
            missing = [name for name in ("says", "expect") if name not in item]
            for name in missing:
                self.report("missing-option", f"a claim is not given its {name!r}", item.mark)
            whole = {**common, **own, "both": (*common.get("both", ()), *own.get("both", ()))}
            if not missing and not self.findings:
                yield self.checked(Claim(mark=item.mark, **whole))

    def entries(self, page: Mapping, known: dict[str, Read]) -> dict[str, Any]:
        """What each word of a map holds, by the names of a claim's fields."""
        found = {}
        for key, value in page:
            word = str(key.value)
            if word not in known:
                near = nearest(word, known)
                help = f"did you mean {near!r}?" if near else ", ".join(known)
                self.report("unknown-word", f"{word!r} is not a part of a claim", key.mark, help)
                continue
            try:
                found["both" if word == "set" else word] = known[word](value)
            except _Misfit as misfit:
                shown = value.mark.text if isinstance(value, Scalar) else "this"
                self.report("bad-value", f"{shown} is not {misfit}", value.mark)
        return found

    def checked(self, claim: Claim) -> Claim:
        """Whether its parts fit each other."""
        for message, fault in faults(claim):
            if fault:
                self.report("bad-claim", message, claim.mark)
        return claim

    def report(self, code: str, message: str, mark: Mark, help: str = "") -> None:
        self.findings.append(Finding(code, message, mark, help))


def faults(claim: Claim) -> Iterator[tuple[str, bool]]:
    """What may be wrong with a claim, and whether it is."""
    counted, differs = not isinstance(claim.expect, str), claim.expect in DIRECTIONS
    to_number = isinstance(claim.against, int | float)
    compares = claim.against != () or claim.smallest is not None or claim.allowed != ()
    yield (
        "a number is expected of what is counted, such as reach",
        (counted != (claim.metric in COUNTED)),
    )
    yield (
        "all or none of the seeds solve a task, so the metric is solved",
        (claim.expect in SHARES and not claim.metric.startswith("solved")),
    )
    yield "against, smallest and allowed are of a difference", compares and not differs
    yield "rates are tuned by an lr_sweep", claim.rate != "shared" and not claim.lr_sweep
    yield "an lr_sweep tries two rates or more", claim.lr_sweep == 1
    yield "what tuning changes is of two sides", claim.rate == "change" and to_number
    yield (
        "equal means within the smallest effect that counts",
        (claim.expect == "equal" and claim.smallest is None),
    )
    yield "two seeds are the fewest that tell a spread", differs and claim.seeds < 2


# Values: each function reads one, or raises _Misfit with what was wanted


class _Misfit(Exception):
    """What a value should have been."""


def held(value: Value) -> Any:
    """What a scalar holds; None for anything else."""
    return value.value if isinstance(value, Scalar) else None


def text(value: Value) -> str:
    if not isinstance(found := held(value), str):
        raise _Misfit("a text")
    return found


def number(value: Value) -> float:
    if not isinstance(found := held(value), int | float) or isinstance(found, bool):
        raise _Misfit("a number")
    return found


def metric(value: Value) -> str:
    found = text(value)
    if found not in COUNTED and not is_metric(found):
        raise _Misfit(f"among {', '.join((*KNOWN, *COUNTED))}, loss@256, A - B")
    return found


def count(value: Value) -> int:
    if type(found := held(value)) is not int or found < 1:
        raise _Misfit("a whole number from 1")
    return found


def items(value: Value) -> Sequence:
    if not isinstance(value, Sequence):
        raise _Misfit("a list of claims")
    return value


def settings(value: Value) -> tuple[Assignment, ...]:
    """A map of paths and values."""
    if not isinstance(value, Mapping):
        raise _Misfit("a map of paths and values")
    return tuple(Assignment(str(key.value), what, key.mark) for key, what in value)


def other_side(value: Value) -> tuple[Assignment, ...] | float:
    return settings(value) if isinstance(value, Mapping) else number(value)


def expectation(value: Value) -> str | float:
    """A direction, a share, or a number, which may be written as arithmetic."""
    found = held(value)
    if not isinstance(found, str):
        return number(value)
    if found in (*DIRECTIONS, *SHARES):
        return found
    try:
        return evaluate(parse(found), _nothing)
    except ExpressionError:
        raise _Misfit(f"one of {', '.join((*DIRECTIONS, *SHARES))}, or a number") from None


def _nothing(name: str, args: tuple[Any, ...]) -> int:
    raise ExpressionError(f"{name!r} is no number", 0)


def words_among(choices: tuple[str, ...]) -> Read:
    """A reader of one word of these, or of a list of them."""

    def read(value: Value) -> tuple[str, ...]:
        found = [held(item) for item in (value if isinstance(value, Sequence) else (value,))]
        if not all(word in choices for word in found):
            raise _Misfit(f"among {', '.join(choices)}")
        return tuple(found)

    return read


def one_of(choices: tuple[str, ...]) -> Read:
    """A reader of one word of these."""

    def read(value: Value) -> str:
        if held(value) not in choices:
            raise _Misfit(f"one of {', '.join(choices)}")
        return str(held(value))

    return read


Read = Callable[[Value], Any]
COMMON: dict[str, Read] = {  # of the page, for all its claims, or of one
    "source": text,
    "set": settings,
    "match": one_of(MATCHES),
    "absorb": text,
    "multiple": count,
    "tolerance": number,
    "seeds": count,
    "lr_sweep": count,
    "metric": metric,
}
OWN: dict[str, Read] = {
    "says": text,
    "variant": settings,
    "against": other_side,
    "expect": expectation,
    "smallest": number,
    "allowed": words_among(VERDICTS),
    "rate": one_of(RATES),
}
