"""How one tensor of theirs holds tensors of ours: evaluated on export, inverted on import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Layout:
    """One tensor of theirs, as a function of tensors of ours."""

    def names(self) -> tuple[str, ...]:
        """The tensors of ours that it holds."""
        raise NotImplementedError

    def parts(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Views of what it holds of them."""
        return {name: ours[name] for name in self.names()}

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts, given tensors of the parts' shapes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Same(Layout):
    """The tensor itself."""

    name: str

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts[self.name]

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.name: theirs}


@dataclass(frozen=True)
class Transpose(Layout):
    """The last two dims swapped; a vector, or a stack of vectors, stays as it is."""

    inner: Layout
    stacked: bool = False

    def names(self) -> tuple[str, ...]:
        return self.inner.names()

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        return self._swapped(self.inner.theirs(parts))

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.ours(self._swapped(theirs), like)

    def _swapped(self, tensor: Tensor) -> Tensor:
        return tensor.transpose(-1, -2) if tensor.dim() > 1 + self.stacked else tensor


@dataclass(frozen=True)
class Deal(Layout):
    """Each part cut into ``runs`` equal runs of output rows, dealt in turn; one run is
    concatenation.  Output rows are dim 0, and dim 1 of stacked experts.
    """

    runs: int
    held: tuple[str, ...]
    dim: int = 0

    def names(self) -> tuple[str, ...]:
        return self.held

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        import torch

        cut = [parts[name].chunk(self.runs, self.dim) for name in self.held]
        return torch.cat([piece[i] for i in range(self.runs) for piece in cut], self.dim)

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        rows = [like[name].shape[self.dim] // self.runs for name in self.held]
        pieces = torch.split(theirs, rows * self.runs, self.dim)
        return {
            name: torch.cat(pieces[i :: len(rows)], self.dim) for i, name in enumerate(self.held)
        }


@dataclass(frozen=True)
class Flat(Layout):
    """The experts' dim and the next one merged: all experts in one matrix."""

    inner: Layout

    def names(self) -> tuple[str, ...]:
        return self.inner.names()

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        return self.inner.theirs(parts).flatten(0, 1)

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        experts = like[self.names()[0]].shape[0]
        return self.inner.ours(theirs.reshape(experts, -1, *theirs.shape[1:]), like)


@dataclass(frozen=True)
class Expert(Layout):
    """One expert of a stack: the ``index``-th of dim 0."""

    inner: Layout
    index: int

    def names(self) -> tuple[str, ...]:
        return self.inner.names()

    def parts(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: ours[name][self.index] for name in self.names()}

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        return self.inner.theirs(parts)

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.ours(theirs, like)


@dataclass(frozen=True)
class Constant(Layout):
    """A number that their class keeps among its tensors and our blocks among their options."""

    value: float

    def names(self) -> tuple[str, ...]:
        return ()

    def theirs(self, parts: Mapping[str, Tensor]) -> Tensor:
        import torch

        return torch.tensor(self.value, dtype=torch.float64)

    def ours(self, theirs: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}


def shape_of(layout: Layout, ours: Mapping[str, Tensor]) -> torch.Size:
    """The shape of theirs, found without any numbers."""
    return layout.theirs({n: t.to("meta") for n, t in layout.parts(ours).items()}).shape


@dataclass(frozen=True)
class Names:
    """What the right side of a row may speak of: tensors of ours, those of one layer below
    ``prefix``, and the sizes of the leaves that they belong to.
    """

    ours: Mapping[str, Tensor]
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prefix: str = ""
    apart: bool = False  # one expert at a time

    def read(self, text: str) -> Layout:
        """The layout that a row's right side says."""
        call = re.fullmatch(r"(\w+)\((.*)\)", text.strip())
        if call is None:
            return Same(self.prefix + text.strip())
        match call[1], call[2]:
            case "transpose", inner:
                layout = self.read(inner)
                return Transpose(layout, self._stacked(layout))
            case "flat", inner:
                return Flat(self.read(inner))
            case "concat", inner:
                return self._deal("1", inner)
            case "deal", inner:
                count, _, rest = inner.partition(",")
                return self._deal(count.strip(), rest)
            case "constant", number:
                return Constant(float(number))
        raise ValueError(f"{call[1]!r} is not a layout")

    def experts(self, name: str) -> int | None:
        """How many experts a tensor of ours is a stack of."""
        tensor = self.ours.get(name)
        return len(tensor) if tensor is not None and getattr(tensor, "stacked", False) else None

    def _stacked(self, layout: Layout) -> bool:
        return not isinstance(layout, Flat) and self._rows_at(layout.names()[0]) == 1

    def _deal(self, count: str, text: str) -> Deal:
        held = self._names(text)
        runs = int(count) if count.isdigit() else self._size(count, held[0])
        return Deal(runs, held, self._rows_at(held[0]))

    def _rows_at(self, name: str) -> int:
        """The dim of a tensor's output rows."""
        return 0 if self.apart or self.experts(name) is None else 1

    def _names(self, text: str) -> tuple[str, ...]:
        """``attention.[q,k].weight`` is two names."""
        names: list[str] = []
        for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
            if group := re.search(r"\[([^\]]*)\]", item):
                names += [item.replace(group[0], one).strip() for one in group[1].split(",")]
            else:
                names.append(item.strip())
        return tuple(self.prefix + name for name in names)

    def _size(self, size: str, name: str) -> int:
        """A size of the leaf that the tensor belongs to, or of the one that holds that leaf."""
        if name not in self.ours:
            return 1  # the row will be left out
        words = name.split(".")
        for cut in range(len(words) - 1, 0, -1):
            found = self.sizes.get(".".join(words[:cut]), {}).get(size)
            if isinstance(found, int):
                return found
        raise ValueError(f"what holds {name} has no size {size!r}")


def paired(theirs: str, ours: str) -> list[tuple[str, str]]:
    """``x.{a,b}: y.{c,d}`` is ``x.a: y.c`` and ``x.b: y.d``."""
    left, right = re.search(r"\{([^{}]*)\}", theirs), re.search(r"\{([^{}]*)\}", ours)
    if left is None and right is None:
        return [(theirs, ours)]
    if left is None or right is None or left[1].count(",") != right[1].count(","):
        raise ValueError("its groups do not pair off")
    pairs = zip(left[1].split(","), right[1].split(","), strict=True)
    return [
        pair
        for a, b in pairs
        for pair in paired(theirs.replace(left[0], a, 1), ours.replace(right[0], b, 1))
    ]
