"""What the formulas of a family read: config fields, the layer they stand in, dims and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from builder.expressions import Expression, ExpressionError, value_of
from hf_bridge.errors import ConfigError
from hf_bridge.template import Formula, Selection, Template, stands_for

Key: TypeAlias = "tuple[str, int | None]"  # a field, or the entry that a layer has in it


@dataclass(frozen=True)
class Scope:
    """Fields by name and layer.  A field known as a whole list is known at every layer."""

    fields: Mapping[Key, Any] = field(default_factory=dict)
    layers: int = 0
    layer: int | None = None
    dims: Mapping[str, Template] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def lookup(self, name: str, args: tuple[Any, ...] = ()) -> Any:
        """What the expressions ask for; LookupError if it is not known."""
        if name.startswith("$"):
            return self._field(name[1:], args[0] if args else None)
        if name == "layer" and self.layer is not None:
            return self.layer
        if name == "layers":
            return self.layers
        if name in self.sizes:
            return self.sizes[name]
        return self.value(self.dims[name])

    def _field(self, path: str, index: int | None) -> Any:
        if (path, index) in self.fields:
            return self.fields[path, index]
        entries = self.fields[path, None]
        if index is not None and isinstance(entries, int | float):
            return entries  # one number stands for every layer
        if not isinstance(entries, list) or index is None or not 0 <= index < len(entries):
            length = len(entries) if isinstance(entries, list) else "no"
            raise ConfigError(
                "config-list", f"{path} has {length} entries, and the model {self.layers} layers"
            )
        return entries[index]

    def evaluate(self, tree: Expression) -> Any:
        return value_of(tree, self.lookup)

    def value(self, template: Template) -> Any:
        """What a formula, a selection of values, or a literal stands for."""
        match template:
            case Formula(tree=tree):
                return self.evaluate(tree)
            case Selection():
                return self.value(self.choose(template))
        return template

    def known(self, key: Formula) -> tuple[Any] | None:
        """The value in a tuple of its own, or None if some field of it is not known."""
        try:
            return (self.evaluate(key.tree),)
        except ExpressionError:
            return None

    def choose(self, selection: Selection) -> Template:
        """The node of the first case that the keys' values have."""
        values = [self.evaluate(key.tree) for key in selection.keys]
        for case in selection.cases:
            if all(
                stands_for(allowed, value, selection.others(position))
                for position, (allowed, value) in enumerate(zip(case.values, values, strict=True))
            ):
                return case.node
        keys = ", ".join(key.text.removeprefix("$") for key in selection.keys)
        shown = ", ".join(_shown(value) for value in values)
        listed = " or ".join(
            ", ".join("|".join(map(_shown, allowed)) for allowed in case.values)
            for case in selection.cases
        )
        raise ConfigError("config-case", f"{keys} is {shown}, which is none of {listed}")


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
    return str(value)
