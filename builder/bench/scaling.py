"""How a step's time grows with a model's sizes, beside the operations that are counted for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeVar

from builder.bench.cases import Case
from builder.bench.commands import in_rows
from builder.bench.contest import ours
from builder.drawing.chart import Line, chart
from builder.measure import measure
from builder.recipe import load_recipe

Key = TypeVar("Key")
SMALL = Case("scaling", "train", "rotary", 4, 192, 4, 1024, length=256, ff=512, batch=4)
LONG = replace(SMALL, layers=2, dim=128, ff=256, length=2048, batch=1)
SIZES = {
    **{f"{n} layers": replace(SMALL, layers=n) for n in (2, 6, 12)},
    **{f"dim {n}": replace(SMALL, dim=n, ff=n * 8 // 3) for n in (96, 288, 480)},
    **{f"{n} tokens": replace(LONG, length=n) for n in (256, 1024, 4096)},
    **{f"2048 tokens in a window of {n}": replace(LONG, window=n) for n in (64, 256, 1024)},
}
READ = replace(LONG, name="reading", work="prefill")
LENGTHS = (512, 1024, 2048, 4096, 8192)
WINDOW = 128
STYLE = """<style>
svg { font: 12px sans-serif; color: #555; background: #fff }
text { fill: currentColor } .name { font-weight: bold }
.grid, .tick, .axis { stroke: currentColor; fill: none } .grid { opacity: .2 }
polyline { fill: none; stroke: #06c; stroke-width: 1.5; opacity: .5 } circle { fill: #06c }
</style>"""


@dataclass(frozen=True)
class Point:
    """One size: operations that are counted for a token, and seconds that it took."""

    name: str
    counted: float
    seconds: float


@dataclass(frozen=True)
class Reading:
    """A text of a ``length``: seconds a token of reading it, and bytes that are then kept."""

    length: int
    seconds: float
    cache: int


def trained(rounds: int) -> list[Point]:
    """A token's share of a training step, of each size in turn."""
    seconds = in_turn({name: ours(case.given) for name, case in SIZES.items()}, rounds)
    found = []
    for name, case in SIZES.items():
        counted = measure(load_recipe(case.page), case.length).train or 0
        found.append(Point(name, counted / case.length, seconds[name] / case.tokens))
    return found


def read(rounds: int) -> list[tuple[Reading, Reading]]:
    """Texts of some lengths, each in a window and without."""
    return [(one[WINDOW], one[None]) for one in (_read(length, rounds) for length in LENGTHS)]


def _read(length: int, rounds: int) -> dict[int | None, Reading]:
    cases = {window: replace(READ, length=length, window=window) for window in (WINDOW, None)}
    seconds = in_turn({window: ours(case.given) for window, case in cases.items()}, rounds)
    found = {}
    for window, case in cases.items():
        costs = measure(load_recipe(case.page), length, training=False)
        found[window] = Reading(length, seconds[window] / length, costs.cache_bytes or 0)
    return found


def in_turn(acts: Mapping[Key, Callable[[], Any]], rounds: int) -> dict[Key, float]:
    """The median seconds of each, once to get warm and then once a round."""
    taken: dict[Key, list[float]] = {name: [] for name in acts}
    for number in range(rounds + 1):
        for name, act in acts.items():
            began = time.perf_counter()
            act()
            if number:
                taken[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in taken.items()}


def pages(points: Sequence[Point], readings: Sequence[tuple[Reading, Reading]]) -> str:
    """Both as tables."""
    rows = [("trained", "MFLOP a token", "µs a token", "GFLOP/s")]
    for p in points:
        rate = p.counted / p.seconds / 1e9
        rows.append((p.name, f"{p.counted / 1e6:.2f}", f"{p.seconds * 1e6:.1f}", f"{rate:.0f}"))
    lines: list[tuple[str, ...]] = [
        ("read", f"µs a token, window {WINDOW}", "without", "cache, window", "without")
    ]
    for pair in readings:
        seconds = (f"{one.seconds * 1e6:.0f}" for one in pair)
        lines.append(
            (f"{pair[0].length} tokens", *seconds, *(f"{one.cache / 1e6:.2f} MB" for one in pair))
        )
    return f"{in_rows(rows)}\n\n{in_rows(lines)}"


def plot(points: Sequence[Point]) -> str:
    """Seconds over counted operations, as SVG."""
    ordered = sorted(points, key=lambda point: point.counted)
    xs, ys = [p.counted for p in ordered], [p.seconds * 1e6 for p in ordered]
    drawn = chart(
        [Line("sizes", xs, ys, "measured", dots=True)], "operations counted a token", "µs a token"
    )
    return drawn.replace("<title>", f"{STYLE}\n<title>", 1)
