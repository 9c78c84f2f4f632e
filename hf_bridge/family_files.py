"""Family files: found, completed by what they are ``like``, by ``set`` and fragments, and read."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from builder.read import read_file, to_python
from hf_bridge.errors import FamilyError
from hf_bridge.family import MARKERS, Default, Family
from hf_bridge.family_checks import check
from hf_bridge.template import ABSENT, place_below, read_template

FOLDER = Path(__file__).parent / "families"
TABLES = (
    "config",
    "rename",
    "pin",
    "require",
    "ignore",
    "weights",
    "also_read",
    "ignore_weights",
    "refuse_weights",
)
KEYS = {"model_type", "architecture", "like", "set", "recipe", *TABLES}
DEFAULT_FORMS = (
    {"each"},
    {"where"},
    {"default", "absent_if"},
    {"default", None},
    {"default", "absent_if", None},
)


def family_names() -> tuple[str, ...]:
    """The families that come with the bridge, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.yaml")))


def load_family(name: str | Path) -> Family:
    """A family by its name, or from a file."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else _ours(str(name))
    if path.parent == FOLDER and not path.is_file():
        raise FamilyError(
            "family-unknown",
            f"no family is called {str(name)!r}",
            f"families: {_listed()}, or a FILE.yaml",
        )
    return _read(path.resolve())


def _ours(name: str) -> Path:
    """A family of the library's, or one whose checkpoints are read and which no class loads."""
    other = FOLDER / "checkpoints" / f"{name}.yaml"
    return other if other.is_file() else FOLDER / f"{name}.yaml"


@cache
def _read(path: Path) -> Family:
    raw = _completed(path)
    tables: dict[str, Any] = {table: {} for table in TABLES}
    recipe = _expanded(raw["recipe"], path, tables)
    common = _raw(FOLDER / "_common.yaml")
    _merge(tables, common)
    _merge(tables, {table: raw.get(table, {}) for table in TABLES})
    whole = {field: value for field, value in tables["config"].items() if _has_below(field, tables)}
    family = Family(
        file=path.name,
        like=tuple(raw.get("like", ())),
        model_type=raw["model_type"],
        architecture=raw["architecture"],
        config={f: _default(f, v, path) for f, v in tables["config"].items() if f not in whole},
        rename={old: new.removeprefix("$") for old, new in tables["rename"].items()},
        pin=tables["pin"],
        require={field: tuple(values) for field, values in tables["require"].items()},
        ignore=_by_entry(tables["ignore"]),
        nested=frozenset({*_by_entry(common["ignore"]), *MARKERS}),
        whole=whole,
        recipe={key: read_template(value) for key, value in recipe.items()},
        weights=_rows(tables["weights"]),
        also_read=_rows(tables["also_read"]),
        ignore_weights=_by_entry(tables["ignore_weights"]),
        refuse_weights=_by_entry(tables["refuse_weights"]),
    )
    check(family)
    return family


def _listed() -> str:
    return ", ".join(family_names())


def _has_below(field: str, tables: Mapping[str, Any]) -> bool:
    return any(
        other.startswith(f"{field}.") for table in ("config", "require") for other in tables[table]
    )


def _by_entry(table: Mapping[str, list[str]]) -> dict[str, str]:
    return {entry: reason for reason, entries in table.items() for entry in entries}


def _default(field: str, raw: Any, path: Path) -> Default:
    if not isinstance(raw, dict) or raw.keys() == {"by", "cases"}:
        value = read_template(raw)
        return Default(value, value)
    if raw.keys() not in DEFAULT_FORMS:
        raise FamilyError(
            "family-key",
            f"{path.name}: {field} has a default of keys {list(raw)}, which mean nothing",
        )
    value = read_template(raw.get("default"))
    formulas = {
        key: read_template(raw[key], formulas=True)
        for key in ("each", "where", "absent_if")
        if key in raw
    }
    return Default(value, read_template(raw[None]) if None in raw else value, **formulas)


def _rows(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        theirs: _rows(ours) if _is_table(ours) else read_template(ours)
        for theirs, ours in raw.items()
    }


def _raw(path: Path) -> dict[str, Any]:
    raw: dict[str, Any] = to_python(read_file(path, template=True))
    return raw


