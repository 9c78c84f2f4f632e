"""What differs between two recipes: the models that they mean, and how they are trained.

Graphs are compared, and not pages: layers are aligned, then the leaves of aligned layers, and each
difference stands once, for all the layers that have it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain, groupby
from typing import TypeAlias

from builder.captions import caption, follows, told
from builder.fold import LAYER, shape
from builder.graph import (
    NODE,
    Chain,
    Edge,
    Filler,
    Graph,
    Joined,
    Layer,
    Leaf,
    Named,
    Node,
    Parallel,
    Residual,
    Tap,
    Value,
    edges_in,
    leaves,
    taps,
)
from builder.index import Entry, Index, SizeDefault, load_index
from builder.recipe import Recipe
from builder.spell import spans, spell

Place: TypeAlias = int | None  # a layer of the first model; None is outside of them
Cut: TypeAlias = tuple[int, int, int, int]  # from where to where, in each of two rows


@dataclass(frozen=True)
class Change:
    """``what`` was ``before`` and is ``after``; one of these is empty where it came or went.

    ``where`` names the layers; it is empty if they all, or none of them, are meant.
    """

    what: str
    before: str
    after: str
    where: str = ""

    def __str__(self) -> str:
        if not self.before or not self.after:
            text = f"{'−' if self.before else '+'} {self.what}"
        else:
            text = f"{self.what} {self.before} → {self.after}".strip()
        return f"{text} in {self.where}" if self.where else text


@dataclass(frozen=True)
class Difference:
    """How the second of two recipes differs: as a model, and in what stands beside the model."""

    same: bool
    model: tuple[Change, ...]
    training: tuple[Change, ...]


def compare(first: Recipe, second: Recipe) -> Difference:
    """Compare the graphs of two recipes, and the sections beside the model."""
    index = load_index((*first.plugins, *second.plugins))
    training = [
        Change(path.removeprefix("train."), before, after)
        for name in ("train", "data", "tokenizer")
        for path, before, after in differing(
            name, getattr(first, name), getattr(second, name), index
        )
    ]
    same = first.graph == second.graph
    model = [] if same else _Comparison(first.graph, second.graph, index).changes()
    sizes = {(change.what, change.before, change.after) for change in model}
    rest = (one for one in training if (_last(one.what), one.before, one.after) not in sizes)
    return Difference(same, tuple(model), tuple(rest))


# Values


def differing(
    path: str, ours: Value, theirs: Value, index: Index
) -> Iterator[tuple[str, str, str]]:
    """Each path at which two values differ, and both values there in a word or two."""
    match ours, theirs:
        case (Filler(), Filler()) if ours.word == theirs.word:
            entry = index.filler(ours.kind, ours.word)
            within = path if ours.kind == "section" else f"{path}.{ours.word}"
            for name, value in ours.options:
                lone = entry.parameter(name).role == "value"
                inside = within if lone else f"{within}.{name}"
                yield from differing(inside, value, theirs[name], index)
        case (Named(), Named()):
            here, there = dict(ours), dict(theirs)
            for name in dict.fromkeys([*here, *there]):
                yield from differing(f"{path}.{name}", here.get(name), there.get(name), index)
        case _ if isinstance(ours, NODE) and isinstance(theirs, NODE):
            yield from _differing_nodes(path, ours, theirs, index)
        case _ if ours != theirs:
            yield path, told(ours, index), told(theirs, index)


def _differing_nodes(
    path: str, ours: Node, theirs: Node, index: Index
) -> Iterator[tuple[str, str, str]]:
    """What a leaf holds, such as an expert: told whole unless only options differ."""
    if spell(ours) != spell(theirs):
        yield path, spell(ours), spell(theirs)
        return
    for our, their in zip(leaves(ours), leaves(theirs), strict=True):
        yield from differing_options(f"{path}.{our.word}", our, their, index)


def differing_options(
    path: str, ours: Leaf, theirs: Leaf, index: Index
) -> Iterator[tuple[str, str, str]]:
    """The options of two leaves of one word; a size that others make in both is not told, and a
    reference is not looked at.
    """
    entry = index.node(ours.word)
    for name, value in ours.options:
        other = theirs[name]
        if edges_in(value) or edges_in(other) or _both_follow(entry, name, ours, theirs):
            continue
        lone = entry.parameter(name).role == "value"
        yield from differing(path if lone else f"{path}.{name}", value, other, index)


def _both_follow(entry: Entry, name: str, ours: Leaf, theirs: Leaf) -> bool:
    default = entry.parameter(name).default
    return isinstance(default, SizeDefault) and all(
        follows(default, leaf[name], dict(leaf.options)) for leaf in (ours, theirs)
    )


# A node as parts in a row


@dataclass(frozen=True)
class Part:
    """A leaf, a label, or a bracket of a branch; ``depth`` counts the brackets round a bracket."""

    word: str
    node: Leaf | Tap | None = None
    depth: int = 0

    @property
    def key(self) -> Hashable:
        """What two parts have alike that may be one: their word, and brackets their depth."""
        return self.word, self.depth


def parts(node: Node, depth: int = 0) -> Iterator[Part]:
    """A node in order of execution, each branch in brackets."""
    match node:
        case Leaf():
            yield Part(node.word, node)
        case Tap():
            yield Part("label", node)
        case Chain():
            for item in node.items:
                yield from parts(item, depth)
        case Residual():
            yield from bracketed("residual: [", parts(node.body, depth + 1), depth)
        case Joined():
            joined = chain(parts(node.joiner), parts(node.body, depth + 1))
            yield from bracketed("joined: [", joined, depth)
        case Parallel():
            inside = (
                part
                for branch in node.branches
                for part in bracketed("[", parts(branch, depth + 2), depth + 1)
            )
            yield from bracketed("parallel: [", inside, depth)
        case Layer():
            yield from parts(node.body, depth)


def bracketed(word: str, inside: Iterable[Part], depth: int) -> Iterator[Part]:
    yield Part(word, depth=depth)
    yield from inside
    yield Part("]", depth=depth)


def around_layers(graph: Graph) -> list[Part]:
    """The parts of a model outside its layers, each run of which is one part."""
    runs = [(key, list(run)) for key, run in groupby(graph.items, lambda i: isinstance(i, Layer))]
    several = sum(key for key, _ in runs) > 1
    found: list[Part] = []
    for is_layers, run in runs:
        if is_layers:
            which = spans([layer.index for layer in run if isinstance(layer, Layer)])
            found.append(Part(f"layers {which}" if several else "layers"))
        else:
            found += [part for item in run for part in parts(item)]
    return found


def text(row: Sequence[Part]) -> str:
    """Parts as a recipe writes them."""
    joined = ", ".join(part.word for part in row)
    joined = re.sub(r"joined: \[, (\w+)(, )?", r"\1: [", joined)  # the joiner's word goes before
    joined = joined.replace("[, ", "[").replace(", ]", "]")
    return re.sub(r"\[(\w+)\]", r"\1", joined)


def is_whole(row: Sequence[Part]) -> bool:
    """Whether every bracket has its other half."""
    depth = 0
    for part in row:
        depth += part.word.endswith("[") - (part.word == "]")
        if depth < 0:
            return False
    return depth == 0


def steps_between(
    ours: Sequence[Hashable], theirs: Sequence[Hashable]
) -> Sequence[tuple[str, int, int, int, int]]:
    """How one row becomes another, as ``difflib`` tells it."""
    return SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()


# Two graphs


@dataclass(frozen=True)
class _Found:
    """One difference in one place; ``leaf`` is the first model's, whose option it is."""

    place: Place
    what: str
    before: str
    after: str
    leaf: Leaf | None = None


