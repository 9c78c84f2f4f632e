"""config.json -> fields: old spellings moved, everything known, defaults filled in.

The file is data and is read by allow-list: a field that no table names is refused, whatever it
says.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

from builder.expressions import ExpressionError
from hf_bridge.errors import ConfigError
from hf_bridge.family import MARKERS, Default, Family, is_other
from hf_bridge.scope import Scope
from hf_bridge.template import Template, holes, same

Fields: TypeAlias = "dict[str, Any]"
MISSING = object()
MAX_LAYERS = 10_000


def normalise(family: Family, config: Mapping[str, Any], drop: Iterable[str] = ()) -> Fields:
    """Every field of the family with its value; normalising what this gives changes nothing."""
    told = copy.deepcopy(dict(config))
    for field in drop:
        _take(told, field)
    _check_class(family, told)
    _rename(family, told)
    _check_required(family, told)
    for field, value in family.whole.items():
        if _get(told, field) in (MISSING, None):
            told[field] = copy.deepcopy(value)
    _check_known(family, told)
    return _filled(family, told)


def unknown_fields(family: Family, config: Mapping[str, Any]) -> list[str]:
    """What a config.json says that no table of the family names."""
    told = copy.deepcopy(dict(config))
    _rename(family, told)
    return _unknown(family, told)


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by path -> the dicts of a config.json; one of nothing but nulls is null itself."""
    config: dict[str, Any] = {}
    for path, value in fields.items():
        *above, last = path.split(".")
        place = config
        for word in above:
            place = place.setdefault(word, {})
        place[last] = value
    return {name: _whole(value) for name, value in config.items()}


