"""A laid-out diagram as SVG 1.1: shapes and text alone, so that it prints, scales and embeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import hypot
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from builder.drawing.layout import LINE, SMALL, WORD, Box, Picture, Point, Wire, picture
from builder.drawing.view import View, view
from builder.spell import spell_all

if TYPE_CHECKING:
    from builder.recipe import Recipe

FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
INK, FAINT = "#222222", "#777777"
ROUND = 6.0  # the radius of a line's corners
HEAD, BARB = 7.0, 3.5  # an arrow's head: its length, and half its width

FILLS = {  # light enough for black text on each
    "embedding": "#d5e8cd",
    "head": "#d5e8cd",
    "mixer": "#f8cdb4",
    "ffn": "#c3daf1",
    "norm": "#fdf1c7",
    "positions": "#e2d4ed",
    "joiner": "#cfcfe9",
    "map": "#e9e9e9",
}
FRAMES = {"layer": "#f8f8f8", "repeat": "#ffffff", "joined": "#eeeef7"}


def svg(view: View) -> str:
    """The text of an SVG file."""
    drawn = picture(view)
    size = f'width="{_n(drawn.width)}" height="{_n(drawn.height)}"'
    about = f"{view.about}. From the tokens up: {spell_all(view.items)}"
    root = f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" {size} '
    root += f'viewBox="0 0 {_n(drawn.width)} {_n(drawn.height)}" '
    root += f'font-family="{FONTS}" text-anchor="middle" fill="{INK}">'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        root,
        f"<title>{shown(view.title)}</title>",
        f"<desc>{shown(about)}</desc>",
        f'<rect {size} fill="#ffffff"/>',
        *_body(drawn),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def inline(recipe: Recipe) -> str:
    """A recipe's diagram as an element of a page."""
    return svg(view(recipe)).partition("?>")[2]


def shown(text: str) -> str:
    """A text as XML has it; what XML cannot hold becomes a dot."""
    return escape("".join(c if c.isprintable() else "·" for c in text), {'"': "&quot;"})


def _body(drawn: Picture) -> Iterator[str]:
    for box in _every(drawn.boxes):
        yield from _box(box, drawn.height)
    for wire in drawn.wires:
        yield from _wire(wire, drawn.height)
    for box in _every(drawn.boxes):
        yield from _texts(box, drawn.height)


def _every(boxes: Sequence[Box]) -> Iterator[Box]:
    """Each box, before those inside it."""
    for box in boxes:
        yield box
        yield from _every(box.children)


def _box(box: Box, height: float) -> Iterator[str]:
    x, y = box.x + box.width / 2, height - box.y - box.height / 2  # its middle
    match box.look:
        case "text" | "end":
            return
        case "tap":
            yield f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(box.width / 2)}"/>'
            return
        case "sum":
            arm = box.width / 2 - 3.5
            cross = f"M{_n(x - arm)} {_n(y)}h{_n(2 * arm)}M{_n(x)} {_n(y - arm)}v{_n(2 * arm)}"
            yield f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(box.width / 2)}" {_pen("#ffffff")}/>'
            yield f'<path d="{cross}" {_pen("none")}/>'
            return
    place = f'x="{_n(box.x)}" y="{_n(height - box.top)}"'
    size = f'width="{_n(box.width)}" height="{_n(box.height)}"'
    if box.look in FRAMES:
        dashes = ' stroke-dasharray="5 3"' if box.look == "repeat" else ""
        look = f'rx="10" fill="{FRAMES[box.look]}" stroke="{FAINT}"{dashes}'
    else:
        look = f'rx="5" {_pen(FILLS[box.look])}'
    yield f"<rect {place} {size} {look}/>"


def _pen(fill: str) -> str:
    return f'fill="{fill}" stroke="{INK}" stroke-width="1.2"'


def _texts(box: Box, height: float) -> Iterator[str]:
    """A box's word and its details, one below the other, centred."""
    lines = [(box.word, WORD)] * bool(box.word) + [(line, SMALL) for line in box.details]
    x, y = box.x + box.width / 2, height - box.y - box.height / 2
    y -= sum(LINE[size] for _, size in lines) / 2
    for text, size in lines:
        base = y + LINE[size] / 2 + size * 0.35  # a letter's middle is that far above its foot
        place = f'x="{_n(x)}" y="{_n(base)}" font-size="{_n(size)}"'
        yield f"<text {place}>{shown(text)}</text>"
        y += LINE[size]


def _wire(wire: Wire, height: float) -> Iterator[str]:
    points = [(x, height - y) for x, y in wire.points]
    points = [p for n, p in enumerate(points) if n == 0 or p != points[n - 1]]
    if len(points) < 2:
        return
    dashes = ' stroke-dasharray="4 3"' if wire.dashed else ""
    tip, before = points[-1], points[-2]
    if wire.arrow:
        points[-1] = _towards(tip, before, HEAD - 1)
    yield f'<path d="{_path(points)}" {_pen("none")}{dashes}/>'
    if wire.arrow:
        (x, y), (bx, by) = tip, _towards(tip, before, HEAD)
        side = (BARB, 0.0) if x == bx else (0.0, BARB)  # every line runs along an axis
        corners = [(x, y), (bx + side[0], by + side[1]), (bx - side[0], by - side[1])]
        yield f'<path d="M{"L".join(f"{_n(px)} {_n(py)}" for px, py in corners)}Z"/>'


def _path(points: Sequence[Point]) -> str:
    """A line through points, its corners rounded."""
    parts = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(ROUND, _distance(before, corner) / 2, _distance(corner, after) / 2)
        (sx, sy), (ex, ey) = _towards(corner, before, radius), _towards(corner, after, radius)
        parts.append(f"L{_n(sx)} {_n(sy)}Q{_n(corner[0])} {_n(corner[1])} {_n(ex)} {_n(ey)}")
    return "".join([*parts, f"L{_n(points[-1][0])} {_n(points[-1][1])}"])


def _towards(start: Point, end: Point, by: float) -> Point:
    """The point that lies so far from one point on the way to another."""
    (x, y), (ex, ey) = start, end
    part = by / (_distance(start, end) or 1.0)
    return x + (ex - x) * part, y + (ey - y) * part


def _distance(a: Point, b: Point) -> float:
    return hypot(b[0] - a[0], b[1] - a[1])


def _n(value: float) -> str:
    """A number as short as a hundredth of a pixel allows."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