class _Comparison:
    """Two graphs, and which leaf and label of the second each of the first became."""

    def __init__(self, first: Graph, second: Graph, index: Index) -> None:
        self.first, self.second, self.index = first, second, index
        self.became: dict[int | str, int | str] = {}
        self.pairs: list[tuple[Place, Leaf, Leaf]] = []

    def changes(self) -> list[Change]:
        """Every change, the model's own sizes first."""
        sizes = [
            Change(name, str(ours), str(theirs))
            for (name, ours), (_, theirs) in zip(
                _sizes(self.first), _sizes(self.second), strict=True
            )
            if ours != theirs
        ]
        found = [*self.structure(), *self.options()]
        told_above = {(change.what, change.before, change.after) for change in sizes}
        rest = [
            f for f in found if (f.what.rpartition(".")[2], f.before, f.after) not in told_above
        ]
        return [*sizes, *_grouped(rest, self.first)]

    def structure(self) -> list[_Found]:
        """What came, went, or stands otherwise; it notes which leaf became which."""
        found = self.rows(None, around_layers(self.first), around_layers(self.second))
        for ours, theirs in self.aligned():
            found += self.rows(ours.index, list(parts(ours)), list(parts(theirs)))
        return [*found, *self.unpaired()]

    def aligned(self) -> list[tuple[Layer, Layer]]:
        """Layers of both models, in order: each with its like, and what lies between in turn."""
        ours, theirs = self.first.layers, self.second.layers
        if len(ours) == len(theirs):
            return list(zip(ours, theirs, strict=True))
        shapes = ([shape(layer.body) for layer in layers] for layers in (ours, theirs))
        matched = steps_between(*shapes)
        return [
            pair for _, a, b, c, d in matched for pair in zip(ours[a:b], theirs[c:d], strict=False)
        ]

    def unpaired(self) -> list[_Found]:
        """Layers of either model that have no counterpart, unless they are like one that has."""
        aligned = self.aligned()
        found = []
        for side, layers in enumerate((self.first.layers, self.second.layers)):
            paired = {pair[side].index for pair in aligned}
            known = {shape(layer.body) for layer in layers if layer.index in paired}
            alone = [layer for layer in layers if layer.index not in paired]
            new = {shape(layer.body): layer for layer in alone}
            for body, layer in new.items():
                if body not in known:
                    what = f"layer [{text(list(parts(layer)))}]"
                    found.append(_came_or_went(None, what, came=bool(side)))
        return found

    def rows(self, place: Place, ours: Sequence[Part], theirs: Sequence[Part]) -> list[_Found]:
        """What came or went between two rows of parts; both in full where something moved."""
        cuts = []
        for step, a, b, c, d in steps_between(
            *([part.key for part in row] for row in (ours, theirs))
        ):
            if step == "equal":
                for our, their in zip(ours[a:b], theirs[c:d], strict=True):
                    self.pair(place, our, their)
            else:
                cuts += list(_finer(ours, theirs, (a, b, c, d)))
        if _moved(ours, theirs, cuts):
            what = "around the layers" if place is None else "layer"
            return [_Found(place, what, f"[{text(ours)}]", f"[{text(theirs)}]")]
        return [one for cut in cuts for one in self.row(place, ours, theirs, cut)]

    def row(
        self, place: Place, ours: Sequence[Part], theirs: Sequence[Part], cut: Cut
    ) -> Iterator[_Found]:
        """One step: a leaf for a leaf, or what went and what came."""
        a, b, c, d = cut
        match ours[a:b], theirs[c:d]:
            case ([Part(node=Leaf() as leaf)], [Part(node=Leaf() as other)]):
                yield _Found(place, "", self.in_full(leaf), self.in_full(other), leaf)
                return
        if a < b:
            yield _came_or_went(place, f"{text(ours[a:b])}{_by(ours, a, b)}", came=False)
        if c < d:
            yield _came_or_went(place, f"{text(theirs[c:d])}{_by(theirs, c, d)}", came=True)

    def in_full(self, leaf: Leaf) -> str:
        whole = caption(leaf, self.index)
        return f"{whole.word} ({', '.join(whole.details)})" if whole.details else whole.word

    def pair(self, place: Place, ours: Part, theirs: Part) -> None:
        match ours.node, theirs.node:
            case (Leaf() as leaf, Leaf() as other):
                self.became[leaf.name] = other.name
                self.pairs.append((place, leaf, other))
            case (Tap() as tap, Tap() as other_tap):
                self.became[tap.number] = other_tap.number

    def options(self) -> Iterator[_Found]:
        """What differs in the leaves that are in both: options, references, whose weights."""
        for place, ours, theirs in self.pairs:
            for path, before, after in differing_options(ours.word, ours, theirs, self.index):
                yield _Found(place, path, before, after, ours)
            yield from self.references(place, ours, theirs)
            own = ours.weights == ours.name and theirs.weights == theirs.name
            if not own and self.became.get(ours.weights) != theirs.weights:
                yield _Found(place, "weights", _owner(ours), _owner(theirs))

    def references(self, place: Place, ours: Leaf, theirs: Leaf) -> Iterator[_Found]:
        for name, value in ours.options:
            before, after = edges_in(value), edges_in(theirs[name])
            moved = [(edge.port, self.became.get(edge.source)) for edge in before]
            if moved != [(edge.port, edge.source) for edge in after]:
                told = _read(before, self.first), _read(after, self.second)
                yield _Found(place, f"{ours.word}.{name}", *told, ours)


