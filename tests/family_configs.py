"""Configs of a family, drawn from its own file: its defaults, its cases, and small sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from hf_bridge.family import Family, selections
from hf_bridge.family_files import load_family
from hf_bridge.normalise import nested, normalise
from hf_bridge.template import ANYTHING, holes

SMALL = {"heads": [2, 4], "kv_heads": [1, 2], "head_dim": [8, 12]}  # such that heads divide widths


@st.composite
def configs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A config at a depth and widths that build fast; a list has an entry for each layer."""
    family = load_family(name)
    fields = normalise(family, {"model_type": family.model_type})
    listed, sizes = listed_values(family), small_sizes(family)
    depth = draw(st.integers(1, 3))
    config: dict[str, Any] = {}
    for field, value in fields.items():
        if field in family.require or is_list(family, field):
            continue
        if field in depths(family):
            config[field] = depth
        elif field in listed:
            config[field] = draw(st.sampled_from([*listed[field], value]))
        elif (drawn := one_like(value, sizes.get(field))) is not None:
            config[field] = draw(drawn)
    for field in filter(lambda field: is_list(family, field), fields):
        entries = entries_of(family, field, fields, listed)
        if entries is not None and draw(st.booleans()):
            config[field] = draw(st.lists(entries, min_size=depth, max_size=depth))
    return {"model_type": family.model_type} | nested(config)


def one_like(value: Any, sizes: list[int] | None) -> st.SearchStrategy[Any] | None:
    """Another number of the kind: what is large stays even, and what is above 1 above it; 0
    switches a rate off, and no more than that.
    """
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.sampled_from(sizes or ([4, 8] if value > 8 else [1, 2, 4]))
        case float():
            return st.sampled_from([value, value * 2] if value > 1 else [value, 0.5, 0.0])
        case []:
            return st.lists(st.sampled_from([1.0, 1.5]), min_size=2, max_size=3)
    return None


def entries_of(
    family: Family, field: str, fields: Mapping[str, Any], listed: Mapping[str, list[Any]]
) -> st.SearchStrategy[Any] | None:
    """What a layer may have in a list; None for a list of something else, such as of layers."""
    if field in listed:
        return st.sampled_from(listed[field])
    value = fields[field]
    indexed = any(hole.path == field and hole.index is not None for hole in holes(family.recipe))
    return one_like(value[0] if isinstance(value, list) else value, None) if indexed else None


def is_list(family: Family, field: str) -> bool:
    default = family.config.get(field)
    told = default is not None and (default.each is not None or default.where is not None)
    indexed = any(hole.path == field and hole.index is not None for hole in holes(family.recipe))
    return told or indexed


def depths(family: Family) -> set[str]:
    """The field that says how many layers there are."""
    nodes = [node for node in family.recipe["model"] if isinstance(node, dict) and "repeat" in node]
    return {hole.path for node in nodes for hole in holes(node["repeat"])}


def listed_values(family: Family) -> dict[str, list[Any]]:
    """The values that cases list, by field."""
    listed: dict[str, list[Any]] = {}
    for selection in selections(family.recipe):
        for position, key in enumerate(selection.keys):
            if key.hole is not None:
                values = [v for case in selection.cases for v in case.values[position]]
                listed.setdefault(key.hole.path, []).extend(v for v in values if v != ANYTHING)
    return listed


def small_sizes(family: Family) -> dict[str, list[int]]:
    """Small sizes for the fields of a family's dims."""
    return {
        field: SMALL.get(dim, [16, 32])
        for dim, template in family.dims.items()
        for field in getattr(template, "fields", ())
    }
