"""Where everything in a diagram stands: boxes in boxes and lines between them, upwards from the
tokens.

A piece is a part of the picture round its spine, the line that the stream runs along: ``x`` counts
from the spine, ``y`` upwards from the piece's foot.  Pieces are laid one on another, side by side,
or in a frame, and each gives a new piece.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from builder.captions import Caption
from builder.drawing.view import Link, Source, View
from builder.fold import Folded, Repeat
from builder.graph import NODE, Chain, Joined, Layer, Leaf, Node, Parallel, Residual, Tap
from builder.spell import spans

Point: TypeAlias = tuple[float, float]

WORD, SMALL = 13.0, 10.0  # sizes of text
LINE = {WORD: 17.0, SMALL: 13.0}
LEAF = 168.0  # a leaf's width, unless its word needs more
MARGIN = 8.0  # round the text in a box
GAP = 18.0  # between what follows one another: room for an arrow
BESIDE = 26.0  # between branches
PADDING = 14.0  # inside a frame
AROUND = 16.0  # from a branch to the line that goes round it
STUB = 9.0  # from a piece's foot to its fork
RISE = 21.0  # from a piece's foot to what follows its fork
SUM = 9.0  # the radius of a circled plus
DOT = 3.0  # the radius of a tap
MANY = 2  # a leaf that reads more is told so in words

# In thousandths of the size, rounded up: those of DejaVu Sans, the widest of the usual fonts.
WIDTHS = {
    300: "'IJijl",
    350: " ,./:;\\|·",
    400: "()-[]ft",
    450: "!r",
    550: '"*_`?csz',
    600: "FLkvxy",
    650: "$0123456789EPSTYabdeghnopqu{}",
    700: "ABCKRVXZ",
    800: "&DGHNOQU",
    900: "#+<=>^w~M×",
}
WIDTH = {character: width / 1000 for width, those in WIDTHS.items() for character in those}


@dataclass(frozen=True)
class Box:
    """A rectangle with its lower left corner at ``x, y``.

    ``look`` tells how it is drawn, ``stands`` for which leaf or tap.
    """

    x: float
    y: float
    width: float
    height: float
    look: str
    word: str = ""
    details: tuple[str, ...] = ()
    stands: Source = ""
    children: tuple[Box, ...] = ()

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def top(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Wire:
    points: tuple[Point, ...]
    arrow: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Piece:
    """``left`` and ``right`` are how far it reaches from the spine; a ``solid`` piece begins with a
    box, which an arrow may point at.
    """

    left: float
    right: float
    height: float
    boxes: tuple[Box, ...] = ()
    wires: tuple[Wire, ...] = ()
    solid: bool = False


@dataclass(frozen=True)
class Picture:
    """A whole diagram from ``0, 0``, its lower left corner."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]


def picture(view: View) -> Picture:
    """Lay out a whole diagram.

    What is read across depth is a dashed line at the right, or where there is no way for one, a
    number at both of its ends.
    """
    tags: dict[Source, int] = {}
    while True:
        body = _Builder(view, tags).model()
        drawn = [link for link in view.links if link.source not in tags]
        lost = _lost(body, drawn)
        if not lost:
            return _finished(view, body, drawn)
        tags |= {source: len(tags) + n for n, source in enumerate(lost, 1)}


# Text


def text_width(text: str, size: float) -> float:
    """How wide a text is at the most, in any of the usual fonts."""
    return sum(_em(character) for character in text) * size


def _em(character: str) -> float:
    return 0.0 if unicodedata.combining(character) else WIDTH.get(character, 1.0)


def wrapped(parts: Sequence[str], width: float) -> tuple[str, ...]:
    """Short texts set in lines of a width, which one alone may exceed."""
    lines: list[str] = []
    for part in parts:
        if lines and text_width(longer := f"{lines[-1]} · {part}", SMALL) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return tuple(lines)


def text_size(word: str, details: Sequence[str]) -> tuple[float, float]:
    """The width and height of a word with its details under it."""
    widths = [text_width(word, WORD), *(text_width(line, SMALL) for line in details)]
    return max(widths), LINE[WORD] * bool(word) + LINE[SMALL] * len(details)


# Pieces


def moved(piece: Piece, x: float, y: float) -> Piece:
    """The same piece with its boxes and wires elsewhere."""
    boxes = tuple(_moved_box(box, x, y) for box in piece.boxes)
    wires = tuple(
        replace(wire, points=tuple((px + x, py + y) for px, py in wire.points))
        for wire in piece.wires
    )
    return replace(piece, boxes=boxes, wires=wires)