def is_leaf(part: Part) -> bool:
    return isinstance(part.node, Leaf)


def _finer(ours: Sequence[Part], theirs: Sequence[Part], cut: Cut) -> Iterator[Cut]:
    """A cut, taken apart where a leaf stands for another of its kind: a norm for a norm."""
    a, b, c, d = cut
    kinds = ([_kind(part) for part in row] for row in (ours[a:b], theirs[c:d]))
    for step, i, j, k, m in steps_between(*kinds):
        if step == "equal":
            yield from ((a + i + n, a + i + n + 1, c + k + n, c + k + n + 1) for n in range(j - i))
        else:
            yield a + i, a + j, c + k, c + m


def _kind(part: Part) -> Hashable:
    return part.node.kind if isinstance(part.node, Leaf) else part.key


def _moved(ours: Sequence[Part], theirs: Sequence[Part], cuts: Sequence[Cut]) -> bool:
    """Whether a change is more than leaves and whole branches that came or went."""
    gone = {part.word for a, b, c, d in cuts if c == d for part in ours[a:b]}
    new = {part.word for a, b, c, d in cuts if a == b for part in theirs[c:d]}
    whole = all(is_whole(ours[a:b]) and is_whole(theirs[c:d]) for a, b, c, d in cuts)
    return bool(gone & new) or not whole


