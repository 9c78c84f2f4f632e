"""A page without what goes without saying: defaults, empty nodes, names for a single word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.expressions import ExpressionError, evaluate, parse
from builder.index import Entry, Index, MakerDefault, Parameter, SizeDefault
from hf_bridge.template import block, same

STRUCTURE = ("residual", "parallel", "repeat", "layers", "like")


def tidy(page: dict[str, Any], index: Index) -> dict[str, Any]:
    """The same model in fewer words."""
    blocks = {name: _node(node, index) for name, node in page["blocks"].items()}
    words = {name: node for name, node in blocks.items() if isinstance(node, str)}
    blocks = {name: _renamed(node, words) for name, node in blocks.items() if name not in words}
    model = [_renamed(_node(node, index), words) for node in page["model"]]
    tidied = page | {
        "dims": _dims(page["dims"], [blocks, model], index),
        "blocks": blocks,
        "model": [node for node in model if node != "none"],
    }
    return {key: value for key, value in tidied.items() if value != {}}


def _node(node: Any, index: Index) -> Any:
    match node:
        case list():
            nodes = [_node(item, index) for item in node]
            spliced = [
                one for item in nodes for one in (item if isinstance(item, list) else [item])
            ]
            kept = [item for item in spliced if item != "none"]
            return kept[0] if len(kept) == 1 else kept or "none"
        case {"residual": inner}:
            return node | {"residual": _node(inner, index)}
        case {"parallel": branches}:
            return node | {"parallel": [_node(branch, index) for branch in branches]}
        case dict() if (word := next(iter(node))) in index.words("node") and index.node(word).joins:
            return node | {word: _node(node[word], index)}
        case dict() if len(node) == 1 and next(iter(node)) not in STRUCTURE:
            ((word, options),) = node.items()
            return _leaf(word, options, block(index, "node", word), index)
    return node


def _leaf(word: str, options: Any, entry: Entry, index: Index) -> Any:
    if not isinstance(options, dict):
        return {word: options}
    by_name = {parameter.name: parameter for parameter in entry.parameters}
    said = {}
    for name, value in options.items():
        parameter = by_name[name]
        value = _filler(value, parameter, index)
        if not is_default(value, parameter):
            said[name] = value
    return {word: said} if said else word


def _filler(value: Any, parameter: Parameter, index: Index) -> Any:
    if parameter.type.base == "slot" and isinstance(value, dict):
        ((word, options),) = value.items()
        return _leaf(word, options, block(index, parameter.type.slot, word), index)
    return value


def is_default(value: Any, parameter: Parameter) -> bool:
    """Whether a value as written is what the signature says anyway."""
    match parameter.default:
        case MakerDefault(word=word, options=options):
            return bool(value == (word if not options else {word: dict(options)}))
        case None:
            return value in ("none", None)
        case bool() | int() | float() | str():
            return same(value, parameter.default)
    return False


def _renamed(node: Any, words: Mapping[str, str]) -> Any:
    """A node with the names of blocks that are one word replaced by that word."""
    match node:
        case str():
            return words.get(node, node)
        case list():
            return [_renamed(item, words) for item in node]
        case {"residual": inner}:
            return node | {"residual": _renamed(inner, words)}
        case {"parallel": branches}:
            return node | {"parallel": [_renamed(branch, words) for branch in branches]}
        case {"block": block}:
            return node | {"block": words.get(block, block)}
    return node


def _dims(dims: Mapping[str, Any], nodes: Any, index: Index) -> dict[str, Any]:
    """The dims that their readers would not find by themselves."""
    said = dict(dims)
    for name in dims:
        readers = [p for word in _words(nodes) for p in _sizes(word, index) if p.name == name]
        if readers and all(_follows(parameter, dims) for parameter in readers):
            del said[name]
    return said


def _words(node: Any) -> set[str]:
    match node:
        case str():
            return {node}
        case list():
            return set().union(*map(_words, node))
        case dict():
            return set(node).union(*map(_words, node.values()))
    return set()


def _sizes(word: str, index: Index) -> tuple[Parameter, ...]:
    return index.node(word).sizes if word in index.words("node") else ()


def _follows(parameter: Parameter, dims: Mapping[str, Any]) -> bool:
    if not isinstance(parameter.default, SizeDefault):
        return False
    try:
        value = evaluate(parse(parameter.default.expression), lambda name, _: dims[name])
    except ExpressionError:
        return False
    return same(value, dims[parameter.name])
