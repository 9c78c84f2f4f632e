"""Defaults, written out where a run keeps a page, left out where a page is hashed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from builder.edit import BRANCHES, as_written
from builder.errors import Mark
from builder.expressions import evaluate, parse
from builder.graph import Filler, Leaf, Value
from builder.index import REQUIRED, Entry, Index, MakerDefault, SizeDefault
from builder.read import Mapping, Scalar, Sequence
from builder.read import Value as Written


def write_out(page: Mapping, index: Index) -> Mapping:
    """The page with every option of every leaf written."""
    entries = []
    for key, value in page:
        match key.value:
            case "blocks" if isinstance(value, Mapping):
                value = replace(
                    value, entries=tuple((name, _node(node, index)) for name, node in value)
                )
            case "model":
                value = _node(value, index)
            case "tokenizer" | "data":
                value = _slot(value, str(key.value), index)
            case "train" if isinstance(value, Mapping):
                value = _options(value, index.filler("section", "train"), index)
        entries.append((key, value))
    return replace(page, entries=tuple(entries))


def _node(value: Written, index: Index) -> Written:
    match value:
        case Sequence():
            return replace(value, items=tuple(_node(item, index) for item in value))
        case Scalar(value=str(word)) if word in index.words("node"):
            return _word(index.node(word), None, value.mark, index)
        case Mapping():
            joiner = next((str(k.value) for k, _ in value if k.value in index.words("joiner")), "")
            if joiner:
                return _joined(value, joiner, index)
            return replace(value, entries=tuple(_entry(key, item, index) for key, item in value))
    return value


def _joined(value: Mapping, joiner: str, index: Index) -> Mapping:
    """A joiner's options stand beside its word, and so does a label."""
    head = tuple((key, _node(item, index)) for key, item in value if key.value == joiner)
    label = tuple((key, item) for key, item in value if key.value == "as")
    options = _options(value, index.node(joiner), index)
    return replace(value, entries=(*head, *options.entries, *label))


def _entry(key: Scalar, value: Written, index: Index) -> tuple[Scalar, Written]:
    if key.value in BRANCHES:
        return key, _node(value, index)
    if key.value in index.words("node"):
        return key, _under(index.node(str(key.value)), value, value.mark, index)
    return key, value


def _slot(value: Written, kind: str, index: Index) -> Written:
    if isinstance(value, Scalar) and value.value in index.words(kind):
        return _word(index.filler(kind, str(value.value)), None, value.mark, index)
    if isinstance(value, Mapping):
        key, under = value.entries[0]
        return _word(index.filler(kind, str(key.value)), under, value.mark, index)
    return value


def _word(entry: Entry, under: Written | None, mark: Mark, index: Index) -> Written:
    inside = _under(entry, under, mark, index)
    word = Scalar(entry.word, mark)
    return (
        word
        if isinstance(inside, Mapping) and not inside.entries
        else Mapping(((word, inside),), mark)
    )


def _under(entry: Entry, under: Written | None, mark: Mark, index: Index) -> Written:
    if under is not None and not isinstance(under, Mapping):
        if not entry.options:
            return under
        under = Mapping(((Scalar(entry.value[0].name, mark), under),), mark)
    return _options(under or Mapping((), mark), entry, index)


def _options(written: Mapping, entry: Entry, index: Index) -> Mapping:
    entries = []
    for parameter in entry.parameters:
        value = written.get(parameter.name)
        if value is None and parameter.role == "option" and parameter.default is not REQUIRED:
            value = _default(parameter.default, written.mark)
        if value is None:
            continue
        if parameter.type.base == "slot":
            value = _slot(value, parameter.type.slot, index)
        elif parameter.type.base == "node":
            value = _node(value, index)
        elif (item := parameter.type.item) and item.base == "slot" and isinstance(value, Mapping):
            value = replace(value, entries=tuple((k, _slot(v, item.slot, index)) for k, v in value))
        entries.append((Scalar(parameter.name, value.mark), value))
    return replace(written, entries=tuple(entries))


def _default(default: Any, mark: Mark) -> Written | None:
    if isinstance(default, MakerDefault):
        return as_written(default, mark)
    if isinstance(default, tuple):
        return Sequence(tuple(Scalar(item, mark) for item in default), mark)
    return Scalar("none" if default is None else default, mark)


def without_defaults(node: Any, index: Index) -> Any:
    """The graph as nested tuples, leaving out each option that has its default."""
    if isinstance(node, Leaf | Filler):
        entry = (
            index.node(node.word) if isinstance(node, Leaf) else index.filler(node.kind, node.word)
        )
        kept = tuple(
            (k, without_defaults(v, index))
            for k, v in node.options
            if not _is_default(v, entry.parameter(k).default, dict(node.options), index)
        )
        return (node.word, kept, *((node.name, node.weights) if isinstance(node, Leaf) else ()))
    if isinstance(node, tuple):
        return tuple(without_defaults(item, index) for item in node)
    if hasattr(node, "__dataclass_fields__"):
        fields = [name for name in node.__dataclass_fields__ if name != "mark"]
        return (
            type(node).__name__,
            *(without_defaults(getattr(node, name), index) for name in fields),
        )
    return node


def _is_default(value: Value, default: Any, beside: dict[str, Value], index: Index) -> bool:
    """Whether a page that leaves the option out, and gives what stands beside it, means this."""
    match default:
        case MakerDefault() if isinstance(value, Filler):
            filler = index.filler(value.kind, value.word)
            given = dict(value.options)
            return default.word == value.word and all(
                v == default.options[k]
                if k in default.options
                else _is_default(v, filler.parameter(k).default, given, index)
                for k, v in value.options
            )
        case SizeDefault():
            tree = parse(default.expression)
            return bool(evaluate(tree, partial(_beside, beside)) == value)
    return type(default) is type(value) and bool(default == value)


def _beside(options: dict[str, Value], name: str, args: tuple[object, ...] = ()) -> Value:
    return options.get(name)
