"""What a family file's author wants to know, given a folder of that family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.index import load_index
from hf_bridge.exporting import Fit, fit_family
from hf_bridge.family import load_family
from hf_bridge.folder import open_folder
from hf_bridge.importing import import_with, load_model
from hf_bridge.weights import matching, table
from hf_bridge.write_hf import logits_gap


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

    family, folder, index = load_family(file), open_folder(path), load_index()
    yield Outcome(
        "file", True, f"{len(family.config)} fields, every one in the recipe or in a default"
    )
    imported = import_with(family, folder.config, "checked", index)
    ignored = sorted(set(folder.config) & family.ignore.keys())
    yield Outcome("config", True, f"every field read or ignored; ignored: {', '.join(ignored)}")
    recipe = load_recipe(imported.text)
    model = load_model(recipe, folder, imported)
    ignored_tensors = sum(
        matching(name, family.ignore_weights, imported.scope.layers) is not None
        for name in folder.tensors
    )
    yield Outcome("tensors", True, f"{len(folder.tensors)} in the file, {ignored_tensors} ignored")
    fit = fit_family(recipe.graph, family, index)
    if isinstance(fit, Fit):
        yield Outcome("the way back", True, "export gives a config that imports as the same graph")
        ours = dict(model.named_parameters())
        rows = table(family, fit.imported.scope, recipe.graph, ours)
        extra = rows.keys() ^ folder.tensors.keys()
        yield Outcome(
            "names", True, f"written and read alike but for: {', '.join(sorted(extra)) or 'none'}"
        )
    else:
        yield Outcome("family-not-invertible", False, str(fit))
    gap, allowed = logits_gap(model, path)
    yield Outcome(
        "logits",
        gap <= allowed,
        f"differ from the library's by {gap:.1e}, of {allowed:.1e} allowed",
    )
