"""A foreign folder -> our model and the recipe it was built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import InputError
from builder.index import Index, load_index
from hf_bridge.errors import ConfigError
from hf_bridge.family import Family
from hf_bridge.family_files import family_names, load_family
from hf_bridge.folder import Folder, common_dtype, open_folder
from hf_bridge.normalise import Fields, depth_of, normalise
from hf_bridge.read_hf import Tables, check_amount, check_weights, load_weights
from hf_bridge.scope import Key, Scope
from hf_bridge.substitute import recipe_text
from hf_bridge.weights import other_rows, table

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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
    hub: bool = False,
    config: str | Path | None = None,
) -> tuple[Model, Recipe]:
    """Our model with a folder's weights, and its recipe.

    ``family`` is a family's name or a file; without it ``config.json`` says.  ``dtype`` defaults to
    what most of the weights are in.  ``drop`` names config fields to do without.  With ``hub`` the
    folder is a name on the hub, ``owner/name``: only then is anything downloaded.  A checkpoint in
    one file needs its ``family``, and, if it does not say how its model was built, a ``config``.
    """
    return from_folder(opened(folder, hub, family, config), family, dtype, drop)


def opened(
    place: str | Path,
    hub: bool = False,
    family: str | Path | None = None,
    config: str | Path | None = None,
) -> Folder:
    """A folder here, with ``hub`` the one of that name there, or a checkpoint as a folder."""
    if hub:
        from hf_bridge.hub import open_hub

        return open_hub(str(place))
    if not Path(place).is_file():
        return open_folder(place)
    if family is None:
        message = f"{place} is a file of weights, and does not say which names they have"
        raise InputError("checkpoint-family", message, "give its family: --family NAME|FILE")
    from hf_bridge.checkpoints import open_checkpoint

    told = None if config is None else Path(config)
    return open_checkpoint(Path(place), load_family(family).model_type, told)


def from_folder(
    folder: Folder,
    family: str | Path | None = None,
    dtype: torch.dtype | None = None,
    drop: Iterable[str] = (),
) -> tuple[Model, Recipe]:
    """The same of a folder that is open."""
    from builder import load_recipe

    imported = import_config(folder.config, family, folder.name, drop=drop)
    recipe = load_recipe(imported.text)
    return load_model(recipe, folder, imported, dtype), recipe


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


def load_model(
    recipe: Recipe, folder: Folder, imported: Imported, dtype: torch.dtype | None = None
) -> Model:
    """The recipe's model with every weight of the folder; none is drawn first."""
    import torch

    from builder import build
    from builder.initial import materialise

    try:
        model = build(recipe, device="meta")
    except RuntimeError as error:
        message = f"config.json asks for a tensor that cannot be: {error}"
        raise ConfigError("config-value", message) from None
    check_amount(folder, model)
    found = tables(model, imported)
    names = check_weights(folder, imported.family, found)
    kept = dtype or common_dtype(folder.tensors.values())
    materialise(model, lambda _, parameter: torch.empty(parameter.shape, dtype=kept))
    load_weights(folder, names, replace(found, ours=every_name(model)))
    return model.eval()


def every_name(model: Model) -> dict[str, Tensor]:
    return dict(model.named_parameters(remove_duplicate=False))


def tables(model: Model, imported: Imported) -> Tables:
    """Where every tensor of a folder goes."""
    once = dict(model.named_parameters())
    every = every_name(model)
    told = imported.family, imported.scope, model.recipe.graph
    rows, again = table(*told, once), table(*told, every)
    others = other_rows(*told, every)
    first = {name for layout in (*rows.values(),) for name in layout.names()}
    return Tables(
        every,
        len(model.recipe.graph.layers),
        rows,
        {theirs: layout for theirs, layout in others.items() if first.issuperset(layout.names())},
        {
            theirs: layout
            for theirs, layout in (again | others).items()
            if theirs not in rows and not first.issuperset(layout.names())
        },
    )