def _moved_box(box: Box, x: float, y: float) -> Box:
    children = tuple(_moved_box(child, x, y) for child in box.children)
    return replace(box, x=box.x + x, y=box.y + y, children=children)


NOTHING = Piece(0, 0, 0)


def box_piece(caption: Caption, look: str, stands: Source = "") -> Piece:
    """One box with its text."""
    details = wrapped(caption.details, LEAF - 2 * MARGIN)
    width, height = text_size(caption.word, details)
    half = max(LEAF, width + 2 * MARGIN) / 2
    box = Box(-half, 0, 2 * half, height + MARGIN, look, caption.word, details, stands)
    return Piece(half, half, box.height, (box,), solid=True)


def stacked(pieces: Sequence[Piece]) -> Piece:
    """One piece on another, joined by arrows."""
    whole = NOTHING
    for piece in pieces:
        foot = whole.height + GAP if whole.height else 0.0
        joint = Wire(((0, whole.height), (0, foot)), arrow=piece.solid)
        wires = (*whole.wires, *([joint] if foot else []), *moved(piece, 0, foot).wires)
        whole = Piece(
            max(whole.left, piece.left),
            max(whole.right, piece.right),
            foot + piece.height,
            (*whole.boxes, *moved(piece, 0, foot).boxes),
            wires,
            whole.solid if whole.height else piece.solid,
        )
    return whole


def around(body: Piece, end: Piece) -> Piece:
    """A branch, and a line that leaves before it and comes back at the left, to ``end`` above."""
    foot = RISE
    above = foot + body.height + GAP
    side = -(max(body.left, end.left) + AROUND)
    middle = above + end.height / 2
    wires = (
        Wire(((0, 0), (0, foot)), arrow=body.solid),
        Wire(((0, foot + body.height), (0, above)), arrow=True),
        Wire(((0, STUB), (side, STUB), (side, middle), (-end.left, middle)), arrow=True),
    )
    body, end = moved(body, 0, foot), moved(end, 0, above)
    return Piece(
        -side,
        max(body.right, end.right),
        above + end.height,
        (*body.boxes, *end.boxes),
        (*wires, *body.wires, *end.wires),
    )


def side_by_side(branches: Sequence[Piece]) -> Piece:
    """Branches that leave one point and come together in a circled plus.

    The spine is the middle branch's, or lies between the two in the middle.
    """
    spines, width = _spines(branches)
    middle = len(branches) // 2
    axis = spines[middle] if len(branches) % 2 else (spines[middle - 1] + spines[middle]) / 2
    foot, tallest = RISE, max(branch.height for branch in branches)
    above = foot + tallest + GAP
    end = moved(plus(), 0, above)
    boxes, wires = [*end.boxes], [Wire(((0, 0), (0, STUB)))]
    for branch, spine in zip(branches, spines, strict=True):
        x, top = spine - axis, above + SUM
        edge = SUM if x > 0 else -SUM
        ends = ((0, above),) if x == 0 else ((x, top), (edge, top))
        lift = foot + (tallest - branch.height) / 2
        placed = moved(branch, x, lift)
        wires += [
            Wire(((0, STUB), (x, STUB), (x, lift)), arrow=branch.solid),
            *placed.wires,
            Wire(((x, lift + branch.height), *ends), arrow=True),
        ]
        boxes += placed.boxes
    return Piece(axis, width - axis, end.boxes[0].top, tuple(boxes), tuple(wires))


def _spines(branches: Sequence[Piece]) -> tuple[list[float], float]:
    """Each branch's spine from the left of them all, and their width together."""
    spines, x = [], 0.0
    for branch in branches:
        spines.append(x + branch.left)
        x += branch.left + branch.right + BESIDE
    return spines, x - BESIDE


def plus() -> Piece:
    """A circled plus."""
    return Piece(SUM, SUM, 2 * SUM, (Box(-SUM, 0, 2 * SUM, 2 * SUM, "sum"),), solid=True)


