"""The tensors of a foreign folder -> our parameters, one at a time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_bridge.errors import WeightsError
from hf_bridge.family import Family
from hf_bridge.folder import FLOATS, Folder, Held
from hf_bridge.layouts import Constant, Layout, shape_of
from hf_bridge.weights import Unit, first_word, matching, units

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Tables:
    """Where the tensors of a folder go.

    ``ours`` are the model's by every name that they have.  ``rows`` hold each of them once;
    ``others``, if the folder has them, instead of rows; ``again`` are names for what a row holds
    already, such as a tied head: read only to be compared.
    """

    ours: Mapping[str, Tensor]
    layers: int
    rows: Mapping[str, Layout]
    others: Mapping[str, Layout]
    again: Mapping[str, Layout]

    @property
    def places(self) -> dict[str, Layout]:
        return {**self.rows, **self.others, **self.again}


def check_amount(folder: Folder, model: nn.Module) -> None:
    """Before anything is counted out: sizes that the files are nowhere near."""
    asked = sum(parameter.numel() for parameter in model.parameters())
    held = sum(math.prod(one.shape) for one in folder.tensors.values())
    if asked > 2 * held + 1_000_000:
        message = f"{folder.path} holds {held:,} numbers, and config.json asks for {asked:,}"
        raise WeightsError("weights-missing", message)


def check_weights(folder: Folder, family: Family, tables: Tables) -> dict[str, str]:
    """Each name of the tables -> its name in the files, of which every header fits: each of ours
    and each of theirs is used once.  Nothing is allocated.
    """
    names = full_names(folder, family, tables.layers, tables.places.keys())
    if unused := sorted(names.keys() - tables.places.keys()):
        shown = listed([names[name] for name in unused])
        path = folder.tensors[names[unused[0]]].path
        message = f"{path} holds {shown}, which {family.file} has no place for"
        raise WeightsError("weights-unused", message)
    _check_once(folder, tables, names)
    for theirs, layout in tables.places.items():
        if theirs in names:
            _check_header(theirs, folder.tensors[names[theirs]], layout, tables.ours)
    return names


def load_weights(folder: Folder, names: Mapping[str, str], tables: Tables) -> None:
    """Every tensor of the folder into its place: no more than one is held beside the model."""
    import torch

    by_file: dict[Path, list[str]] = {}
    for theirs in (name for name in tables.places if name in names):
        by_file.setdefault(folder.tensors[names[theirs]].path, []).append(theirs)
    with torch.no_grad():
        for again in (False, True):  # what is compared comes after what it is compared to
            for path, wanted in by_file.items():
                with folder.reader(path) as file:
                    for theirs in (t for t in wanted if again is (t in tables.again)):
                        put = _compare if again else _place
                        tensor = file.get_tensor(names[theirs])
                        put(theirs, tensor, tables.places[theirs], tables.ours, path)


def full_names(
    folder: Folder, family: Family, layers: int, known: Collection[str]
) -> dict[str, str]:
    """Names as the family writes them -> those in the files, which may lack the common first word;
    without what the family ignores.
    """
    word = first_word(family)
    bare = word and not any(name.startswith(f"{word}.") for name in folder.tensors)
    names = {}
    for written in folder.tensors:
        full = f"{word}.{written}" if bare and written not in known else written
        if (reason := matching(full, family.refuse_weights, layers)) is not None:
            message = f"{folder.tensors[written].path}: {written} cannot be read: {reason}"
            raise WeightsError("weights-refused", message)
        if matching(full, family.ignore_weights, layers) is None:
            names[full] = written
    return names


def _check_once(folder: Folder, tables: Tables, names: Mapping[str, str]) -> None:
    """Nothing of ours is left empty, and nothing is filled twice."""
    filled: dict[Unit, str] = {}
    for theirs, layout in (*tables.rows.items(), *tables.others.items()):
        for unit in units(layout, tables.ours) if theirs in names else ():
            if unit in filled:
                message = f"{folder.path} holds {names[theirs]} and {names[filled[unit]]}"
                raise WeightsError("weights-unused", f"{message}, which are one thing")
            filled[unit] = theirs
    missing = [
        theirs
        for theirs, layout in tables.rows.items()
        if theirs not in names and not all(unit in filled for unit in units(layout, tables.ours))
    ]
    if missing:
        raise WeightsError("weights-missing", f"{folder.path} does not hold {listed(missing)}")


def listed(names: list[str]) -> str:
    """A few of them, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _check_header(theirs: str, held: Held, layout: Layout, ours: Mapping[str, Tensor]) -> None:
    if held.dtype not in FLOATS:
        known = ", ".join(FLOATS)
        message = f"{held.path}: {theirs} is of dtype {held.dtype}, which is none of {known}"
        raise WeightsError("weights-dtype", message)
    if (expected := tuple(shape_of(layout, ours))) != held.shape:
        message = f"{held.path}: {theirs} is {held.shape}, and config.json asks for {expected}"
        raise WeightsError("weights-shape", message)


def _place(
    theirs: str, tensor: Tensor, layout: Layout, ours: Mapping[str, Tensor], path: Path
) -> None:
    if isinstance(layout, Constant) and tensor != layout.theirs({}).to(tensor.dtype):
        message = f"{path}: {theirs} is {tensor.item()}, where our blocks have {layout.value}"
        raise WeightsError("weights-refused", message)
    places = layout.parts(ours)
    for name, part in layout.ours(tensor, places).items():
        _check_numbers(theirs, part, places[name], path)
        places[name].copy_(part)


def _check_numbers(theirs: str, part: Tensor, place: Tensor, path: Path) -> None:
    """What is no number, or becomes none in the dtype that it is read into, is refused."""
    import torch

    if not part.numel():
        return
    low, high = (bound.double() for bound in part.aminmax())
    if low.isnan():
        raise WeightsError("weights-numbers", f"{path}: {theirs} holds NaN")
    largest = max(-low, high)
    if largest.isfinite() and largest > torch.finfo(place.dtype).max:
        message = f"{path}: {theirs} holds {largest:.3g}, too large for {place.dtype}"
        raise WeightsError("weights-numbers", message, "a wider --dtype holds it")


def _compare(
    theirs: str, tensor: Tensor, layout: Layout, ours: Mapping[str, Tensor], path: Path
) -> None:
    expected = layout.theirs(layout.parts(ours))
    if not bool((tensor.to(expected.dtype) == expected).all()):
        message = f"{path}: {theirs} differs from the weight that config.json ties it to"
        raise WeightsError("tied-differs", message)
