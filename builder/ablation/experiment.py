"""The whole of an ablation: rows at equal cost, a rehearsal, a budget, and the trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from builder.ablation.matching import Matched, matched
from builder.ablation.metrics import metric_of
from builder.ablation.named import SEEDS
from builder.ablation.outcome import Ablation, Ask
from builder.ablation.queue import Queue
from builder.ablation.rehearse import Rehearsal, rehearse
from builder.ablation.swaps import BASE, variants
from builder.ablation.trial import Trial
from builder.errors import InputError
from builder.measure import measure
from builder.training.progress import duration
from builder.training.runs import say

MOST_SEEDS = 10  # that a budget picks

Tell = Callable[[str], None]


def ablate(ask: Ask, device: str | None = None, tell: Tell = say) -> Ablation:
    """Plan, check, time, train what is not trained yet, and compare."""
    rows = matched_rows(ask, tell)
    metric = metric_of(ask.metric, [row.variant.recipe for row in rows], ask.margin)
    lengths = tuple(dict.fromkeys((*ask.lengths, *metric.lengths)))
    timed = {}
    for row in rows:
        timed[row.variant.name] = rehearse(row.variant, lengths, device)
    seeds = pick_seeds(ask, rows, timed)
    tell(announced(ask, rows, timed, seeds))
    trial = Trial(ask, metric, rows, seeds, Queue(lengths, device, tell))
    return trial.outcome()


def matched_rows(ask: Ask, tell: Tell) -> list[Matched]:
    """The base and every row, at equal cost; what was done to make them so is told."""
    base, *others = variants(ask.recipes, ask.overrides, ask.swaps, ask.cross, ask.plugins)
    costs = measure(base.recipe)
    rows = [Matched(base, costs)]
    for variant in others:
        for warning in variant.recipe.warnings:
            tell(f"{variant.name}: {warning.message}")
        row = matched(variant, costs, ask.match, ask.absorb, ask.multiple, ask.tolerance)
        rows.append(row)
        if row.residual is not None:
            dim = "" if row.absorbed is None else f" with {ask.absorb}={row.absorbed}"
            tell(f"{variant.name}: {ask.match} {100 * row.residual:+.3f} % of the base's{dim}")
    return rows


# How much of it


def pick_seeds(
    ask: Ask, rows: Sequence[Matched], timed: Mapping[str, Rehearsal]
) -> tuple[int, ...]:
    """How many seeds, at each look: those asked for, or as many as the budget holds.

    InputError ``over-budget`` if it does not hold two.
    """
    wanted = ask.seeds or ((MOST_SEEDS,) if ask.budget else (SEEDS,))
    if ask.budget is None:
        return wanted
    fits = [n for n in range(1, max(wanted) + 1) if estimate(ask, rows, timed, n) <= ask.budget]
    if max(fits, default=0) < min(2, *wanted):
        need = duration(estimate(ask, rows, timed, 2))
        message = f"two seeds take about {need}, and the budget is {duration(ask.budget)}"
        raise InputError("over-budget", message, "a larger --budget, fewer rows or train.steps")
    return tuple(dict.fromkeys(min(n, max(fits)) for n in wanted))


def estimate(
    ask: Ask, rows: Sequence[Matched], timed: Mapping[str, Rehearsal], seeds: int
) -> float:
    """Seconds, if nothing is trained yet, and every row's best rate is not the shared one."""
    every = sum(timed[row.variant.name].cell for row in rows)
    tuned = every * (ask.lr_sweep + seeds) if ask.lr_sweep else 0.0
    return every * seeds + timed[BASE].cell * seeds + tuned


def announced(
    ask: Ask, rows: Sequence[Matched], timed: Mapping[str, Rehearsal], seeds: tuple[int, ...]
) -> str:
    """What is about to be trained, and how long it takes."""
    first = f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    later = f", up to {seeds[-1]} for rows that stay inconclusive" if len(seeds) > 1 else ""
    sweep = f", {ask.lr_sweep} rates each" if ask.lr_sweep else ""
    about = duration(estimate(ask, rows, timed, seeds[0]))
    each = ", ".join(f"{name} {1000 * one.step:.0f}" for name, one in timed.items())
    count = f"{len(rows) - 1} row{'s' * (len(rows) > 2)}"
    return (
        f"{count} and the base, {first}{later}{sweep}: about {about} "
        f"if nothing is trained yet\nms a step: {each}"
    )
