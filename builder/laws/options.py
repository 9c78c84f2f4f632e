"""No option is dead: each that may be written under a word alters something, or is named here.

For every parameter two legal settings are looked for that differ in it alone, and whose models
differ: first beside the defaults of all others, then with one other option changed, then with two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from blocks.kinds import NODES
from builder.construct import registered
from builder.graph import Filler, Graph, Leaf, Value, leaves
from builder.index import Entry, Index, load_index
from builder.laws.case import Case
from builder.laws.differences import difference
from builder.laws.option_pages import FEWER, PAGES, WIDTHS, Key, Pages, writable
from builder.recipe import Recipe

ALTERS = "the logits, the loss or its gradients, the initial weights, or how much can be read"


def no_option_is_dead(case: Case) -> float:
    """Every option of every word in the recipe alters something, once it is changed."""
    plugins = case.recipe.plugins
    words = {(word.kind, word.word) for word in words_of(case.recipe.graph)}
    dead = [
        line
        for kind, word in sorted(words)
        for line in _dead(kind, word, registered(kind, word), plugins)
    ]
    assert not dead, "; ".join(dead)
    return 0.0


@cache  # asked once for a class, and not once for a recipe
def _dead(kind: str, word: str, cls: type, plugins: tuple[Path, ...]) -> tuple[str, ...]:
    index = load_index(plugins)
    entry = index.node(word) if kind in NODES else index.filler(kind, word)
    return tuple(dead_options(entry, index))


@dataclass(frozen=True)
class Verdict:
    """What a parameter of a word was seen to alter, if it was, and after how many legal changes.

    ``failure`` is what went wrong in the last model that its checks let pass and that did not run.
    """

    word: str
    parameter: str
    alters: str = ""
    compared: int = 0
    failure: str = ""

    def __str__(self) -> str:
        name = f"{self.parameter} of {self.word}"
        if self.alters:
            return f"{name}: alters {self.alters}"
        if self.compared:
            return f"{name}: no legal change alters {ALTERS}"
        reason = f" ({self.failure})" if self.failure else ""
        return f"{name}: no second legal value was found{reason}, and with one it is no option"


def dead_options(entry: Entry, index: Index, dims: Mapping[str, int] | None = None) -> list[str]:
    """A line for each parameter of a word that was not seen to alter anything."""
    found = (verdict(entry, parameter.name, index, dims) for parameter in writable(entry))
    return [str(verdict) for verdict in found if not verdict.alters]


def verdict(
    entry: Entry, name: str, index: Index, dims: Mapping[str, int] | None = None
) -> Verdict:
    """What one parameter alters, on pages of these dims, or of one width after another."""
    compared, failure = 0, ""
    for widths in WIDTHS if dims is None else (dims,):
        pages = Pages(entry, index, widths)
        for key in pages.keys(name) if pages.bases else ():
            for pair in _pairs(pages, key):
                try:
                    what = difference(*pair)
                except Exception as error:  # a class may refuse more than its checks do
                    failure = f"{type(error).__name__}: {error}"
                    continue
                compared += 1
                if what:
                    return Verdict(entry.word, name, what, compared)
            if compared:
                break
    return Verdict(entry.word, name, "", compared, failure)


def _pairs(pages: Pages, key: Key) -> Iterator[tuple[Recipe, Recipe]]:
    """Legal pairs, place by place: many where a word can stand first, fewer in any other."""
    for number, (place, base) in enumerate(pages.bases):
        pairs = islice(pages.pairs(key, place, base), FEWER if number else PAGES)
        yield from filter(None, pairs)


def words_of(graph: Graph) -> Iterator[Leaf | Filler]:
    """Every leaf and every filler of a model, those of experts included."""
    for leaf in leaves(graph):
        yield leaf
        yield from _fillers(leaf.options)


def _fillers(options: Sequence[tuple[str, Value]]) -> Iterator[Filler]:
    for _, value in options:
        if isinstance(value, Filler):
            yield value
            yield from _fillers(value.options)
