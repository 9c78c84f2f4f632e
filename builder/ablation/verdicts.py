"""What may be said of a row: better, worse, equivalent or inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from builder.ablation.metrics import Metric
from builder.ablation.statistics import Paired, equivalence, holm, paired, seeds_needed

ALPHA = 0.05  # of all statements of one kind together, over all rows and all looks
Word: TypeAlias = Literal["better", "worse", "equivalent", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What the differences of one row say.

    ``p`` is that of a difference, ``p_equivalent`` that of two one-sided tests; both by Holm over
    all rows.  ``needed`` are the seeds with which a row that is inconclusive would probably not be;
    None if that is more than can be asked for, or not known.
    """

    word: Word
    found: Paired
    p: float
    p_equivalent: float
    alpha: float
    needed: int | None = None


def verdicts(
    rows: Mapping[str, Sequence[float]], metric: Metric, looks: int = 1
) -> dict[str, Verdict]:
    """The verdict of each row's differences from the base.

    Equivalent is said first: a difference that is surely there, and surely does not matter, is
    none.  With several ``looks`` each has its share of the error (Bonferroni), whenever it stops.
    """
    alpha = ALPHA / looks
    found = {name: paired(differences, alpha) for name, differences in rows.items()}
    ps = holm([one.p for one in found.values()])
    same = holm([equivalence(differences, metric.margin) for differences in rows.values()])
    return {
        name: verdict(one, p, q, metric, alpha)
        for (name, one), p, q in zip(found.items(), ps, same, strict=True)
    }


def verdict(found: Paired, p: float, p_equivalent: float, metric: Metric, alpha: float) -> Verdict:
    word: Word = "inconclusive"
    if p_equivalent <= alpha:
        word = "equivalent"
    elif p <= alpha:
        word = "better" if metric.better(found.mean) else "worse"
    needed = seeds_needed(found, metric.margin, alpha) if word == "inconclusive" else None
    return Verdict(word, found, p, p_equivalent, alpha, needed)


def sentence(name: str, said: Verdict, metric: Metric) -> str:
    """The verdict as one sentence."""
    found = said.found
    level = f"{100 * (1 - said.alpha):.3g} %"
    size = f"{abs(found.mean):.4f} {metric.unit}".strip()
    between = f"{level} interval {found.low:+.4f} to {found.high:+.4f}, {found.n} seeds"
    match said.word:
        case "better" | "worse":
            return f"{name} is {said.word} than the base by {size} ({between}, p {told(said.p)})."
        case "equivalent":
            limit = f"{metric.margin:g} {metric.unit}".strip()
            shown = f"{found.mean:+.4f}, {between}, p {told(said.p_equivalent)}"
            return f"{name} is equivalent to the base within {limit} ({shown})."
    if math.isnan(found.sd):
        return f"{name}: {found.mean:+.4f} from one seed, which tells nothing of the spread."
    more = f"about {said.needed} seeds would decide" if said.needed else "no thousand would decide"
    return f"{name}: inconclusive at {found.mean:+.4f} ({between}); if it stays so, {more}."


def told(p: float) -> str:
    return "below 0.0001" if p < 1e-4 else f"{p:.4f}"
