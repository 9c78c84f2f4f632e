"""Layers that were written one by one -> named blocks and the shortest pattern of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from builder.index import Index


def fold(
    block: str, bodies: Sequence[Any], cases: Sequence[tuple[Any, ...]], index: Index
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The blocks that the layers are, and the node that repeats them.

    Layers that are all the same keep the block's name; others are named by the case that makes them
    differ.
    """
    kinds: list[Any] = []
    for body in bodies:
        if body not in kinds:
            kinds.append(body)
    if len(kinds) == 1:
        return {block: kinds[0]}, {"repeat": len(bodies), "block": block}
    firsts = [bodies.index(kind) for kind in kinds]
    titles = _titles(block, [cases[i] for i in firsts], index)
    order = [titles[kinds.index(body)] for body in bodies]
    return dict(zip(titles, kinds, strict=True)), pattern(order)


def pattern(order: Sequence[str]) -> dict[str, Any]:
    """The shortest pattern that, repeated, gives the order; the last may be a part of it."""
    total = len(order)
    period = next(
        p for p in range(1, total + 1) if all(order[i] == order[i % p] for i in range(total))
    )
    entries = _runs(order[:period])
    if total % period == 0:
        return {"repeat": total // period, "pattern": entries}
    return {"layers": total, "pattern": entries, "remainder": "truncate"}


def _runs(order: Sequence[str]) -> list[str]:
    runs = [(name, len(list(group))) for name, group in groupby(order)]
    return [name if count == 1 else f"{name}*{count}" for name, count in runs]


def _titles(block: str, cases: Sequence[tuple[Any, ...]], index: Index) -> list[str]:
    titles = ["_".join(str(value) for value in case if isinstance(value, str)) for case in cases]
    usable = all(title.isidentifier() and not index.named(title) for title in titles)
    if usable and len(set(titles)) == len(titles):
        return titles
    return [f"{block}_{letter}" for letter in map(_letters, range(len(cases)))]


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ...: a registered name may not end in a number."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text