def framed(body: Piece, look: str, label: Caption | None = None) -> Piece:
    """A frame that the spine runs through, with its label at its left."""
    left, right, height = (x + PADDING for x in (body.left, body.right, body.height + PADDING))
    inside = moved(body, 0, PADDING)
    frame = Box(-left, 0, left + right, height, look, children=inside.boxes)
    wires = (
        Wire(((0, 0), (0, PADDING)), arrow=body.solid),
        Wire(((0, height - PADDING), (0, height))),
    )
    whole = Piece(left, right, height, (frame,), (*wires, *inside.wires))
    return whole if label is None else _labelled(whole, label)


def _labelled(piece: Piece, label: Caption) -> Piece:
    """A text at the left of a piece, half way up."""
    width, height = text_size(label.word, label.details)
    y = (piece.height - height) / 2
    left = piece.left + MARGIN + width
    text = Box(-left, y, width, height, "text", label.word, label.details)
    return replace(piece, left=left, boxes=(text, *piece.boxes))


def holding(caption: Caption, look: str, stands: Source, held: Sequence[Piece]) -> Piece:
    """A leaf that holds nodes of its own, drawn inside it under its word."""
    inside = _row(held)
    details = wrapped(caption.details, inside.left + inside.right)
    width, height = text_size(caption.word, details)
    half = max(inside.left, inside.right, width / 2) + PADDING
    body = moved(inside, 0, PADDING)
    foot = PADDING + inside.height + MARGIN
    text = Box(-width / 2, foot, width, height, "text", caption.word, details)
    tall = foot + height + MARGIN
    box = Box(-half, 0, 2 * half, tall, look, "", (), stands, (*body.boxes, text))
    return Piece(half, half, tall, (box,), body.wires, solid=True)


def _row(pieces: Sequence[Piece]) -> Piece:
    """Pieces that nothing joins, side by side about the middle."""
    spines, width = _spines(pieces)
    placed = [moved(p, x - width / 2, 0) for p, x in zip(pieces, spines, strict=True)]
    return Piece(
        width / 2,
        width / 2,
        max(piece.height for piece in pieces),
        tuple(box for piece in placed for box in piece.boxes),
        tuple(wire for piece in placed for wire in piece.wires),
    )


# From the graph to pieces


@dataclass(frozen=True)
class _Builder:
    """Makes a piece of each node; ``tags`` number what is read, where no line tells it."""

    view: View
    tags: Mapping[Source, int]

    def model(self) -> Piece:
        ends = [box_piece(Caption(word), "end") for word in ("tokens", "logits")]
        return stacked([ends[0], *self.items(self.view.items, top=True), ends[1]])

    def items(self, items: Sequence[Folded], *, top: bool = False) -> Iterator[Piece]:
        """Layers that do not repeat say which they are, if there are others."""
        at = 0
        several = sum(isinstance(item, Repeat | Layer) for item in items) > 1
        for item in items:
            depth = _depth(item)
            which = (f"layers {spans(range(at, at + depth))}",) if top and several else ()
            at += depth
            match item:
                case Repeat():
                    yield self.repeat(item, which)
                case Layer():
                    label = Caption("", (which[0].replace("layers", "layer"),)) if which else None
                    yield framed(self.node(item.body), "layer", label)
                case _:
                    yield self.node(item)

    def repeat(self, item: Repeat, which: tuple[str, ...]) -> Piece:
        shared = ["shared weights"] * (item in self.view.shared)
        label = Caption(f"× {item.times}", (*which, *shared))
        match item.items:
            case (Layer(body=body),):
                return framed(self.node(body), "layer", label)
        return framed(stacked([*self.items(item.items)]), "repeat", label)

    def node(self, node: Node) -> Piece:
        match node:
            case Leaf():
                return self.leaf(node)
            case Chain():
                return stacked([self.node(item) for item in node.items])
            case Residual(body=Parallel() as body) if len(body.branches) % 2 == 0:
                branches = [self.node(branch) for branch in body.branches]
                half = len(branches) // 2  # what goes round goes up between them
                return side_by_side([*branches[:half], NOTHING, *branches[half:]])
            case Residual():
                return around(self.node(node.body), plus())
            case Parallel():
                return side_by_side([self.node(branch) for branch in node.branches])
            case Joined():
                return framed(around(self.node(node.body), self.leaf(node.joiner)), "joined")
            case Layer():
                return self.node(node.body)
            case Tap():
                return self.tap(node)

    def leaf(self, leaf: Leaf) -> Piece:
        caption = self.caption(leaf)
        held = [value for _, value in leaf.options if isinstance(value, NODE)]
        if held:
            return holding(caption, leaf.kind, leaf.name, [self.node(node) for node in held])
        return box_piece(caption, leaf.kind, leaf.name)

    def caption(self, leaf: Leaf) -> Caption:
        """A leaf's caption, with what it reads, and with its number where something reads it."""
        plain = self.view.captions[leaf.name]
        read: dict[str, list[int]] = {}
        for link in self.view.links:
            if link.reader == leaf.name:
                numbers = read.setdefault(link.option, [])
                numbers += [self.tags[link.source]] if link.source in self.tags else []
        lone = [spans(numbers) for numbers in [read.pop("", [])] if numbers]
        told = [" ".join([option, spans(n)]).strip() for option, n in read.items()]
        named = [f"as {self.tags[leaf.name]}"] if leaf.name in self.tags else []
        return Caption(" ".join([plain.word, *lone]), (*plain.details, *told, *named))

    def tap(self, tap: Tap) -> Piece:
        """A dot on the spine, with its number at its right if it has one."""
        height = LINE[SMALL]
        dot = Box(-DOT, height / 2 - DOT, 2 * DOT, 2 * DOT, "tap", stands=tap.number)
        line = (Wire(((0, 0), (0, height))),)
        if tap.number not in self.tags:
            return Piece(DOT, DOT, height, (dot,), line)
        word = f"as {self.tags[tap.number]}"
        text = Box(2 * DOT, 0, text_width(word, SMALL), height, "text", "", (word,))
        return Piece(DOT, text.right, height, (dot, text), line)


