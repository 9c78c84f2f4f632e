"""A foreign folder -> our model and the recipe it was built from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.index import Index, load_index
from hf_bridge.errors import ConfigError
from hf_bridge.family import Family, family_names, load_family
from hf_bridge.normalise import Fields, depth_of, normalise
from hf_bridge.read_hf import Folder, load_weights, open_folder, weights_dtype
from hf_bridge.scope import Key, Scope
from hf_bridge.substitute import recipe_text
from hf_bridge.weights import table

if TYPE_CHECKING:
    import torch

    from builder.model import Model
    from builder.recipe import Recipe


@dataclass(frozen=True)
class Imported:
    """What a config.json means: the family that reads it, its fields, and the recipe page."""

    family: Family
    fields: Fields
    text: str

    @property
    def scope(self) -> Scope:
        fields: dict[Key, Any] = {(field, None): value for field, value in self.fields.items()}
        return Scope(fields, depth_of(self.family, self.fields))


def from_hf(
    folder: str | Path,
    family: str | Path | None = None,
    dtype: torch.dtype | None = None,
    drop: Iterable[str] = (),
) -> tuple[Model, Recipe]:
    """Our model with a folder's weights, and its recipe.

    ``family`` is a family's name or a file; without it ``config.json`` says.  ``dtype`` defaults to
    the file's own.
    ``drop`` names config fields to do without.
    """
    from builder import load_recipe

    opened = open_folder(folder)
    imported = import_config(opened.config, family, name_of(opened.path), drop=drop)
    recipe = load_recipe(imported.text)
    return load_model(recipe, opened, imported, dtype), recipe


def import_config(
    config: dict[str, Any],
    family: str | Path | None = None,
    name: str = "imported",
    index: Index | None = None,
    drop: Iterable[str] = (),
) -> Imported:
    """The recipe page that a config.json means."""
    read = load_family(family) if family is not None else find_family(config)
    return import_with(read, config, name, index or load_index(), drop)


def import_with(
    family: Family, config: dict[str, Any], name: str, index: Index, drop: Iterable[str] = ()
) -> Imported:
    """The same with a family that is read already."""
    fields = normalise(family, config, drop)
    return Imported(family, fields, recipe_text(family, fields, name, index))


def find_family(config: dict[str, Any]) -> Family:
    """The family that a config says it is of."""
    told = config.get("model_type")
    for family in map(load_family, family_names()):
        if family.model_type == told:
            return family
    known = ", ".join(family_names())
    raise ConfigError(
        "config-required",
        f"no family reads model_type {told!r}",
        f"families: {known}, or --family FILE",
    )


def name_of(folder: Path) -> str:
    """A recipe's name, from the folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name) or "imported"


def load_model(
    recipe: Recipe, folder: Folder, imported: Imported, dtype: torch.dtype | None = None
) -> Model:
    """The recipe's model with every weight of the folder; none is drawn first."""
    import torch

    from builder import build
    from builder.initial import materialise

    model, kept = build(recipe, device="meta"), dtype or weights_dtype(folder)
    materialise(model, lambda _, parameter: torch.empty(parameter.shape, dtype=kept))
    ours = dict(model.named_parameters())
    rows = table(imported.family, imported.scope, recipe.graph, ours)
    load_weights(folder, imported.family, rows, ours, aliases(model, imported))
    return model.eval()


def aliases(model: Model, imported: Imported) -> dict[str, str]:
    """Names of theirs that hold again what another row holds: a tied head."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    again = {
        name: first[id(parameter)]
        for name, parameter in every.items()
        if first[id(parameter)] != name
    }
    found = table(imported.family, imported.scope, model.recipe.graph, every)
    return {
        theirs: again[layout.names()[0]]
        for theirs, layout in found.items()
        if len(layout.names()) == 1 and layout.names()[0] in again
    }
