"""A claim is tried, and found reproduced, contradicted, or neither."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from builder.ablation.cells import Result
from builder.ablation.claims import SHARES, Claim
from builder.ablation.matching import Matched, matched
from builder.ablation.metrics import Metric, metric_of
from builder.ablation.named import COUNTED
from builder.ablation.outcome import Ask, Record
from builder.ablation.queue import Queue
from builder.ablation.structure import counted
from builder.ablation.swaps import BASE, Variant
from builder.ablation.trial import Trial
from builder.ablation.verdicts import Verdict, told, verdicts
from builder.measure import measure
from builder.training.runs import say

Outcome: TypeAlias = Literal["reproduced", "contradicted", "inconclusive"]


@dataclass(frozen=True)
class Judgement:
    """What a claim came to: a word, the numbers in a sentence, and the cells behind them."""

    claim: Claim
    word: Outcome
    found: str
    records: tuple[Record, ...] = ()

    def __str__(self) -> str:
        source = f" ({self.claim.source})" if self.claim.source else ""
        return f"{self.word}: {self.claim.says}{source}\n  {self.found}"


def judge(claim: Claim, device: str | None = None, tell: Callable[[str], None] = say) -> Judgement:
    """Count, or train, what the claim is about."""
    sides = side(claim, claim.variant), side(claim, claim.against)
    if claim.metric in COUNTED:
        return by_count(claim, sides[0])
    margin = claim.smallest if claim.expect == "equal" else None
    metric = metric_of(claim.metric, [one.recipe for one in sides], margin)
    trial = trial_of(claim, metric, sides, device, tell)
    if claim.expect in SHARES:
        return solved(claim, trial)
    return compared(claim, trial)


def side(claim: Claim, settings: Sequence[object] | float) -> Variant:
    own = () if isinstance(settings, int | float) else tuple(settings)
    return Variant(BASE, claim.recipe, (*claim.both, *own))  # type: ignore[arg-type]


def trial_of(
    claim: Claim,
    metric: Metric,
    sides: tuple[Variant, Variant],
    device: str | None,
    tell: Callable[[str], None],
) -> Trial:
    """The variant against the other side; alone, where that is a number or there is none."""
    variant, against = sides
    alone = isinstance(claim.against, int | float) or claim.expect in SHARES
    costs = measure(against.recipe)
    row = matched(variant, costs, claim.match, claim.absorb, claim.multiple, claim.tolerance)
    named = replace(row, variant=replace(row.variant, name="variant"))
    rows = [row] if alone else [Matched(against, costs), named]
    ask = Ask((claim.recipe,), lr_sweep=claim.lr_sweep)
    queue = Queue(metric.lengths, device, tell)
    queue.label = lambda cell: f"{claim.says}: {cell.variant.name}, seed {cell.seed}"
    return Trial(ask, metric, rows, (claim.seeds,), queue, twins=False)


def by_count(claim: Claim, variant: Variant) -> Judgement:
    """What is counted needs no training."""
    value = counted(variant.recipe, claim.metric)
    word: Outcome = "reproduced" if value == claim.expect else "contradicted"
    return Judgement(claim, word, f"{claim.metric} {shown(value)}, expected {shown(claim.expect)}")


def shown(value: object) -> str:
    return f"{value:,g}" if isinstance(value, int | float) else str(value)


def solved(claim: Claim, trial: Trial) -> Judgement:
    """All seeds, or none."""
    results = alone(trial, claim)
    count = sum(trial.metric.value(one.numbers) for one in results)
    word: Outcome = "inconclusive"
    if len(results) == claim.seeds and count in (0, claim.seeds):
        word = "reproduced" if (claim.expect == "all") == bool(count) else "contradicted"
    found = f"solved in {count:.0f} of {claim.seeds} seeds, expected in {claim.expect}"
    right = [100 * one.numbers["accuracy"] for one in results]
    return Judgement(claim, word, f"{found}; {listed(right)} % right", records(trial))


def listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def alone(trial: Trial, claim: Claim) -> list[Result]:
    """What each seed of the one row came to; one that failed is left out."""
    if claim.lr_sweep:
        trial.choose_rates()
    trial.train([], claim.seeds)
    rate = trial.best_rate if claim.rate == "best" else trial.shared_rate
    cells = [trial.cell(BASE, seed, rate(BASE)) for seed in trial.seeds(claim.seeds)]
    found = [trial.result("report", cell) for cell in cells]
    return [one for one in found if one.status != "failed"]


def records(trial: Trial) -> tuple[Record, ...]:
    return tuple(trial.records.values())


def compared(claim: Claim, trial: Trial) -> Judgement:
    """The difference from the other side, or from a number."""
    differences = effects(claim, trial)
    if not differences:
        return Judgement(claim, "inconclusive", "no seed of it is whole", records(trial))
    (said,) = verdicts({"": differences}, trial.metric).values()
    word, found = outcome(claim, said, trial.metric), sentence(said, trial.metric)
    return Judgement(claim, word, found, records(trial))


def effects(claim: Claim, trial: Trial) -> list[float]:
    """By seed: the difference of the sides, at the rates that the claim is about."""
    if isinstance(claim.against, int | float):
        return [trial.metric.value(one.numbers) - claim.against for one in alone(trial, claim)]
    (row,) = trial.outcome().rows
    if claim.rate == "shared":
        return row.shared.differences
    assert row.best is not None
    if claim.rate == "best":
        return row.best.differences
    shared = dict(zip(row.shared.seeds, row.shared.differences, strict=True))
    best = dict(zip(row.best.seeds, row.best.differences, strict=True))
    return [best[seed] - shared[seed] for seed in best if seed in shared]


def outcome(claim: Claim, said: Verdict, metric: Metric) -> Outcome:
    """Reproduced if the verdict is allowed, and the effect no smaller than it must be; contradicted
    if another verdict is sure, or the effect is surely too small.
    """
    direction = {"lower": -1, "higher": 1}.get(str(claim.expect))
    if direction is None:
        wanted: tuple[str, ...] = claim.allowed or ("equivalent",)
        if said.word in wanted:
            return "reproduced"
        return "inconclusive" if said.word == "inconclusive" else "contradicted"
    way = "better" if (direction < 0) == metric.lower else "worse"
    wanted = claim.allowed or (way,)
    least = claim.smallest or 0.0
    if said.word in wanted and (said.word != way or direction * said.found.mean >= least):
        return "reproduced"
    most = max(direction * said.found.low, direction * said.found.high)
    surely_other = said.word not in (*wanted, "inconclusive")
    return "contradicted" if surely_other or most < least else "inconclusive"


def sentence(said: Verdict, metric: Metric) -> str:
    found = said.found
    between = f"{found.low:+.4f} to {found.high:+.4f}, {found.n} seeds"
    p = said.p_equivalent if said.word == "equivalent" else said.p
    return f"{metric.name} {found.mean:+.4f} {metric.unit} ({between}; {said.word}, p {told(p)})"
