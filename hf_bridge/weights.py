"""The table of tensors: ``theirs: layout(ours)``.  Export evaluates a layout, import inverts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from builder.graph import Graph, Leaf, leaves
from hf_bridge.errors import FamilyError
from hf_bridge.family import Family
from hf_bridge.layouts import Expert, Layout, Names, paired
from hf_bridge.scope import Scope
from hf_bridge.template import ABSENT, Selection

if TYPE_CHECKING:
    from torch import Tensor

Unit: TypeAlias = "tuple[str, int | None]"  # a tensor of ours, or one expert's part of it


def table(
    family: Family, scope: Scope, graph: Graph, ours: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """Every tensor of theirs that this model has, by name, with its layout.

    Each of ours is held once.
    """
    rows = present_rows(family, scope, graph, ours)
    held: dict[Unit, str] = {}
    for theirs, layout in rows.items():
        for unit in units(layout, ours):
            if unit in held:
                message = f"{family.file}: {theirs} holds {unit[0]}, as {held[unit]} does"
                raise FamilyError("family-row", message)
            held[unit] = theirs
    if missing := unheld(rows, ours):
        raise FamilyError("family-row", f"{family.file}: no row holds our {missing[0]}")
    return rows


def present_rows(
    family: Family, scope: Scope, graph: Graph, ours: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """The rows of the table that this model has, whether or not they are all that it needs."""
    return _present(family, family.weights, scope, graph, ours)


def unheld(rows: Mapping[str, Layout], ours: Mapping[str, Tensor]) -> list[str]:
    """Those of ours that no row holds."""
    return sorted(ours.keys() - {name for layout in rows.values() for name in layout.names()})


def other_rows(
    family: Family, scope: Scope, graph: Graph, ours: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """Other tensors of theirs that hold what the table's hold: read, never written."""
    return _present(family, family.also_read, scope, graph, ours)


def units(layout: Layout, ours: Mapping[str, Tensor]) -> list[Unit]:
    """What of ours a tensor of theirs holds, experts apart."""
    if isinstance(layout, Expert):
        return [(name, layout.index) for name in layout.names()]
    names = Names(ours)
    counts = {name: names.experts(name) for name in layout.names()}
    return [
        (name, e)
        for name, count in counts.items()
        for e in ([None] if count is None else range(count))
    ]


def _present(
    family: Family,
    written: Mapping[str, Any],
    scope: Scope,
    graph: Graph,
    ours: Mapping[str, Tensor],
) -> dict[str, Layout]:
    """The rows whose tensors of ours this model has; ``#`` is every expert in turn."""
    sizes = {leaf.name: _sizes(leaf) for leaf in leaves(graph)}
    rows: dict[str, Layout] = {}
    for theirs, layout in _rows(family, written, scope, Names(ours, sizes)):
        present = [name in ours for name in layout.names()]
        if not all(present):
            if any(present):
                message = f"{theirs} holds {layout.names()}, of which the model has only some"
                raise FamilyError("family-row", f"{family.file}: {message}")
            continue
        for name, one in _experts(family, theirs, layout, ours):
            if name in rows:
                raise FamilyError("family-row", f"{family.file}: two rows are called {name}")
            rows[name] = one
    return rows


def _sizes(leaf: Leaf) -> dict[str, Any]:
    """The sizes of a leaf, and of a leaf that it holds, such as an expert."""
    held = (value for _, value in leaf.options if isinstance(value, Leaf))
    return {name: size for one in (*held, leaf) for name, size in one.options}


def _experts(
    family: Family, theirs: str, layout: Layout, ours: Mapping[str, Tensor]
) -> Iterator[tuple[str, Layout]]:
    if "#" not in theirs:
        yield theirs, layout
        return
    counts = {Names(ours).experts(name) for name in layout.names()}
    count = counts.pop() if len(counts) == 1 else None
    if count is None:
        message = f"{theirs} is one of several experts, and {layout.names()} no stack of them"
        raise FamilyError("family-row", f"{family.file}: {message}")
    for index in range(count):
        yield theirs.replace("#", str(index)), Expert(layout, index)


def _rows(
    family: Family, rows: Mapping[str, Any], scope: Scope, names: Names
) -> Iterator[tuple[str, Layout]]:
    """The written rows, with their groups paired off and their layers counted."""
    for theirs, written in rows.items():
        if not isinstance(written, Mapping):
            yield from _row(family, theirs, written, scope, names)
            continue
        for layer in range(scope.layers):
            below = Scope(scope.fields, scope.layers, layer)
            inside = replace(names, prefix=f"layers.{layer}.")
            for tail, one in written.items():
                name = f"{theirs.replace('*', str(layer))}.{tail}"
                yield from _row(family, name, one, below, inside)


def _row(
    family: Family, theirs: str, written: Any, scope: Scope, names: Names
) -> Iterator[tuple[str, Layout]]:
    ours = scope.choose(written) if isinstance(written, Selection) else written
    if ours == ABSENT:
        return
    try:
        for left, right in paired(theirs, str(ours)):
            yield left, replace(names, apart="#" in left).read(right)
    except ValueError as error:
        raise FamilyError("family-row", f"{family.file}: the row {theirs}: {error}") from None


def matching(name: str, patterns: Mapping[str, str], layers: int = 0) -> str | None:
    """The reason of the first pattern that a name matches.

    ``*`` is one word, ``**`` at the end one or more, ``>`` the number of a layer past the last.
    """
    words = name.split(".")
    for pattern, reason in patterns.items():
        parts = pattern.split(".")
        if parts[-1] == "**" and len(words) >= len(parts):
            parts[-1:] = ["*"] * (len(words) - len(parts) + 1)
        if len(parts) == len(words) and all(
            word.isdecimal() and int(word) >= layers if part == ">" else fnmatchcase(word, part)
            for word, part in zip(words, parts, strict=True)
        ):
            return reason
    return None


def first_word(family: Family) -> str:
    """What the names of a whole model begin with, and those of its body saved alone do not."""
    return next((name.split(".")[0] for name in family.weights if name.endswith("*")), "")