def _completed(path: Path) -> dict[str, Any]:
    """A file with its ``like`` family's tables, and its ``set`` applied to the recipe."""
    raw = _raw(path)
    if unknown := sorted(map(str, raw.keys() - KEYS)):
        raise FamilyError(
            "family-key",
            f"{path.name} has no meaning for {unknown[0]!r}",
            f"keys: {', '.join(sorted(KEYS))}",
        )
    if "like" in raw:
        base = _completed(_beside(path, f"{raw['like']}.yaml"))
        own = {key: value for key, value in raw.items() if key not in ("like", "set")}
        _merge(base, own)
        base |= {key: own[key] for key in ("model_type", "architecture", "recipe") if key in own}
        like = [*base.get("like", ()), raw["like"]]
        raw = base | {"set": raw.get("set", {}), "like": like}
    for target, value in raw.pop("set", {}).items():
        set_path(raw, target, value, path.name)
    if missing := sorted({"model_type", "architecture", "recipe", "weights"} - raw.keys()):
        raise FamilyError("family-key", f"{path.name} does not say its {missing[0]}")
    return raw


def _beside(path: Path, name: str) -> Path:
    """A file next to this one, else among those that come with the bridge."""
    for folder in (path.parent, FOLDER):
        if (folder / name).is_file():
            return folder / name
    raise FamilyError(
        "family-unknown", f"{path.name} names {name}, which is neither beside it nor among ours"
    )


def _merge(base: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the rows of tables; ``absent`` removes one.  Tables in tables merge too, lists of names
    grow.
    """
    for table in TABLES:
        _merge_rows(base.setdefault(table, {}), more.get(table, {}))


def _merge_rows(base: dict[str, Any], more: Mapping[str, Any], *, nested: bool = True) -> None:
    for key, value in more.items():
        if value == ABSENT:
            base.pop(key, None)
        elif nested and isinstance(value, dict) and key.endswith(("*", ">")) and key in base:
            _merge_rows(base[key], value)
        elif isinstance(value, list) and isinstance(base.get(key), list):
            base[key] = base[key] + [item for item in value if item not in base[key]]
        else:
            base[key] = copy.deepcopy(value)


def _expanded(raw: Any, path: Path, tables: dict[str, Any]) -> Any:
    """The recipe with each ``{use: fragment}`` written out, whose tables join the family's."""
    match raw:
        case {"use": str(name)}:
            at = raw.get("at", "$").removeprefix("$")
            fragment = place_below(_raw(_beside(path, f"_{name}.yaml")), at)
            for target, value in raw.get("set", {}).items():
                set_path(fragment, f"recipe.{target}", value, path.name)
            _merge(tables, fragment)
            return _expanded(fragment["recipe"], path, tables)
        case dict():
            return {key: _expanded(value, path, tables) for key, value in raw.items()}
        case list():
            return [_expanded(value, path, tables) for value in raw]
        case _:
            return raw


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {"by", "cases"}


def set_path(root: dict[str, Any], path: str, value: Any, file: str) -> None:
    """Change what a path names: a row, an option, or the only such word in a block."""
    container: Any = {"": root}
    key: Any = ""
    parts = [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([^".]+)', path)]
    for part in parts[:-1]:
        container, key = _step(container, key, part, path, file)
    here = container[key]
    found = (
        []
        if isinstance(here, dict) and parts[-1] in here
        else list(_nodes(container, key, parts[-1]))
    )
    if len(found) == 1:
        container, key = found[0]
    elif isinstance(here, dict):
        container, key = here, parts[-1]
    else:
        raise FamilyError(
            "family-path", f"{file}: the path {path!r} finds {len(found)} of {parts[-1]!r}, not one"
        )
    if value == ABSENT:
        del container[key]
    elif _is_table(value) and path.startswith("weights"):
        _merge_rows(container.setdefault(key, {}), value)
    else:
        container[key] = copy.deepcopy(value)


def _step(container: Any, key: Any, part: str, path: str, file: str) -> tuple[Any, Any]:
    here = container[key]
    if isinstance(here, dict) and part in here:
        return here, part
    found = list(_nodes(container, key, part))
    if len(found) != 1:
        raise FamilyError(
            "family-path", f"{file}: the path {path!r} finds {len(found)} of {part!r}, not one"
        )
    container, key = found[0]
    if container[key] == part:
        container[key] = {part: {}}
    return container[key], part


def _nodes(container: Any, key: Any, word: str) -> Iterator[tuple[Any, Any]]:
    """Where in the lists and branches below a place the word stands as a node."""
    here = container[key]
    if here == word or (isinstance(here, dict) and word in here):
        yield container, key
    elif isinstance(here, list):
        for index in range(len(here)):
            yield from _nodes(here, index, word)
    elif isinstance(here, dict):
        for branch in (
            "residual",
            "parallel",
            "cases",
            *(here if "by" not in here and len(here) > 1 else ()),
        ):
            if branch in here:
                yield from _nodes(here, branch, word)
