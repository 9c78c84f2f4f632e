"""What a family file's author wants to know, given a folder of that family: all of it at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import BuilderError
from builder.index import load_index
from hf_bridge.exporting import Fit, fit_family
from hf_bridge.family import Family
from hf_bridge.family_files import load_family
from hf_bridge.folder import Folder, open_folder
from hf_bridge.importing import Imported, import_with, load_model
from hf_bridge.normalise import unknown_fields
from hf_bridge.read_hf import full_names
from hf_bridge.weights import other_rows, present_rows, unheld
from hf_bridge.write_hf import logits_gap

if TYPE_CHECKING:
    from builder.recipe import Recipe


@dataclass(frozen=True)
class Outcome:
    """One thing that was looked at, and whether it is as it should be."""

    subject: str
    ok: bool
    found: str


def check_family(file: str | Path, path: Path) -> Iterator[Outcome]:
    """Look at everything in turn, until something stands in the way of the rest."""
    try:
        yield from _outcomes(file, path)
    except BuilderError as error:
        yield Outcome(error.code, False, f"{error.message}. {error.help}".rstrip(". "))


def _outcomes(file: str | Path, path: Path) -> Iterator[Outcome]:
    from builder import load_recipe

    family, folder = load_family(file), open_folder(path)
    yield Outcome("file", True, f"{len(family.config)} fields, each of them read by something")
    unknown = unknown_fields(family, folder.config)
    yield _of_the_config(family, folder, unknown)
    imported = import_with(family, folder.config, "checked", load_index(), unknown)
    recipe = load_recipe(imported.text)
    yield Outcome("recipe", True, f"{len(imported.text.splitlines())} lines, which our blocks take")
    yield _of_the_way_back(family, recipe)
    tensors = list(_of_the_tensors(family, folder, recipe, imported))
    yield from tensors
    if all(outcome.ok for outcome in tensors):
        gap, allowed = logits_gap(load_model(recipe, folder, imported), path)
        found = f"differ from the library's by {gap:.1e}, of {allowed:.1e} allowed"
        yield Outcome("logits", gap <= allowed, found)


def _of_the_config(family: Family, folder: Folder, unknown: list[str]) -> Outcome:
    """Fields that nothing reads; else those that are ignored, and those left to their defaults."""
    if unknown:
        found = f"{_all(unknown)}: read by nothing; give each a row in config, or one in ignore"
        return Outcome("config", False, f"{found} with the reason")
    ignored = sorted(folder.config.keys() & family.ignore.keys())
    bare = sorted(name for name in family.config if name.split(".")[0] not in folder.config)
    found = f"every field is read or ignored; ignored: {_all(ignored)}; not in it: {_all(bare)}"
    return Outcome("config", True, found)


def _of_the_way_back(family: Family, recipe: Recipe) -> Outcome:
    fit = fit_family(recipe.graph, family, load_index())
    if isinstance(fit, Fit):
        return Outcome("the way back", True, "export gives a config that imports as the same graph")
    return Outcome("family-not-invertible", False, str(fit))


def _of_the_tensors(
    family: Family, folder: Folder, recipe: Recipe, imported: Imported
) -> Iterator[Outcome]:
    """Those of ours that no row holds; those of theirs that no row names, or that are not there."""
    from builder import build

    model = build(recipe, device="meta")
    once = dict(model.named_parameters())
    every = dict(model.named_parameters(remove_duplicate=False))
    told = family, imported.scope, recipe.graph
    rows = present_rows(*told, once)
    others = {**present_rows(*told, every), **other_rows(*told, every)}
    names = full_names(folder, family, imported.scope.layers, rows.keys() | others.keys())
    again = {part for name in others.keys() & names.keys() for part in others[name].names()}
    absent = [
        name for name in rows if name not in names and not again.issuperset(rows[name].names())
    ]
    sides = (
        ("our tensors", unheld(rows, once), "held by a row", "held by no row"),
        ("their tensors", names.keys() - rows.keys() - others.keys(), "in a row", "in no row"),
        ("rows", absent, "in the folder", "not in the folder"),
    )
    for subject, wrong, right, why in sides:
        found = f"{why}: {_all(_by_layer(wrong))}" if wrong else f"each is {right}"
        yield Outcome(subject, not wrong, found)


def _by_layer(names: Iterable[str]) -> list[str]:
    """Names with ``*`` for the numbers in them, each once."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})


def _all(names: Collection[str]) -> str:
    return ", ".join(names) or "none"