def _depth(item: Folded) -> int:
    """How many layers an item stands for."""
    if isinstance(item, Repeat):
        return item.times * sum(map(_depth, item.items))
    return int(isinstance(item, Layer))


# What is read across depth


def _lost(body: Piece, links: Sequence[Link]) -> list[Source]:
    """The sources that no line at the right can lead to all of their readers."""
    found = {box.stands: box for box in _every(body.boxes)}
    readings = Counter(link.reader for link in links)
    lost = (
        link.source
        for link in links
        if readings[link.reader] > MANY
        or found[link.source].top > found[link.reader].y
        or _is_walled(body, found[link.source], _leaving(found[link.source]))
        or _is_walled(body, found[link.reader], _arriving(found[link.reader], link, links))
    )
    return list(dict.fromkeys(lost))


def _every(boxes: Sequence[Box]) -> Iterator[Box]:
    for box in boxes:
        yield box
        yield from _every(box.children)


def _leaving(box: Box) -> float:
    """At which height a line leaves a leaf or a tap."""
    return box.y + box.height * (0.5 if box.look == "tap" else 0.75)


def _arriving(box: Box, link: Link, links: Sequence[Link]) -> float:
    """At which height a line comes to its reader."""
    own = [other for other in links if other.reader == link.reader]
    return box.y + box.height * 0.5 * (own.index(link) + 1) / (len(own) + 1)


def _is_walled(body: Piece, box: Box, y: float) -> bool:
    """Whether a box stands at the right of this one at this height."""
    return any(other.x >= box.right and other.y <= y <= other.top for other in _every(body.boxes))


def _finished(view: View, body: Piece, links: Sequence[Link]) -> Picture:
    """The picture round a body: its dashed lines, its caption, and a margin."""
    found = {box.stands: box for box in _every(body.boxes)}
    tops = {
        link.source: max(found[o.reader].y for o in links if o.source == link.source)
        for link in links
    }
    order = sorted(tops, key=lambda source: tops[source] - found[source].y)
    lanes = {source: body.right + PADDING + 12 * place for place, source in enumerate(order)}
    dashes = tuple(
        Wire(
            (
                (found[link.source].right, leave := _leaving(found[link.source])),
                (lanes[link.source], leave),
                (lanes[link.source], arrive := _arriving(found[link.reader], link, links)),
                (found[link.reader].right, arrive),
            ),
            arrow=True,
            dashed=True,
        )
        for link in links
    )
    width, height = text_size(view.title, [view.about])
    half = width / 2
    caption = Box(-half, -height - GAP, width, height, "text", view.title, (view.about,))
    left = max(body.left, half) + PADDING
    right = max([body.right, half, *lanes.values()]) + PADDING
    whole = Piece(left, right, 0, (caption, *body.boxes), (*body.wires, *dashes))
    lift = height + GAP + PADDING
    placed = moved(whole, left, lift)
    return Picture(left + right, lift + body.height + PADDING, placed.boxes, placed.wires)
