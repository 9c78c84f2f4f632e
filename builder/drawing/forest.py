"""A forest plot as inline SVG: each row's interval, its mean, and a dot for each seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builder.drawing.chart import Axis, short
from builder.drawing.svg import shown

WIDTH, LEFT, RIGHT = 900, 260, 16
ROW, TOP, BOTTOM = 34, 12, 44
LABEL = 36  # letters that stand beside a row


@dataclass(frozen=True)
class Bar:
    """A row: the difference of each seed, their mean, and its interval; ``style`` is a class of the
    page.
    """

    label: str
    dots: Sequence[float]
    mean: float
    low: float
    high: float
    style: str


def forest(bars: Sequence[Bar], across: str, band: tuple[float, float], margin: float) -> str:
    """Rows under each other over one axis, with a line at no difference.

    ``band`` is what chance alone does, and is shaded; ``margin``, to each side, does not matter.
    """
    if not bars:
        return ""
    edges = [v for bar in bars for v in (*bar.dots, bar.mean, bar.low, bar.high)]
    known = [v for v in (*edges, *band, 0.0, margin, -margin) if math.isfinite(v)]
    x = Axis.over(known, LEFT, WIDTH - RIGHT)
    height = TOP + ROW * len(bars) + BOTTOM
    label = f"difference from the base, {across}"
    return "\n".join(
        [
            f'<svg class="chart forest" role="img" aria-label="{shown(label)}" '
            f'viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{shown(label)}</title>",
            *_ground(x, height, band, margin),
            *(mark for n, bar in enumerate(bars) for mark in _drawn(bar, n, x)),
            f'<text class="name" x="{WIDTH - RIGHT}" y="{height - 4}" text-anchor="end">'
            f"{shown(label)}</text>",
            "</svg>",
        ]
    )


def _ground(x: Axis, height: int, band: tuple[float, float], margin: float) -> Iterator[str]:
    """What is behind the rows: chance, the margin, no difference, and the axis."""
    deep = height - BOTTOM - TOP
    if all(map(math.isfinite, band)):
        left, right = x.at(band[0]), x.at(band[1])
        yield (
            f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
            f'height="{deep}"><title>the base against itself</title></rect>'
        )
    for place, style in ((-margin, "margin"), (margin, "margin"), (0.0, "axis")):
        yield f'<path class="{style}" d="M{x.at(place):.1f} {TOP}v{deep}"/>'
    for value in x.ticks(7):
        at = x.at(value)
        yield f'<path class="tick" d="M{at:.1f} {TOP + deep}v4"/>'
        yield f'<text x="{at:.1f}" y="{TOP + deep + 17}" text-anchor="middle">{short(value)}</text>'


def _drawn(bar: Bar, number: int, x: Axis) -> Iterator[str]:
    y = TOP + ROW * number + ROW // 2
    low, high = max(bar.low, x.low), min(bar.high, x.high)
    name = bar.label if len(bar.label) <= LABEL else bar.label[: LABEL - 1] + "…"
    told = f"{bar.label}: {bar.mean:+.4f} ({bar.low:+.4f} to {bar.high:+.4f})"
    yield f'<text class="row" x="{LEFT - 12}" y="{y}" dy="4" text-anchor="end">{shown(name)}</text>'
    yield f'<g class="{bar.style}"><title>{shown(told)}</title>'
    yield f'<path class="bar" d="M{x.at(low):.1f} {y}H{x.at(high):.1f}"/>'
    for dot in bar.dots:
        yield f'<circle class="dot" cx="{x.at(dot):.1f}" cy="{y}" r="3"/>'
    yield f'<rect class="mean" x="{x.at(bar.mean) - 4:.1f}" y="{y - 7}" width="8" height="14"/></g>'
