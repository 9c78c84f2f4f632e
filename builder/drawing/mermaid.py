"""A diagram as Mermaid text, which GitHub draws in a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from builder.drawing.layout import LEAF, wrapped
from builder.drawing.svg import FILLS
from builder.drawing.view import Source, View
from builder.fold import Folded, Repeat
from builder.graph import NODE, Chain, Joined, Layer, Leaf, Node, Parallel, Residual, Tap
from builder.spell import spell


def mermaid(view: View) -> str:
    """A ``flowchart`` from the tokens up."""
    return "\n".join(_Flow(view).lines()) + "\n"


@dataclass
class _Flow:
    """The text as it grows: nodes in their subgraphs, then arrows, which move no node."""

    view: View
    nodes: list[str] = field(default_factory=list)
    arrows: list[str] = field(default_factory=list)
    known: dict[Source, str] = field(default_factory=dict)  # the ids of leaves and taps
    count: int = 0
    depth: int = 1

    def lines(self) -> list[str]:
        about = f"{self.view.title}: {self.view.about}"
        end = self.items(self.view.items, self.add('(["tokens"])'))
        self.arrow(end, self.add('(["logits"])'))
        for link in self.view.links:
            option = f"|{link.option}|" if link.option else ""
            self.arrows.append(
                f"  {self.known[link.source]} -.->{option} {self.known[link.reader]}"
            )
        used = {node.rpartition(":::")[2] for node in self.nodes}
        looks = [
            f"  classDef {kind} fill:{fill},stroke:#222,color:#222"
            for kind, fill in FILLS.items()
            if kind in used
        ]
        return [f"%% {escaped(about)}", "flowchart BT", *self.nodes, *self.arrows, *looks]

    def write(self, text: str) -> None:
        self.nodes.append("  " * self.depth + text)

    def new(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def add(self, shape: str) -> str:
        """A node of a shape, and its id."""
        name = self.new()
        self.write(name + shape)
        return name

    def arrow(self, before: str, after: str) -> str:
        self.arrows.append(f"  {before} --> {after}")
        return after

    def items(self, items: Sequence[Folded], before: str) -> str:
        """Items one after another; the id of the last node."""
        for item in items:
            before = self.item(item, before)
        return before

    def item(self, item: Folded, before: str) -> str:
        match item:
            case Repeat():
                label = f"× {item.times}" + ", shared weights" * (item in self.view.shared)
                only = [part.body for part in item.items if isinstance(part, Layer)]
                return self.inside(label, only if len(item.items) == 1 else item.items, before)
            case Layer():
                return self.inside(" ", (item.body,), before)
        return self.node(item, before)

    def inside(self, label: str, items: Sequence[Folded], before: str) -> str:
        self.write(f'subgraph {self.new()} ["{label}"]')
        self.depth += 1
        end = self.items(items, before)
        self.depth -= 1
        self.write("end")
        return end

    def node(self, node: Node, before: str) -> str:
        match node:
            case Leaf():
                return self.arrow(before, self.leaf(node))
            case Chain():
                return self.items(node.items, before)
            case Residual(body=Parallel(branches=branches)):
                return self.joined([*(self.node(branch, before) for branch in branches), before])
            case Residual():
                return self.joined([self.node(node.body, before), before])
            case Parallel():
                return self.joined([self.node(branch, before) for branch in node.branches])
            case Joined():
                end = self.arrow(self.node(node.body, before), self.leaf(node.joiner))
                return self.arrow(before, end)
            case Layer():
                return self.node(node.body, before)
            case Tap():
                self.known[node.number] = before
        return before

    def joined(self, ends: Sequence[str]) -> str:
        after = self.add('(("+"))')
        for end in ends:
            self.arrow(end, after)
        return after

    def leaf(self, leaf: Leaf) -> str:
        caption = self.view.captions[leaf.name]
        held = [f"{name}: {spell(v)}" for name, v in leaf.options if isinstance(v, NODE)]
        lines = [caption.word, *wrapped([*caption.details, *held], LEAF)]
        label = "<br/>".join(map(escaped, lines))
        self.known[leaf.name] = self.add(f'["{label}"]:::{leaf.kind}')
        return self.known[leaf.name]


def escaped(text: str) -> str:
    """A text as a quoted label has it: what Mermaid or HTML would read otherwise, by its number."""
    plain = "".join(c if c.isprintable() else "·" for c in text)
    return "".join(f"#{ord(c)};" if c in "#&<>\"'`;" else c for c in plain)
