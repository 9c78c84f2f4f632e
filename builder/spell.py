"""A graph in few words: a node as a recipe writes it, without its options, and layers as spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builder.fold import Folded, Repeat
from builder.graph import NODE, Chain, Joined, Layer, Leaf, Parallel, Residual, Tap


def spell(item: Folded) -> str:
    """``residual: [rmsnorm, attention]``, without what surrounds it."""
    match item:
        case Leaf():
            held = [spell(value) for _, value in item.options if isinstance(value, NODE)]
            return f"{item.word}({', '.join(held)})" if held else item.word
        case Chain():
            return f"[{spell_all(item.items)}]"
        case Residual():
            return f"residual: {spell(item.body)}"
        case Parallel():
            return f"parallel: [{', '.join(_inside(branch) for branch in item.branches)}]"
        case Joined():
            return f"{item.joiner.word}: {spell(item.body)}"
        case Layer():
            return spell(item.body)
        case Tap():
            return "label"
        case Repeat():
            return f"{item.times} x [{spell_all(item.items)}]"


def spell_all(items: Iterable[Folded]) -> str:
    """Items one after another; what stands in a list of its own is spliced into it."""
    flat = (part for item in items for part in _spliced(item))
    return ", ".join(_inside(item) for item in flat)


def spans(numbers: Sequence[int]) -> str:
    """``0-2, 4`` of ``0, 1, 2, 4``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def _spliced(item: Folded) -> tuple[Folded, ...]:
    body = item.body if isinstance(item, Layer) else item
    return body.items if isinstance(body, Chain) else (body,)


def _inside(item: Folded) -> str:
    text = spell(item)
    return f"{{{text}}}" if isinstance(item, Residual | Parallel | Joined) else text
