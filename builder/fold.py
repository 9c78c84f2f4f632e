"""A graph's layers folded for reading: what repeats stands once, with how often."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

from builder.graph import Edge, Graph, Layer, Node, Tap

LAYER = re.compile(r"\blayers\.\d+\.")


@dataclass(frozen=True)
class Repeat:
    """``items``, ``times`` over.  The layers in it are the first round's."""

    times: int
    items: tuple[Folded, ...]


Folded: TypeAlias = Node | Repeat


def fold(graph: Graph) -> tuple[Folded, ...]:
    """The items of a graph, each run of alike layers, or of alike rounds of layers, as one repeat.

    Layers are alike if they differ by nothing but their index, and the names and references that
    follow from it.
    """
    items: tuple[Folded, ...] = graph.items
    return _folded(items, [_key(item) for item in graph.items])


def _folded(items: Sequence[Folded], keys: Sequence[Hashable]) -> tuple[Folded, ...]:
    """Shortest period first: ``aab aab`` becomes ``2 x (2 x a, b)``."""
    done: list[Folded] = []
    at = 0
    while at < len(items):
        period, times = _run(keys, at) if isinstance(items[at], Layer) else (1, 1)
        once = tuple(items[at : at + period])
        if times > 1:
            once = (Repeat(times, _folded(once, keys[at : at + period])),)
        done += once
        at += period * times
    return tuple(done)


def _run(keys: Sequence[Hashable], at: int) -> tuple[int, int]:
    """The period and the count of the repetition from here on that leaves the fewest entries."""
    best, saved = (1, 1), 0
    for period in range(1, (len(keys) - at) // 2 + 1):
        times = 1
        round_ = keys[at : at + period]
        if None in round_:
            break
        while keys[at + times * period : at + (times + 1) * period] == round_:
            times += 1
        if period * (times - 1) > saved:
            best, saved = (period, times), period * (times - 1)
    return best


def _key(item: Node) -> Hashable:
    """Equal for layers that are alike; None for what is no layer."""
    return shape(item.body) if isinstance(item, Layer) else None


def shape(value: Any) -> Hashable:
    """A node without what follows from its place: equal for those that are alike."""
    if isinstance(value, str):
        return LAYER.sub("", value)
    if isinstance(value, Tap):
        return "tap"
    if isinstance(value, Edge):
        return value.port
    if isinstance(value, tuple):
        return tuple(shape(part) for part in value)
    if is_dataclass(value):
        kept = (getattr(value, f.name) for f in fields(value) if f.compare)
        return (type(value).__name__, *(shape(part) for part in kept))
    return value  # type: ignore[no-any-return]
