"""What may stand where on a page: found by resolving, so that a block's own checks are obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from blocks.kinds import NODES
from builder.errors import Mark, RecipeError, Source
from builder.graph import Graph, Leaf, leaves
from builder.index import REQUIRED, Entry, Index, Parameter
from builder.read import Mapping as Page
from builder.read import Scalar, Value
from builder.read import Sequence as ValueList
from builder.resolve import resolve_graph

Written: TypeAlias = Any  # a node as dicts, lists and words
Accepts: TypeAlias = Callable[[Any], bool]

OF_THE_PAGE = ("dim", "vocab", "context")  # sizes that a drawn leaf leaves to the page
WHOLE = (1, 2, 3, 4, 6)
REAL = (0.5, 1.5, 3.0)
NOWHERE = Mark(Source("<drawn>", ""), 1, 1)
DEEPEST = 8  # no drawn recipe has more layers
EXPRESSIONS = {"int": ("layer + 2", "layers"), "float": ("1 / (layer + 2)", "1/sqrt(2*layers)")}


@dataclass(frozen=True)
class Grammar:
    """The registered words, under the dims of one page."""

    index: Index
    dims: Mapping[str, Any]
    answers: dict[str, Graph | None] = field(default_factory=dict)

    def graph(self, model: Sequence[Written]) -> Graph | None:
        """What a model means, or None where it is refused."""
        key = json.dumps(model)
        if key not in self.answers:
            page = {"dims": self.dims, "model": model}
            try:
                self.answers[key] = resolve_graph(_page(page), self.index)
            except RecipeError:
                self.answers[key] = None
        return self.answers[key]

    def keeps(self, node: Written, width: int) -> bool:
        """Whether a node takes a stream of this width and gives one of the same width."""
        graph = self.graph([*self.start(width), node, "lm_head"])
        if graph is None or _head(graph).dim != width:
            return False
        text = json.dumps(node)
        counts = range(1, DEEPEST + 1) if "layers" in text else [DEEPEST] * ("layer" in text)
        return all(  # an expression is legal at every layer, of however many
            self.graph([*self.start(width), {"repeat": n, "block": [node]}, "lm_head"]) is not None
            for n in counts
        )

    def start(self, width: int) -> list[Written]:
        """The head of a page that gives a stream of this width."""
        widened = [] if width == self.dims["dim"] else [{"linear": width}]
        return ["token_embedding", *widened]

    def entries(self, *, reads: str, gives: str) -> list[Entry]:
        """The nodes of a type; those of any type are of each."""
        kinds = [kind for kind, node in NODES.items() if (node.reads, node.gives) == (reads, gives)]
        kinds += ["map"] if reads == gives != "any" else []
        found = (e for e in self.index if e.kind in kinds and not (e.joins or _needs_label(e)))
        return sorted(found, key=lambda entry: entry.word)

    def widths(self) -> list[int]:
        """Widths that a stream may change to."""
        return [n * int(self.dims["heads"]) for n in (2, 4, 6)]

    def changing_width(self) -> list[Entry]:
        """The leaves of one value that give another width than they meet."""
        entries = self.entries(reads="any", gives="any")
        return [e for e in entries if e.outer or any(p.name == "out" for p in e.parameters)]

    def width_after(self, node: Written, width: int) -> int | None:
        """The width of what a node gives; None where it is refused."""
        graph = self.graph([*self.start(width), node, "lm_head"])
        return None if graph is None else _head(graph).dim

    def joiners(self) -> list[Entry]:
        """The ways round a branch."""
        return sorted((e for e in self.index if e.joins), key=lambda entry: entry.word)

    def is_given(self, parameter: Parameter) -> bool:
        """Whether the page's dims give this size."""
        return parameter.role == "size" and parameter.name in self.dims

    def must_be_written(self, parameter: Parameter) -> bool:
        return parameter.default is REQUIRED and not self.is_given(parameter)

    def values(self, parameter: Parameter, width: int) -> list[Any]:
        """Plain values of an option's type, legal or not."""
        type = parameter.type
        expressions = EXPRESSIONS.get(type.base, ()) if parameter.role == "option" else ()
        plain: dict[str, Sequence[Any]] = {
            "int": (*WHOLE, width, *expressions),
            "float": (*REAL, *expressions),
            "bool": (True, False),
            "literal": type.choices,
            "str": ("word",),
        }
        values = list(plain.get(type.base, ()))
        if type.base == "list" and type.item is not None:
            item = Parameter(parameter.name, parameter.role, type.item)
            values = [[value] * 2 for value in self.values(item, width)]
        return [*values, "none"] if type.optional else values


def _needs_label(entry: Entry) -> bool:
    return any(p.type.refers and p.default is REQUIRED for p in entry.parameters)


def written(entry: Entry, options: Mapping[str, Any]) -> Written:
    """A word with its options as a page has them: a lone value without its name."""
    if not options:
        return entry.word
    if list(options) == [parameter.name for parameter in entry.value]:
        return {entry.word: next(iter(options.values()))}
    return {entry.word: dict(options)}


def _page(written: Mapping[str, Written]) -> Page:
    """A page that was never a text: only whether it is refused is asked, and not where."""
    return Page(tuple((Scalar(key, NOWHERE), _value(w)) for key, w in written.items()), NOWHERE)


def _value(written: Written) -> Value:
    match written:
        case Mapping():
            return _page(written)
        case str() | bool() | int() | float() | None:
            return Scalar(written, NOWHERE)
        case _:
            return ValueList(tuple(map(_value, written)), NOWHERE)


def _head(graph: Graph) -> Leaf:
    return next(leaf for leaf in leaves(graph) if leaf.kind == "head")