def _whole(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        return value
    parts = {name: _whole(part) for name, part in value.items()}
    return None if all(part is None for part in parts.values()) else parts


def _get(config: Mapping[str, Any], path: str) -> Any:
    """What stands at a path; all that is in a null is null itself."""
    place: Any = config
    for word in path.split("."):
        if place is None:
            return None
        if not isinstance(place, dict) or word not in place:
            return MISSING
        place = place[word]
    return place


def _take(config: dict[str, Any], path: str) -> Any:
    *above, last = path.split(".")
    place: Any = _get(config, ".".join(above)) if above else config
    return place.pop(last, MISSING) if isinstance(place, dict) else MISSING


def _put(config: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    place: Any = config
    for word in above:
        if not isinstance(place.get(word), dict):
            place[word] = {}
        place = place[word]
    place[last] = value


def _check_class(family: Family, config: Mapping[str, Any]) -> None:
    if (told := config.get("model_type")) != family.model_type:
        raise ConfigError(
            "config-required",
            f"model_type is {told!r}, and {family.file} reads {family.model_type!r}",
        )
    classes = config.get("architectures") or []
    if classes and family.architecture not in classes:
        raise ConfigError(
            "config-required",
            f"architectures is {classes}, and {family.file} reads {family.architecture!r}",
        )


def _rename(family: Family, config: dict[str, Any]) -> None:
    """Old spellings to new ones, whole dicts before what is in them; two that differ: refused."""
    for _ in range(2):  # a field may move into a dict that itself moves
        for old, new in sorted(family.rename.items(), key=lambda pair: "." in pair[1]):
            if (value := _take(config, old)) in (MISSING, None):
                continue
            present = _get(config, new)
            if isinstance(present, dict) and isinstance(value, dict):
                value = present | value
            elif present not in (MISSING, None) and not same(present, value):
                message = f"{old} is {value!r} and {new} is {present!r}, two spellings of one field"
                raise ConfigError("config-contradiction", message)
            _put(config, new, value)


def _check_required(family: Family, config: Mapping[str, Any]) -> None:
    for field, values in family.require.items():
        told = _get(config, field)
        if told is not MISSING and not any(same(told, value) for value in values):
            allowed = " or ".join(map(repr, values))
            raise ConfigError(
                "config-required", f"{field} is {told!r}; our blocks can follow {allowed} only"
            )


def _unknown(family: Family, config: Mapping[str, Any]) -> list[str]:
    known = {*family.config, *family.pin, *family.require, *family.ignore, *MARKERS}
    parts = [path.split(".") for path in known]
    above = {".".join(words[:n]) for words in parts for n in range(1, len(words))}
    return [
        path
        for path in _paths(config, above)
        if path not in known and not ("." in path and path.split(".")[-1] in family.nested)
    ]


def _check_known(family: Family, config: Mapping[str, Any]) -> None:
    unknown = _unknown(family, config)
    if not unknown:
        return
    near = get_close_matches(unknown[0], [*family.config, *family.require], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    told = ", ".join(f"{path} ({_get(config, path)!r:.40})" for path in unknown)
    drops = " ".join(f"--drop {path}" for path in unknown)
    raise ConfigError(
        "config-unknown", f"{family.file} does not know {told}", f"{hint}to read the rest: {drops}"
    )


def _paths(config: Mapping[str, Any], above: set[str], prefix: str = "") -> Iterable[str]:
    for word, value in config.items():
        path = f"{prefix}{word}"
        if path in above and (isinstance(value, dict) or value is None):
            yield from _paths(value or {}, above, f"{path}.")
        else:
            yield path


def _filled(family: Family, config: Mapping[str, Any]) -> Fields:
    """Values as written, then defaults in the order in which they need each other."""
    fields: Fields = {field: values[0] for field, values in family.require.items()}
    pinned = family.pin.keys() - family.config.keys()
    fields |= {f: family.pin[f] for f in pinned if not is_other(family.pin[f])}
    for field in {**family.config, **family.require, **family.pin}:
        if (told := _get(config, field)) is not MISSING and told is not None:
            fields[field] = told
    waiting = {f: _needed(family, config, f) for f in family.config if f not in fields}
    while waiting:
        ready = [
            f
            for f, template in waiting.items()
            if not {h.path for h in holes(template)} & waiting.keys()
        ]
        assert ready, f"a cycle among the defaults of {sorted(waiting)}, which the loader refuses"
        for field in ready:
            fields[field] = _default_value(waiting.pop(field), fields, family, field)
    for field, pin in family.pin.items():
        if is_other(pin) and (other := pin.removeprefix("$")) in fields:
            fields.setdefault(field, fields[other])
    return _with_absences(family, fields)


def _needed(family: Family, config: Mapping[str, Any], field: str) -> Template | Default:
    default = family.config[field]
    if default.each is not None or default.where is not None:
        return default
    if _get(config, field) is MISSING:
        return default.value
    return None if field in family.nullable else default.null


def _default_value(needed: Any, fields: Fields, family: Family, field: str) -> Any:
    scope = Scope({(f, None): value for f, value in fields.items()}, depth_of(family, fields))
    try:
        if not isinstance(needed, Default):
            return scope.value(needed)
        by_layer = [
            Scope(scope.fields, scope.layers, layer).value(needed.each or needed.where)
            for layer in range(scope.layers)
        ]
    except ExpressionError as error:
        raise ConfigError(
            "config-default", f"{field} cannot be found from the other fields: {error}"
        ) from None
    return by_layer if needed.each is not None else [i for i, there in enumerate(by_layer) if there]


def _with_absences(family: Family, fields: Fields) -> Fields:
    scope = Scope({(f, None): value for f, value in fields.items()}, depth_of(family, fields))
    return fields | {
        field: None
        for field, default in family.config.items()
        if default.absent_if is not None and scope.value(default.absent_if)
    }


def depth_of(family: Family, fields: Mapping[str, Any]) -> int:
    """How many layers the fields give; 0 while they do not say."""
    scope = Scope({(f, None): value for f, value in fields.items()})
    for node in family.recipe["model"]:
        if isinstance(node, dict) and "repeat" in node:
            known = scope.known(node["repeat"])
            return _depth(node["repeat"].text, known[0]) if known else 0
    return 0


def _depth(text: str, depth: Any) -> int:
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= MAX_LAYERS:
        message = (
            f"{text.removeprefix('$')} is {depth!r}, not a number of layers up to {MAX_LAYERS:,}"
        )
        raise ConfigError("config-value", message)
    return depth
