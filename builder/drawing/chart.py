"""A line chart as inline SVG: its colours are the page's, so that it reads in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builder.drawing.svg import shown

WIDTH, HEIGHT = 660, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 34
POINTS = 400  # of a line: each stands for a stretch by its least and its greatest
UNITS = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Line:
    """Points in the order of x.  ``style`` is a class of the page; ``dots`` marks each point."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: str
    dots: bool = False


def chart(lines: Sequence[Line], across: str, up: str) -> str:
    """Lines over common axes; "" if there is no point to draw."""
    lines = [line for line in lines if len(line.xs)]
    if not lines:
        return ""
    x = Axis.over([v for line in lines for v in line.xs], LEFT, WIDTH - RIGHT)
    y = Axis.over([v for line in lines for v in line.ys], HEIGHT - BOTTOM, TOP)
    body = [*_grid(x, y), *(mark for line in lines for mark in _drawn(line, x, y))]
    label = f"{up} over {across}"
    return "\n".join(
        [
            f'<svg class="chart" role="img" aria-label="{shown(label)}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{shown(label)}</title>",
            *body,
            f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">'
            f"{shown(across)}</text>",
            "</svg>",
        ]
    )


@dataclass(frozen=True)
class Axis:
    """Values to places, and the round values between."""

    low: float
    high: float
    first: float
    last: float

    @staticmethod
    def over(values: Sequence[float], first: float, last: float) -> Axis:
        low, high = min(values), max(values)
        room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return Axis(low - room if low - room >= 0 or low < 0 else 0.0, high + room, first, last)

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self, most: int) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten, no more than so many."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step) + 1)]


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    for value in y.ticks(5):
        at = _n(y.at(value))
        yield f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{at}" dy="4" text-anchor="end">{short(value)}</text>'
    for value in x.ticks(7):
        at = _n(x.at(value))
        yield f'<path class="tick" d="M{at} {HEIGHT - BOTTOM}v4"/>'
        below = HEIGHT - BOTTOM + 17
        yield f'<text x="{at}" y="{below}" text-anchor="middle">{short(value)}</text>'
    yield f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'


def _drawn(line: Line, x: Axis, y: Axis) -> Iterator[str]:
    points = [
        (_n(x.at(a)), _n(y.at(b))) for a, b in thinned(list(zip(line.xs, line.ys, strict=True)))
    ]
    way = " ".join(f"{a},{b}" for a, b in points)
    label = f"<title>{shown(line.label)}</title>"
    yield f'<polyline class="{line.style}" points="{way}">{label}</polyline>'
    if line.dots:
        yield from (f'<circle class="{line.style}" cx="{a}" cy="{b}" r="2.5"/>' for a, b in points)


def thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """No more than ``POINTS``: of each stretch the least and the greatest, so no spike goes."""
    if len(points) <= POINTS:
        return points
    size = math.ceil(len(points) / (POINTS // 2))
    kept = []
    for first in range(0, len(points), size):
        stretch = points[first : first + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def short(value: float) -> str:
    """A number for an axis: ``1.5M``, ``0.002``, ``3e-05``."""
    for scale, unit in UNITS:
        if abs(value) >= scale:
            return f"{value / scale:.4g}{unit}"
    return f"{value:.3g}"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
