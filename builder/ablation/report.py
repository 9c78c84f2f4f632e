"""An ablation as one page: HTML that needs nothing else, and no network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from builder.ablation.cells import code_version, data_digest
from builder.ablation.matching import Matched
from builder.ablation.outcome import Ablation, Comparison, Row, mean
from builder.ablation.swaps import BASE
from builder.ablation.tables import COSTS, EFFECTS, costs, effects, grid, sentences
from builder.diff import compare
from builder.drawing.chart import Line, chart
from builder.drawing.forest import Bar, forest
from builder.drawing.svg import shown
from builder.training.progress import duration
from builder.training.report import COLOURS, document, shown_lines, smoothed, table
from builder.training.runs import Run

NO_BAND = (math.nan, math.nan)


def page(found: Ablation) -> str:
    """The HTML of an ablation."""
    name = found.base.variant.recipe.name
    parts = [
        head(found),
        section("What was found", listed(sentences(found))),
        section("Differences from the base", differences(found)),
        section("Verdicts", wide(EFFECTS, effects(found))),
        section("Costs", wide(COSTS, costs(found)) + f"<p>{matching(found)}</p>"),
        section("Curves", curves(found)),
        section("What each row changes", "".join(map(shown_part, changes(found)))),
        section("Cells", cells(found)),
        section("Surroundings", table(surroundings(found))),
    ]
    return document(f"Ablation of {name}", parts)


def section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def listed(lines: Iterator[str]) -> str:
    return f"<ul>{''.join(f'<li>{shown(line)}</li>' for line in lines)}</ul>"


def wide(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the page is narrow."""
    return f'<div class="wide">{grid(heads, lines)}</div>'


def head(found: Ablation) -> str:
    """What was compared, at a glance."""
    metric, recipe = found.metric, found.base.variant.recipe
    trained = [record for record in found.records if record.result.status != "failed"]
    tiles = {
        "rows": str(len(found.rows)),
        "seeds": ", ".join(map(str, found.seeds)),
        "cells": str(len(found.records)),
        "compared by": f"{metric.name}, {'lower' if metric.lower else 'higher'} is better",
        "does not matter": f"up to {metric.margin:g} {metric.unit}",
        "spent in steps": duration(sum(record.result.seconds for record in trained)),
    }
    inside = "".join(f"<div><dt>{k}</dt><dd>{shown(v)}</dd></div>" for k, v in tiles.items())
    return (
        f"<header><h1>Ablation of {shown(recipe.name)}</h1>"
        f'<p>hash {recipe.hash}</p><dl class="tiles">{inside}</dl></header>'
    )


# Differences


def differences(found: Ablation) -> str:
    bars = [bar for n, row in enumerate(found.rows) for bar in bars_of(row, n)]
    band = NO_BAND if found.noise is None else (found.noise.low, found.noise.high)
    across = f"{found.metric.name}{', ' * bool(found.metric.unit)}{found.metric.unit}"
    better = "left" if found.metric.lower else "right"
    words = (
        f"Dots are seeds, bars {level(found)} intervals; better lies to the {better}. Shaded is "
        "what the base does against itself, with other seeds; dashed lines bound what does not "
        "matter."
    )
    return f"<p>{words}</p>{forest(bars, across, band, found.metric.margin)}"


def level(found: Ablation) -> str:
    said = next((row.chief.verdict for row in found.rows if row.chief.verdict), None)
    return "" if said is None else f"{100 * (1 - said.alpha):.3g} %"


def bars_of(row: Row, number: int) -> Iterator[Bar]:
    """The row at its best rate, and at the shared one where that is another."""
    style = f"s{(number + 1) % COLOURS}"
    if row.best is None:
        yield from bar(row.shared, row.name, style)
    else:
        yield from bar(row.best, row.name, style)
        yield from bar(row.shared, f"{row.name}, shared rate", f"{style} faint")


def bar(one: Comparison, label: str, style: str) -> Iterator[Bar]:
    if one.verdict is not None:
        found = one.verdict.found
        yield Bar(label, one.differences, found.mean, found.low, found.high, style)


