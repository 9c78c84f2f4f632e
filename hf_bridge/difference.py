"""Where a graph and a family part, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builder.errors import Mark
from builder.graph import NODE, Chain, Edge, Filler, Joined, Layer, Leaf, Node, Tap
from hf_bridge.template import Formula

NO_MORE = "nothing more"


@dataclass(frozen=True)
class Difference:
    """Where a graph first leaves a family: what each has there, how much agreed before."""

    place: str
    ours: str
    theirs: str
    matched: int
    mark: Mark | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.ours}, where the family has {self.theirs}"

    @property
    def located(self) -> str:
        """The same with its place in the recipe."""
        return f"{self.mark}, {self}" if self.mark else str(self)

    @property
    def remedy(self) -> str:
        """The smallest change that would take the search further."""
        if self.theirs == NO_MORE:
            return f"leave out {self.ours}"
        if self.ours == NO_MORE:
            return f"add {self.theirs}"
        return f"make {self.ours} {self.theirs}"


class Mismatch(Exception):
    """A goal that cannot be met."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference


@dataclass(frozen=True)
class At:
    """Where a goal stands: the layer, if in one, and the words that lead to it."""

    layer: int | None = None
    words: tuple[str, ...] = ()
    mark: Mark | None = None

    def __str__(self) -> str:
        layer = () if self.layer is None else (f"layer {self.layer}",)
        return " ".join((*layer, ".".join(self.words) or "the model"))

    def below(self, word: str, mark: Mark | None) -> At:
        return At(self.layer, (*self.words, word), mark or self.mark)


def marked(node: Node) -> Mark | None:
    return getattr(node, "mark", None)


def named(node: Node) -> str:
    match node:
        case Leaf():
            return node.word
        case Layer():
            return f"layer {node.index}"
        case Chain():
            return named(node.items[0])
        case Joined():
            return node.joiner.word
        case Tap():
            return "a label that is read further on"
    return type(node).__name__.lower()


def shown(value: Any) -> str:
    match value:
        case Filler():
            return value.word
        case Edge():
            return f"the {value.port.replace('_', ' and ')} of another"
        case _ if isinstance(value, NODE):
            return named(value)
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case dict():
            return str(next(iter(value)))
        case Formula():
            return value.text
    return str(value)
