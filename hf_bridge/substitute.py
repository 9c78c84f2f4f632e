"""Import, step two: a config's fields in the holes of a family's recipe, as a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from builder.expressions import (
    Binary,
    Call,
    Expression,
    ExpressionError,
    Hole,
    Negate,
    Number,
    names,
    parse,
    unparse,
)
from builder.index import Index
from builder.read import dump
from hf_bridge.errors import ConfigError
from hf_bridge.family import Family, selections
from hf_bridge.fold import fold
from hf_bridge.normalise import Fields, depth_of
from hf_bridge.scope import Scope
from hf_bridge.template import Formula, Selection, Template, holes
from hf_bridge.tidy import tidy


def recipe_text(family: Family, fields: Fields, name: str, index: Index) -> str:
    """The recipe that the fields mean, as ``load_recipe`` takes it."""
    try:
        page = recipe_page(family, fields, name, index)
    except ExpressionError as error:
        raise ConfigError("config-value", f"{family.file}: {error}") from None
    return f"# What config.json says, read with {family.file}.\n{dump(page)}"


def recipe_page(family: Family, fields: Fields, name: str, index: Index) -> dict[str, Any]:
    """The same as dicts and lists: dims, blocks with equal layers folded, model."""
    scope = Scope(
        {(field, None): value for field, value in fields.items()}, depth_of(family, fields)
    )
    scope = replace(scope, dims=family.dims)
    blocks = dict(family.blocks)
    layered = _layered(blocks)
    written = {b: substitute(node, scope, {}) for b, node in blocks.items() if b not in layered}
    model: list[Any] = []
    for node in family.recipe["model"]:
        if isinstance(node, dict) and "repeat" in node:
            bodies = [
                _body(node["block"], replace(scope, layer=i), blocks, layered)
                for i in range(scope.layers)
            ]
            more, repeated = fold(
                node["block"], bodies, _cases(node["block"], scope, blocks), index
            )
            written |= more
            model.append(repeated)
        else:
            model.append(substitute(node, scope, {}))
    page = {
        "recipe": 1,
        "name": name,
        "dims": {dim: scope.value(value) for dim, value in family.dims.items()},
        "blocks": written,
        "model": model,
    }
    return tidy(page, index)


def substitute(template: Template, scope: Scope, inline: Mapping[str, Template]) -> Any:
    """A template with its holes filled; the blocks of ``inline`` are written out."""
    match template:
        case Formula():
            return _written(template, scope)
        case Selection():
            return substitute(scope.choose(template), scope, inline)
        case dict():
            return {key: substitute(value, scope, inline) for key, value in template.items()}
        case list():
            return [substitute(value, scope, inline) for value in template]
        case str() if template in inline:
            return substitute(inline[template], scope, inline)
        case None:
            return "none"
    return template


def _written(formula: Formula, scope: Scope) -> Any:
    """A number if it can be known, else an expression of ``layer`` and dims."""
    if not names(formula.tree):
        value = scope.evaluate(formula.tree)
        return "none" if value is None else value
    return unparse(_filled(formula.tree, scope))


def _filled(tree: Expression, scope: Scope) -> Expression:
    match tree:
        case Hole():
            return parse(repr(scope.evaluate(tree)))
        case Number():
            return tree
        case Negate(operand):
            return replace(tree, operand=_filled(operand, scope))
        case Binary(_, left, right):
            return replace(tree, left=_filled(left, scope), right=_filled(right, scope))
        case Call(_, args):
            return replace(tree, args=tuple(_filled(arg, scope) for arg in args))
    return tree


def _body(
    block: Any, scope: Scope, blocks: Mapping[str, Template], layered: Mapping[str, Template]
) -> Any:
    node = blocks.get(block, block) if isinstance(block, str) else block
    return substitute(node, scope, layered)


def _layered(blocks: Mapping[str, Template]) -> dict[str, Template]:
    """The blocks that differ between layers, themselves or through one that they name."""
    found: dict[str, Template] = {}
    while more := {
        name: node
        for name, node in blocks.items()
        if name not in found and (_depends(node) or _mentions(node, found.keys()))
    }:
        found |= more
    return found


def _depends(node: Template) -> bool:
    keys = [key for selection in selections(node) for key in selection.keys]
    return any(hole.index is not None for hole in holes(node)) or any(
        "layer" in names(key.tree) for key in keys
    )


def _mentions(node: Template, words: Any) -> bool:
    match node:
        case str():
            return node in words
        case list():
            return any(_mentions(item, words) for item in node)
        case dict():
            return any(_mentions(item, words) for item in node.values())
        case Selection():
            return any(_mentions(case.node, words) for case in node.cases)
    return False


def _cases(block: Any, scope: Scope, blocks: Mapping[str, Template]) -> Sequence[tuple[Any, ...]]:
    """For each layer the values of the keys that make it differ: they name the folded blocks."""
    node = blocks.get(block) if isinstance(block, str) else block
    keys = [
        key
        for selection in selections(node)
        for key in selection.keys
        if any(hole.index is not None for hole in holes(key)) or "layer" in names(key.tree)
    ]
    return [
        tuple(replace(scope, layer=i).evaluate(key.tree) for key in keys)
        for i in range(scope.layers)
    ]
