"""A leaf in a few words: what a diagram writes in its box, and a comparison in its table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from builder.expressions import evaluate, names, parse
from builder.graph import NODE, Edge, Filler, Leaf, Named, Value, edges_in
from builder.index import Entry, Index, Parameter, SizeDefault


@dataclass(frozen=True)
class Caption:
    """What is written of a leaf: its word with its lone value, and what else matters of it."""

    word: str
    details: tuple[str, ...] = ()

    def with_detail(self, *details: str) -> Caption:
        return replace(self, details=(*self.details, *details))


def caption(leaf: Leaf, index: Index) -> Caption:
    """What fills the slots, whole numbers unless another size gives them or they are 1 by default,
    and whatever is not at its default.
    """
    entry = index.node(leaf.word)
    worth = [(p, text) for p, text in _worth(entry, leaf.options, index) if p.name != "dim"]
    lone = [text for p, text in worth if p.role == "value"]
    details = [_named(p, text) for p, text in worth if p.role != "value"]
    return Caption(" ".join([leaf.word, *lone]), tuple(details))


def _worth(
    entry: Entry, options: tuple[tuple[str, Value], ...], index: Index
) -> Iterator[tuple[Parameter, str]]:
    """The options worth telling, each with its value in a word or two."""
    for name, value in options:
        parameter = entry.parameter(name)
        if not _is_plain(parameter, value, dict(options)):
            yield parameter, told(value, index)


def _is_plain(parameter: Parameter, value: Value, beside: dict[str, Value]) -> bool:
    """Whether an option needs no telling, or is drawn otherwise."""
    match value:
        case None:
            return True
        case tuple() | Edge() if edges_in(value):
            return True
        case Filler():
            return False
        case 1 if not isinstance(value, bool) and parameter.default == 1:
            return True
        case int() if not isinstance(value, bool):
            return isinstance(parameter.default, SizeDefault) and follows(
                parameter.default, value, beside
            )
    return isinstance(value, NODE) or value == parameter.default


def follows(default: SizeDefault, value: Value, beside: dict[str, Value]) -> bool:
    """Whether the leaf's other sizes, ``dim`` aside, make a size what it is."""
    expression = parse(default.expression)

    def lookup(name: str, args: tuple[object, ...]) -> Value:
        return beside.get(name)

    return names(expression) != {"dim"} and evaluate(expression, lookup) == value


def told(value: Value, index: Index) -> str:
    """An option's value in a word or two."""
    match value:
        case Filler():
            worth = _worth(index.filler(value.kind, value.word), value.options, index)
            inside = [text if p.role == "value" else _named(p, text) for p, text in worth]
            return " ".join([value.word, *inside])
        case tuple():
            return ", ".join(told(item, index) for item in value)
        case Named():
            return ", ".join(f"{name}: {told(item, index)}" for name, item in value)
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.6g}")
    return str(value)


def _named(parameter: Parameter, text: str) -> str:
    """An option in words; a slot of its kind's own name is told by what fills it."""
    if parameter.type.base == "bool":
        return parameter.name if text == "true" else f"no {parameter.name}"
    return text if parameter.type.slot == parameter.name else f"{parameter.name} {text}"