def matching(found: Ablation) -> str:
    """How equal the rows are, in what they were to be."""
    ask = found.ask
    if ask.match == "none":
        return "Costs were left as they come: --match makes one of them equal."
    parts = [
        f"{shown(row.name)} {100 * (row.matched.residual or 0):+.3f} %"
        + (f" with {ask.absorb}={row.matched.absorbed}" if row.matched.absorbed else "")
        for row in found.rows
    ]
    return f"Matched by {ask.match}: {'; '.join(parts)}."


# Curves


def curves(found: Ablation) -> str:
    """The training loss of each row, and the losses by which rates were chosen."""
    names = [BASE, *(row.name for row in found.rows)]
    keys = " ".join(f'<b class="s{n % COLOURS}">{shown(name)}</b>' for n, name in enumerate(names))
    figures = [
        figure("training loss, mean over seeds", keys, chart(losses(found, names), "steps", "loss"))
    ]
    if found.curves:
        drawn = chart(rates(found, names), "log10 of the rate", "loss")
        figures.append(figure("loss by rate, of another seed and text", keys, drawn))
    return f'<div class="figures">{"".join(figures)}</div>'


def figure(title: str, keys: str, drawn: str) -> str:
    return f'<figure class="shown"><figcaption>{title} {keys}</figcaption>{drawn}</figure>'


def losses(found: Ablation, names: Sequence[str]) -> list[Line]:
    return [
        Line(name, steps, smoothed(values), f"s{n % COLOURS}")
        for n, name in enumerate(names)
        for steps, values in [mean_losses(found, name)]
    ]


def mean_losses(found: Ablation, name: str) -> tuple[list[float], list[float]]:
    """Over the seeds of a row at the rate that counts."""
    cells = [r.cell for r in found.records if r.name == name and r.use == "report"]
    rate = chief_rate(found, name)
    runs = [Run(cell.path) for cell in cells if cell.rate == rate and cell.path.exists()]
    logs = [[e for e in run.metrics() if e["event"] == "step"] for run in runs]
    longest = max(logs, key=len, default=[])
    rows = zip_longest(*([event["loss"] for event in log] for log in logs))
    means = [mean([loss for loss in row if loss is not None]) for row in rows]
    return [float(event["step"]) for event in longest], means


def chief_rate(found: Ablation, name: str) -> float:
    if name == BASE:
        return found.rows[0].chief.base_rate
    return next(row.chief.rate for row in found.rows if row.name == name)


def rates(found: Ablation, names: Sequence[str]) -> list[Line]:
    lines = []
    for n, name in enumerate(names):
        points = sorted((r, loss) for r, loss in found.curves[name].items() if math.isfinite(loss))
        xs, ys = [math.log10(rate) for rate, _ in points], [loss for _, loss in points]
        lines.append(Line(name, xs, ys, f"s{n % COLOURS}", dots=True))
    return lines


# What stands below


def changes(found: Ablation) -> Iterator[tuple[str, str]]:
    """Each row with how its recipe differs from the base's."""
    for row in found.rows:
        difference = compare(found.base.variant.recipe, row.matched.variant.recipe)
        lines = [str(change) for change in (*difference.model, *difference.training)]
        yield row.name, "\n".join(lines)


def shown_part(part: tuple[str, str]) -> str:
    name, text = part
    return f"<h3>{shown(name)}</h3><pre>{shown_lines(text)}</pre>"


def cells(found: Ablation) -> str:
    """Every cell, with the command that trains it again."""
    heads = ("row", "for", "seed", "rate", "status", found.metric.name, "seconds", "again")
    lines = [
        [
            record.name,
            record.use,
            str(record.cell.seed),
            f"{record.cell.rate:g}",
            record.result.status,
            value(found, record.result.numbers),
            f"{record.result.seconds:.1f}",
            record.cell.command,
        ]
        for record in found.records
    ]
    return f"<details><summary>{len(lines)} cells</summary>{wide(heads, lines)}</details>"


def value(found: Ablation, numbers: Mapping[str, float]) -> str:
    return f"{found.metric.value(numbers):.4f}" if numbers else ""


def surroundings(found: Ablation) -> dict[str, object]:
    """What the cells are known by."""
    rows: list[Matched] = [found.base, *(row.matched for row in found.rows)]
    hashes = {f"recipe of {row.variant.name}": row.variant.recipe.hash for row in rows}
    data = data_digest(found.base.variant.recipe)
    return {**hashes, "data": data[:16], "code": code_version()[:16], "ask": found.ask.hash}
