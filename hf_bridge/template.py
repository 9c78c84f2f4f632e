"""A recipe with holes, as values: what a scalar with ``$`` and a ``{by, cases}`` become when a
family is read.

Everything else of a template stays dicts, lists and scalars, as the recipe language has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from builder.expressions import Expression, Hole, parse
from builder.index import Entry, Index
from builder.read import read_value, to_python
from hf_bridge.errors import FamilyError

ANYTHING = "_"
ABSENT = "absent"


@dataclass(frozen=True)
class Formula:
    """A scalar with holes: one hole alone, or an expression of several things."""

    text: str
    tree: Expression

    @property
    def hole(self) -> Hole | None:
        return self.tree if isinstance(self.tree, Hole) else None

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(hole.path for hole in holes(self.tree))


@dataclass(frozen=True)
class Case:
    """One case: for each key its values (the first is the one written), ``_`` for any."""

    values: tuple[tuple[Any, ...], ...]
    node: Template


@dataclass(frozen=True)
class Selection:
    """The only conditional: the case whose values the keys have."""

    keys: tuple[Formula, ...]
    cases: tuple[Case, ...]

    def listed(self, position: int) -> tuple[Any, ...]:
        """Every value of a key that some case lists."""
        return tuple(v for case in self.cases for v in case.values[position] if v != ANYTHING)

    def others(self, position: int) -> tuple[Any, ...]:
        """What ``_`` never stands for: of a single key what is listed, of one of several nothing,
        where the first case that fits is the one.
        """
        return self.listed(position) if len(self.keys) == 1 else ()


Template: TypeAlias = (
    "Formula | Selection | dict[str, Template] | list[Template] | int | float | str | bool | None"
)


def read_template(raw: Any, *, formulas: bool = False) -> Template:
    """The template that a value stands for; with ``formulas`` every string is an expression."""
    match raw:
        case {"by": by, "cases": dict() as cases} if len(raw) == 2:
            keys = tuple(_key(key) for key in (by if isinstance(by, list) else [by]))
            return Selection(
                keys, tuple(_case(word, node, isinstance(by, list)) for word, node in cases.items())
            )
        case dict():
            return {key: read_template(value) for key, value in raw.items()}
        case list():
            return [read_template(value) for value in raw]
        case str() if "$" in raw or formulas:
            return Formula(raw, parse(raw, template=True))
        case _:
            return raw


def _key(text: Any) -> Formula:
    return Formula(str(text), parse(str(text), template=True))


def _case(word: Any, node: Any, listed: bool) -> Case:
    values = to_python(read_value(word)) if listed else [word]
    return Case(tuple(_alternatives(value) for value in values), read_template(node))


def _alternatives(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) and "|" in value:
        return tuple(to_python(read_value(part)) for part in value.split("|"))
    return (value,)


def holes(tree: object) -> Iterator[Hole]:
    """Every hole in a template or an expression."""
    match tree:
        case Hole():
            yield tree
        case Formula():
            yield from holes(tree.tree)
        case Selection():
            for part in (*tree.keys, *(case.node for case in tree.cases)):
                yield from holes(part)
        case Mapping():
            for value in tree.values():
                yield from holes(value)
        case list() | tuple():
            for value in tree:
                yield from holes(value)
        case _ if hasattr(tree, "__dataclass_fields__"):
            for name in tree.__dataclass_fields__:
                yield from holes(getattr(tree, name))


def same(a: Any, b: Any) -> bool:
    """Equal as values of a config: ``1`` and ``1.0`` are, ``1`` and ``true`` are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def stands_for(values: tuple[Any, ...], value: Any, others: tuple[Any, ...]) -> bool:
    """Whether a case's values stand for this one, given what the other cases list."""
    if ANYTHING in values:
        return not any(same(value, other) for other in others)
    return any(same(value, one) for one in values)


def place_below(raw: Any, path: str) -> Any:
    """A fragment with ``$.x`` read as the field ``x`` below ``path``, in keys and values alike."""
    match raw:
        case dict():
            return {_field(key, path): place_below(value, path) for key, value in raw.items()}
        case list():
            return [place_below(value, path) for value in raw]
        case str():
            return re.sub(
                r"\$\.([A-Za-z_][\w.]*)?", lambda m: f"${path}{'.' + m[1] if m[1] else ''}", raw
            )
        case _:
            return raw


def _field(key: Any, path: str) -> Any:
    """A table's key names a field without its ``$``."""
    if isinstance(key, str) and key.startswith("$."):
        return path + (key[1:] if key != "$." else "")
    return key


def block(index: Index, kind: str, word: str) -> Entry:
    """The signature of a word in a family's recipe; ``kind`` is ``node``, or a slot's."""
    if word not in index.words(kind):
        raise FamilyError("family-word", f"a family's recipe holds {word!r}, which is not a block")
    return index.node(word) if kind == "node" else index.filler(kind, word)