def _came_or_went(place: Place, what: str, *, came: bool) -> _Found:
    return _Found(place, what, "" if came else "there", "there" if came else "")


def _by(row: Sequence[Part], start: int, stop: int) -> str:
    """Beside which leaf a part of a row stands: in its own list if there is one, else the last."""
    before, after = row[:start], row[stop:]
    if before and is_leaf(before[-1]):
        return f" after {before[-1].word}"
    if after and is_leaf(after[0]):
        return f" before {after[0].word}"
    nearest = [part.word for part in reversed(before) if is_leaf(part)]
    return f" after {nearest[0]}" if nearest else ""


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _sizes(graph: Graph) -> list[tuple[str, int]]:
    width = next(leaf.out for leaf in leaves(graph))
    return [
        ("layers", len(graph.layers)),
        ("dim", width),
        ("vocab", graph.vocab),
        ("context", graph.context),
    ]


def _owner(leaf: Leaf) -> str:
    return "own" if leaf.weights == leaf.name else f"those of {_home(leaf.weights)}"


def _home(name: str) -> str:
    """The layer that a name lies in, or else the name."""
    return f"layer {name.split('.')[1]}" if LAYER.match(name) else name


def _read(edges: Sequence[Edge], graph: Graph) -> str:
    """What edges read, in words."""
    homes: dict[int | str, str] = {
        tap: f"layer {layer.index}" for layer in graph.layers for tap in taps(layer)
    }
    read = (homes.get(edge.source, _home(str(edge.source))) for edge in edges)
    return ", ".join(read) or "none"


# The same difference in several places


def _grouped(found: Sequence[_Found], graph: Graph) -> list[Change]:
    """Each difference once, for all the layers that have it."""
    groups: dict[tuple[str, str, str], list[_Found]] = defaultdict(list)
    for one in found:
        groups[one.what, one.before, one.after].append(one)
    return [change for group in groups.values() for change in _told_once(group, graph)]


def _told_once(group: Sequence[_Found], graph: Graph) -> Iterator[Change]:
    """One change for a group; where only some leaves of a word changed, one for each of these."""
    what, before, after = group[0].what, group[0].before, group[0].after
    places = {one.place for one in group}
    changed = {one.leaf.name: one.place for one in group if one.leaf is not None}
    if group[0].leaf is None:
        every: set[Place] = {layer.index for layer in graph.layers}
        yield Change(what, before, after, "" if places == every else _layers(places))
        return
    word = group[0].leaf.word
    alike = [(place, leaf.name) for place, leaf in _placed(graph) if leaf.word == word]
    if len(changed) == len(alike):
        yield Change(what, before, after)
    elif None not in places and all(name in changed for place, name in alike if place in places):
        yield Change(what, before, after, _layers(places))
    else:
        for short in dict.fromkeys(map(_short, changed)):
            here = {place for name, place in changed.items() if _short(name) == short}
            every = {place for place, name in alike if _short(name) == short}
            where = "" if here == every else _layers(here)
            yield Change(short + what.removeprefix(word), before, after, where)


def _short(name: str) -> str:
    """A leaf's name within its layer."""
    return LAYER.sub("", name)


def _placed(graph: Graph) -> Iterator[tuple[Place, Leaf]]:
    for item in graph.items:
        for leaf in leaves(item):
            yield (item.index if isinstance(item, Layer) else None), leaf


def _layers(places: Collection[Place]) -> str:
    inside = [place for place in places if place is not None]
    return f"layer{'s' * (len(inside) > 1)} {spans(inside)}" if inside else ""
