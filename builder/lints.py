"""What a model may say, and probably does not mean: warnings of the resolved graph.

A branch with nothing in it that mixes or feeds forward only rescales its stream; a norm of a norm
does little; a window beyond the context is never reached.
"""

from __future__ import annotations

from collections.abc import Iterator

from blocks.kinds import NODES
from builder.errors import Finding, Mark
from builder.graph import (
    Chain,
    Filler,
    Graph,
    Joined,
    Layer,
    Leaf,
    Node,
    Parallel,
    Residual,
    edges,
    leaves,
    walk,
)


def lints(graph: Graph) -> Iterator[Finding]:
    """Every warning of a graph, with the layer that it was found in."""
    for item in graph.items:
        layers = (item.index,) if isinstance(item, Layer) else ()
        for node in walk(item):
            yield from _idle_branch(node, layers)
        for leaf in leaves(item):
            yield from _wide_window(leaf, graph.context, layers)
    yield from _Norms().chain(Chain(graph.items), ())


def _warning(
    code: str, message: str, mark: Mark | None, help: str, layers: tuple[int, ...]
) -> Iterator[Finding]:
    if mark is not None:
        yield Finding(code, message, mark, help, severity="warning", layers=layers)


def _idle_branch(node: Node | Graph, layers: tuple[int, ...]) -> Iterator[Finding]:
    """A residual branch, or a joiner's, that neither mixes tokens nor feeds forward."""
    match node:
        case Residual(body, mark):
            word = "residual"
        case Joined(Leaf(word=word, mark=mark), body):
            pass
        case _:
            return
    if not any(_works(leaf) for leaf in leaves(body)):
        message = f"the branch of {word!r} holds no mixer and no feed-forward"
        help = "put one in it, such as attention or glu, or take the branch away"
        yield from _warning("idle-branch", message, mark, help, layers)


def _works(leaf: Leaf) -> bool:
    """Whether a leaf brings something of its own: a mixer, a feed-forward, or another stream."""
    return NODES[leaf.kind].anchor or any(edges(leaf))


def _wide_window(leaf: Leaf, context: int, layers: tuple[int, ...]) -> Iterator[Finding]:
    """A mask whose number of visible positions is more than there will ever be."""
    for _, mask in leaf.options:
        if not isinstance(mask, Filler) or mask.kind != "mask":
            continue
        for _, size in mask.options:
            if isinstance(size, int) and not isinstance(size, bool) and size > context:
                message = f"a {mask.word} of {size} is wider than context={context}"
                help = f"write {context - 1} or less, or causal, which sees as much here"
                yield from _warning("wide-window", message, mask.mark or leaf.mark, help, layers)


class _Norms:
    """Walks a stream, and remembers the norm that it has just passed."""

    def __init__(self) -> None:
        self.last = ""

    def chain(self, node: Node, layers: tuple[int, ...]) -> Iterator[Finding]:
        match node:
            case Leaf(kind="norm"):
                if self.last:
                    message = f"{node.word!r} stands right behind {self.last!r}"
                    help = "one norm is enough: take one of the two away"
                    yield from _warning("double-norm", message, node.mark, help, layers)
                self.last = node.word
            case Chain(items):
                for item in items:
                    yield from self.chain(item, layers)
            case Layer(index, body):
                yield from self.chain(body, (index,))
            case Parallel(branches):
                yield from self.branches(branches, layers)
            case Residual(body) | Joined(_, body):
                yield from self.branches((body,), layers)
            case _:
                self.last = ""

    def branches(self, bodies: tuple[Node, ...], layers: tuple[int, ...]) -> Iterator[Finding]:
        """Each branch begins anew: a norm of its own is what pre-norm means."""
        for body in bodies:
            self.last = ""
            yield from self.chain(body, layers)
        self.last = ""
