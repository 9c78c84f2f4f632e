"""What an ablation is asked, and what came out of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.ablation.cells import Cell, Result
from builder.ablation.matching import Matched
from builder.ablation.metrics import Metric
from builder.ablation.named import TOLERANCE
from builder.ablation.statistics import Paired
from builder.ablation.verdicts import Verdict


@dataclass(frozen=True)
class Ask:
    """What an ablation is asked; ``seeds`` are how many at each look, a later one for the rows that
    were inconclusive at the one before; ``budget`` is in seconds.
    """

    recipes: tuple[Path, ...]
    overrides: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    cross: bool = False
    match: str = "none"
    absorb: str = ""
    multiple: int = 1
    tolerance: float = TOLERANCE
    seeds: tuple[int, ...] = ()
    lr_sweep: int = 0
    budget: float | None = None
    metric: str = ""
    margin: float | None = None
    lengths: tuple[int, ...] = ()
    plugins: tuple[Path, ...] = ()

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Record:
    """A cell with its result, and what it is for: ``report``, ``noise`` or ``rate``."""

    cell: Cell
    use: str
    result: Result

    @property
    def name(self) -> str:
        return self.cell.variant.name


@dataclass(frozen=True)
class Comparison:
    """A row against the base, seed by seed, at a rate for each.  A seed that failed on either side
    has no difference, and is counted.
    """

    rate: float
    base_rate: float
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    base: tuple[float, ...]
    diverged: tuple[int, int]  # of the row, of the base
    failed: int
    solved: tuple[int, int] | None = None  # of a task: by the row, of so many
    verdict: Verdict | None = None

    @property
    def differences(self) -> list[float]:
        return [ours - theirs for ours, theirs in zip(self.values, self.base, strict=True)]


@dataclass(frozen=True)
class Row:
    """A variant, and what was found of it: at the rate that all share, and at each side's best."""

    matched: Matched
    shared: Comparison
    best: Comparison | None = None
    interaction: Paired | None = None  # its effect, less the sum of its parts'

    @property
    def name(self) -> str:
        return self.matched.variant.name

    @property
    def chief(self) -> Comparison:
        """The comparison that counts: with tuned rates, if they were tuned."""
        return self.shared if self.best is None else self.best

    @property
    def turns(self) -> bool:
        """Whether tuning turns the sign of the difference."""
        if self.best is None or not (self.shared.differences and self.best.differences):
            return False
        return mean(self.shared.differences) * mean(self.best.differences) < 0


@dataclass(frozen=True, repr=False)
class Ablation:
    """What came out.  ``curves`` are, by row, the losses by which rates were chosen."""

    ask: Ask
    metric: Metric
    base: Matched
    rows: tuple[Row, ...]
    noise: Paired | None
    curves: Mapping[str, Mapping[float, float]]
    records: tuple[Record, ...]
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        from builder.ablation.tables import EFFECTS, effects, plain

        return plain(EFFECTS, effects(self))

    def _repr_html_(self) -> str:
        from builder.ablation.tables import html

        return html(self)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def best_rate(losses: Mapping[float, float]) -> float:
    return min(losses, key=losses.__getitem__)


def edge(losses: Mapping[float, float]) -> int:
    """At which edge of a sweep the best rate lies: -1 at the least, 1 at the greatest, else 0."""
    best = best_rate(losses)
    return (best == max(losses)) - (best == min(losses))


def notes(rows: Sequence[Row], curves: Mapping[str, Mapping[float, float]]) -> Iterator[str]:
    """What a reader must know before believing a row."""
    for row in rows:
        if row.turns:
            yield f"{row.name}: the sign of its difference turns when the rates are tuned"
        one = row.chief
        if any(one.diverged):
            ours, theirs = one.diverged
            count = len(one.seeds) + one.failed
            yield f"{row.name}: {ours} of {count} runs diverged, and {theirs} of the base's"
        if one.failed:
            yield f"{row.name}: no difference for {one.failed} seeds, which failed"
    for name, losses in curves.items():
        if edge(losses):
            tried = f"{min(losses):g} to {max(losses):g}"
            yield f"{name}: the best rate lies at the edge of those tried, {tried}"
