"""A family: one of the library's classes as data.  The names of classes, config fields and tensors
live in its file and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hf_bridge.template import (
    Formula,
    Selection,
    Template,
)

MARKERS = ("model_type", "architectures")


@dataclass(frozen=True)
class Default:
    """What a config field is when it is not written: ``value``; written as null, ``null``.

    ``each`` and ``where`` are computed for every layer: the list of values, or of the layers where
    true.
    """

    value: Template
    null: Template
    each: Template = None
    where: Template = None
    absent_if: Template = None


@dataclass(frozen=True)
class Family:
    """One family file, complete: every table, and the recipe with its holes."""

    file: str
    like: tuple[str, ...]  # the families that it is made from, the nearest last
    model_type: str
    architecture: str
    config: Mapping[str, Default]
    rename: Mapping[str, str]
    pin: Mapping[str, Any]
    require: Mapping[str, tuple[Any, ...]]
    ignore: Mapping[str, str]
    nested: frozenset[str]  # what every config class has, and so those within it
    whole: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any]
    weights: Mapping[str, Any]
    also_read: Mapping[str, Any]
    ignore_weights: Mapping[str, str]
    refuse_weights: Mapping[str, str]

    @property
    def dims(self) -> Mapping[str, Template]:
        dims: Mapping[str, Template] = self.recipe["dims"]
        return dims

    @property
    def blocks(self) -> Mapping[str, Template]:
        blocks: Mapping[str, Template] = self.recipe.get("blocks", {})
        return blocks

    @property
    def nullable(self) -> frozenset[str]:
        """Fields for which null is a value of its own: some case lists it."""
        return frozenset(
            hole.path
            for selection in selections([self.recipe, self.weights])
            for position, key in enumerate(selection.keys)
            if (hole := key.hole) and None in selection.listed(position)
        )


def is_other(pin: Any) -> bool:
    """Whether a pin is no value to write: nothing, or what another field is found to be."""
    return pin == "omit" or (isinstance(pin, str) and pin.startswith("$"))


def selections(template: Any) -> Iterator[Selection]:
    """Every selection in a template, outer ones first."""
    match template:
        case Selection():
            yield template
            for case in template.cases:
                yield from selections(case.node)
        case Mapping():
            for value in template.values():
                yield from selections(value)
        case list() | tuple():
            for value in template:
                yield from selections(value)


def formulas(template: Any) -> Iterator[Formula]:
    """Every formula that stands for a value, keys of selections apart."""
    match template:
        case Formula():
            yield template
        case Selection():
            for case in template.cases:
                yield from formulas(case.node)
        case Mapping():
            for value in template.values():
                yield from formulas(value)
        case list() | tuple():
            for value in template:
                yield from formulas(value)
