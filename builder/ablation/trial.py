"""An ablation under way: rates are chosen, cells are trained, rows are judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from builder.ablation.cells import Cell, Result
from builder.ablation.matching import Matched
from builder.ablation.metrics import Metric
from builder.ablation.outcome import Ablation, Ask, Comparison, Record, Row, best_rate, edge, notes
from builder.ablation.queue import Queue
from builder.ablation.statistics import Paired, paired
from builder.ablation.swaps import BASE, Variant
from builder.ablation.verdicts import ALPHA, verdicts
from builder.training.settings import settings_of

SHIFTED = 1000  # from a seed to that of its twin, which only chance sets apart
CHOOSING = 2000  # from the recipe's seed to that by which rates are chosen
FACTOR = math.sqrt(10)  # between rates
EXTENSIONS = 4  # of a sweep whose best rate lies at its edge


@dataclass
class Trial:
    """An ablation under way."""

    ask: Ask
    metric: Metric
    rows: Sequence[Matched]
    looks: tuple[int, ...]
    queue: Queue
    twins: bool = True  # whether the base is trained against itself too
    records: dict[tuple[str, str], Record] = field(default_factory=dict)  # by use and key
    curves: dict[str, dict[float, float]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)  # the best, by row
    cells: dict[tuple[str, int, float], Cell] = field(default_factory=dict)  # made so far

    def outcome(self) -> Ablation:
        if self.ask.lr_sweep:
            self.choose_rates()
        shared: dict[str, Comparison] = {}
        best: dict[str, Comparison] = {}
        open_rows, seeds = [row.variant for row in self.rows[1:]], 0
        for seeds in self.looks:
            self.train(open_rows, seeds)
            shared |= self.judged(shared, {row.name: self.shared_rate for row in open_rows}, seeds)
            if self.rates:
                best |= self.judged(best, {row.name: self.best_rate for row in open_rows}, seeds)
            chief = best or shared
            open_rows = [row for row in open_rows if is_open(chief[row.name])]
            if not open_rows:
                break
        effects = best or shared
        rows = tuple(
            Row(row, shared[name], best.get(name), interaction(row.variant, effects))
            for row in self.rows[1:]
            for name in [row.variant.name]
        )
        return Ablation(
            self.ask,
            self.metric,
            self.rows[0],
            rows,
            self.noise(seeds),
            self.curves,
            tuple(self.records.values()),
            tuple(self.seeds(seeds)),
            tuple(notes(rows, self.curves)),
        )

    # What is trained

    @property
    def base(self) -> Variant:
        return self.rows[0].variant

    def variant(self, name: str) -> Variant:
        return next(row.variant for row in self.rows if row.variant.name == name)

    def cell(self, name: str, seed: int, rate: float) -> Cell:
        """A row's cell: made once, as its recipe must be read."""
        asked = name, seed, rate
        if asked not in self.cells:
            self.cells[asked] = Cell(self.variant(name), seed, rate)
        return self.cells[asked]

    def seeds(self, count: int) -> list[int]:
        first = settings_of(self.base.recipe).seed
        return list(range(first, first + count))

    def shared_rate(self, name: str) -> float:
        """What the row's own page says: the base's, unless the swap is of the rate."""
        return settings_of(self.variant(name).recipe).lr

    def best_rate(self, name: str) -> float:
        return self.rates.get(name, self.shared_rate(name))

    def train(self, rows: Sequence[Variant], count: int) -> None:
        """Every cell that is reported: seed after seed, so that what there is is always fair."""
        cells, twins = [], []
        for seed in self.seeds(count):
            for row, rate in product((self.base, *rows), (self.shared_rate, self.best_rate)):
                cells.append(self.cell(row.name, seed, rate(row.name)))
            if self.twins:
                twins.append(self.cell(BASE, seed + SHIFTED, self.shared_rate(BASE)))
        self.run(cells, "report")
        self.run(twins, "noise")

    def run(self, cells: Iterable[Cell], use: str) -> None:
        unique = {cell.key: cell for cell in cells if (use, cell.key) not in self.records}
        for key, result in self.queue.run(unique.values()).items():
            self.records[use, key] = Record(unique[key], use, result)

    def result(self, use: str, cell: Cell) -> Result:
        return self.records[use, cell.key].result

    # Rates

    def choose_rates(self) -> None:
        """Each row's best of the same rates, by another seed and another text than are reported;
        while any has its best at an edge, all are tried beyond it.
        """
        names = [row.variant.name for row in self.rows]
        half = (self.ask.lr_sweep - 1) / 2
        steps = [n - half for n in range(self.ask.lr_sweep)]
        for _ in range(EXTENSIONS + 1):
            self.sweep(names, steps)
            edges = [edge(self.curves[name]) for name in names]
            more = [steps[0] - 1] * (-1 in edges) + [steps[-1] + 1] * (1 in edges)
            if not more:
                break
            steps = sorted([*steps, *more])
        self.rates = {name: best_rate(self.curves[name]) for name in names}

    def sweep(self, names: Sequence[str], steps: Sequence[float]) -> None:
        """The losses of each row at these powers of the factor over its own rate."""
        seed = self.seeds(1)[0] + CHOOSING
        cells = {
            (name, step): self.cell(name, seed, rounded(self.shared_rate(name), step))
            for step in steps
            for name in names
        }
        self.run(cells.values(), "rate")
        for name in names:
            found = [(cells[name, step], self.result("rate", cells[name, step])) for step in steps]
            self.curves[name] = {cell.rate: choosing(result) for cell, result in found}

    # What is found

    def judged(
        self,
        before: Mapping[str, Comparison],
        rates: Mapping[str, Callable[[str], float]],
        count: int,
    ) -> dict[str, Comparison]:
        """The comparisons of these rows, with verdicts by Holm over all rows."""
        new = {
            name: self.compared(name, rate(name), rate(BASE), count) for name, rate in rates.items()
        }
        every = {**before, **new}
        differences = {name: one.differences for name, one in every.items() if one.differences}
        said = verdicts(differences, self.metric, len(self.looks))
        return {name: replace(one, verdict=said.get(name)) for name, one in new.items()}

    def compared(self, name: str, rate: float, base_rate: float, count: int) -> Comparison:
        seeds = self.seeds(count)
        ours = [self.result("report", self.cell(name, seed, rate)) for seed in seeds]
        theirs = [self.result("report", self.cell(BASE, seed, base_rate)) for seed in seeds]
        whole = [
            (seed, a, b)
            for seed, a, b in zip(seeds, ours, theirs, strict=True)
            if "failed" not in (a.status, b.status)
        ]
        value = self.metric.value
        solved = [a.numbers["solved"] for _, a, _ in whole if "solved" in a.numbers]
        return Comparison(
            rate,
            base_rate,
            tuple(seed for seed, _, _ in whole),
            tuple(value(a.numbers) for _, a, _ in whole),
            tuple(value(b.numbers) for _, _, b in whole),
            (count_diverged(ours), count_diverged(theirs)),
            count - len(whole),
            (int(sum(solved)), len(solved)) if solved else None,
        )

    def noise(self, count: int) -> Paired | None:
        """The base against itself, each seed against its twin: what chance alone sets apart."""
        if not self.twins:
            return None
        rate, value = self.shared_rate(BASE), self.metric.value
        pairs = [
            (
                self.result("noise", self.cell(BASE, seed + SHIFTED, rate)),
                self.result("report", self.cell(BASE, seed, rate)),
            )
            for seed in self.seeds(count)
        ]
        found = [
            value(twin.numbers) - value(own.numbers)
            for twin, own in pairs
            if "failed" not in (twin.status, own.status)
        ]
        return paired(found, ALPHA) if found else None


def rounded(rate: float, step: float) -> float:
    """A rate so many factors from another, to three digits: its name in messages and keys."""
    return rate if step == 0 else float(f"{rate * FACTOR**step:.3g}")


def choosing(result: Result) -> float:
    """The loss by which a rate is chosen; of what has none, more than any."""
    return result.numbers.get("choosing", math.inf)


def count_diverged(results: Sequence[Result]) -> int:
    return sum(result.status == "diverged" for result in results)


def is_open(one: Comparison) -> bool:
    return one.verdict is None or one.verdict.word == "inconclusive"


def interaction(variant: Variant, effects: Mapping[str, Comparison]) -> Paired | None:
    """Of a combination: its effect, less the sum of what its parts do alone, seed by seed."""
    if not variant.parts or not all(part in effects for part in variant.parts):
        return None
    own = effects[variant.name]
    parts = [effects[part] for part in variant.parts]
    by_seed = [dict(zip(one.seeds, one.differences, strict=True)) for one in (own, *parts)]
    common = [seed for seed in own.seeds if all(seed in found for found in by_seed)]
    found = [by_seed[0][s] - math.fsum(part[s] for part in by_seed[1:]) for s in common]
    return paired(found, ALPHA) if found else None
