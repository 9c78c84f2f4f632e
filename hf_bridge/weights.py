"""The table of tensors: ``theirs: layout(ours)``.  Export evaluates a layout, import inverts it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from builder.graph import Graph, leaves
from hf_bridge.errors import FamilyError
from hf_bridge.family import Family
from hf_bridge.scope import Scope
from hf_bridge.template import ABSENT, Selection

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Layout(Protocol):
    """How one tensor of theirs holds tensors of ours."""

    def names(self) -> tuple[str, ...]: ...

    def theirs(self, ours: Mapping[str, Tensor]) -> Tensor: ...

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts, given tensors of the parts' shapes."""
        ...


@dataclass(frozen=True)
class Same:
    """The tensor itself."""

    name: str

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        return ours[self.name]

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.name: theirs}


@dataclass(frozen=True)
class Transpose:
    """The last two dims swapped; a vector stays as it is."""

    inner: Layout

    def names(self) -> tuple[str, ...]:
        return self.inner.names()

    def theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        return swapped(self.inner.theirs(ours))

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.ours(swapped(theirs), like)


@dataclass(frozen=True)
class Deal:
    """Each part cut into ``runs`` equal runs of output rows, dealt in turn; one run is
    concatenation.
    """

    runs: int
    parts: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        return self.parts

    def theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        import torch

        cut = [ours[part].chunk(self.runs) for part in self.parts]
        return torch.cat([piece[i] for i in range(self.runs) for piece in cut])

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        rows = [like[part].shape[0] // self.runs for part in self.parts]
        pieces = torch.split(theirs, rows * self.runs)
        return {part: torch.cat(pieces[i :: len(rows)]) for i, part in enumerate(self.parts)}


def swapped(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2) if tensor.dim() > 1 else tensor


def table(
    family: Family, scope: Scope, graph: Graph, ours: Mapping[str, Tensor]
) -> dict[str, Layout]:
    """Every tensor of theirs that this model has, by name, with its layout."""
    sizes = {leaf.name: dict(leaf.options) for leaf in leaves(graph)}
    rows: dict[str, Layout] = {}
    for theirs, layout in _rows(family, scope, sizes):
        present = [name in ours for name in layout.names()]
        if all(present):
            rows[theirs] = layout
        elif any(present):
            raise FamilyError(
                "family-row",
                f"{family.file}: {theirs} holds {layout.names()}, of which the model has only some",
            )
    if missing := sorted(
        ours.keys() - {name for layout in rows.values() for name in layout.names()}
    ):
        raise FamilyError("family-row", f"{family.file}: no row holds our {missing[0]}")
    return rows


def _rows(
    family: Family, scope: Scope, sizes: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Layout]]:
    """The written rows, with their groups paired off and their layers counted."""
    for theirs, written in family.weights.items():
        if not isinstance(written, Mapping):
            yield from _row(family, theirs, written, scope, "", sizes)
            continue
        for layer in range(scope.layers):
            below = Scope(scope.fields, scope.layers, layer)
            for tail, one in written.items():
                name = f"{theirs.replace('*', str(layer))}.{tail}"
                yield from _row(family, name, one, below, f"layers.{layer}.", sizes)


def _row(
    family: Family,
    theirs: str,
    written: Any,
    scope: Scope,
    prefix: str,
    sizes: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, Layout]]:
    ours = scope.choose(written) if isinstance(written, Selection) else written
    if ours == ABSENT:
        return
    try:
        for left, right in paired(theirs, str(ours)):
            yield left, read_layout(right, prefix, sizes)
    except ValueError as error:
        raise FamilyError("family-row", f"{family.file}: the row {theirs}: {error}") from None


def paired(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """``x.{a,b}: y.{c,d}`` is ``x.a: y.c`` and ``x.b: y.d``."""
    left, right = re.search(r"\{([^{}]*)\}", theirs), re.search(r"\{([^{}]*)\}", ours)
    if left is None and right is None:
        yield theirs, ours
        return
    if left is None or right is None or left[1].count(",") != right[1].count(","):
        raise ValueError("its groups do not pair off")
    for a, b in zip(left[1].split(","), right[1].split(","), strict=True):
        yield from paired(theirs.replace(left[0], a, 1), ours.replace(right[0], b, 1))


def read_layout(text: str, prefix: str, sizes: Mapping[str, Mapping[str, Any]]) -> Layout:
    """The layout that a row's right side says."""
    call = re.fullmatch(r"(\w+)\((.*)\)", text.strip())
    if call is None:
        return Same(prefix + text.strip())
    match call[1], call[2]:
        case "transpose", inner:
            return Transpose(read_layout(inner, prefix, sizes))
        case "concat", inner:
            return Deal(1, _parts(inner, prefix))
        case "deal", inner:
            count, _, rest = inner.partition(",")
            parts = _parts(rest, prefix)
            runs = int(count) if count.isdigit() else sizes[parts[0].rsplit(".", 2)[0]][count]
            return Deal(int(runs), parts)
    raise ValueError(f"{call[1]!r} is not a layout")


def _parts(text: str, prefix: str) -> tuple[str, ...]:
    """``attention.[q,k].weight`` is two names."""
    names: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        if group := re.search(r"\[([^\]]*)\]", item):
            names += [item.replace(group[0], one).strip() for one in group[1].split(",")]
        else:
            names.append(item.strip())
    return tuple(prefix + name for name in names)


def matching(name: str, patterns: Mapping[str, str]) -> str | None:
    """The reason of the first pattern that a name matches; ``*`` is one word."""
    words = name.split(".")
    for pattern, reason in patterns.items():
        parts = pattern.split(".")
        if len(parts) == len(words) and all(map(fnmatchcase, words, parts)):
            return reason
    return None


def first_word(family: Family) -> str:
    """What the names of a whole model begin with, and those of its body saved alone do not."""
    return next((name.split(".")[0] for name in family.weights if name.endswith("*")), "")


def shapes(tensors: Mapping[str, Tensor], layout: Layout) -> torch.Size:
    """The shape of theirs, found without any numbers."""
    return layout.theirs({n: tensors[n].to("meta") for n in layout.names()}).shape
