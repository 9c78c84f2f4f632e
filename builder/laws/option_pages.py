"""Pages that hold one word, each in another setting of its options and of those beside it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, islice, product
from pathlib import Path
from typing import TypeAlias

from blocks.kinds import NODES
from builder.errors import RecipeError
from builder.expressions import names, parse
from builder.index import REQUIRED, ROOT, Entry, Index, Parameter, Type
from builder.laws.grammar import OF_THE_PAGE, Written, written
from builder.recipe import Recipe, load_recipe

Key: TypeAlias = tuple[int, str]  # how far out a word stands, and a name of it; PAGE for a dim
Setting: TypeAlias = Mapping[Key, Written]

WIDTHS: tuple[dict[str, int], ...] = (
    {"dim": 8, "heads": 2},
    {"dim": 16, "heads": 2},
    {"dim": 64, "heads": 4},
)
OTHERS = {"vocab": 11, "context": 24}
EACH = 4  # of a size that has no default
WHOLE = (2, 1, 3, 4, 6, 8, 5, 7, 12, 16, 0, -1, 32, 64, 128, 1024)
REAL = (0.5, 0.25, 0.75, 1.5, 3.0, 0.1, 0.9, 8.0, 0.01, 1.0, 0.0, -0.5, 100.0, 1e4)
WORDS = ("word", "other")
LABELS = ("near", "far")
LENT = "lent"
PAGE = -1
BESIDE = 4  # legal values tried beside a changed option, and values tried of that one
PAGES, FEWER = 300, 40  # written for one parameter in the first place, and in another, at the most


def model_entries(index: Index) -> list[Entry]:
    """What a model may hold: the nodes, and what fills their slots."""
    entries = [entry for entry in index if entry.kind in NODES]
    for entry in entries:  # which grows meanwhile
        kinds = {p.type.slot for p in entry.parameters if p.type.base == "slot"}
        entries += [e for e in index if e.kind in kinds and e not in entries]
    return sorted(entries, key=lambda entry: (entry.kind, entry.word))


def writable(entry: Entry) -> list[Parameter]:
    """What may be written under a word: not the width that reaches it, nor a filler's sizes."""
    if entry.kind not in NODES:
        return [p for p in entry.parameters if p.role != "size"]
    unasked = () if NODES[entry.kind].reads == "tokens" else ("dim",)
    return [p for p in entry.parameters if p.name not in unasked]


@dataclass(frozen=True)
class Place:
    """Where a word stands: on a page of its own, or in a slot of a word that does.

    ``above`` are those whose slots it and they fill, innermost first, each with the slot's name.
    """

    entry: Entry
    above: tuple[tuple[Entry, str], ...] = ()

    @property
    def outermost(self) -> Entry:
        return self.above[-1][0] if self.above else self.entry

    def parameters(self) -> Iterator[tuple[Key, Parameter]]:
        """All that may be written here, but for the slots that are filled already."""
        yield from (((0, p.name), p) for p in writable(self.entry))
        for out, (parent, slot) in enumerate(self.above, 1):
            yield from (((out, p.name), p) for p in writable(parent) if p.name != slot)

    def options(self, setting: Setting) -> dict[str, Written]:
        """What stands under the outermost word."""
        entry, options = self.entry, written_in(setting, 0)
        for out, (parent, slot) in enumerate(self.above, 1):
            options = {slot: written(entry, options), **written_in(setting, out)}
            entry = parent
        return options


def written_in(setting: Setting, place: int) -> dict[str, Written]:
    """What a setting holds for one word of a place, or as the page's dims."""
    return {name: value for (out, name), value in setting.items() if out == place}


def places(entry: Entry, index: Index, below: tuple[Entry, ...] = ()) -> Iterator[Place]:
    """A node's own page, and every slot that a filler may fill."""
    if entry.kind in NODES:
        yield Place(entry)
        return
    for parent in model_entries(index):
        slots = [p.name for p in parent.parameters if p.type.slot == entry.kind]
        for slot in slots if parent not in (*below, entry) else ():
            for place in places(parent, index, (*below, entry)):
                yield Place(entry, ((parent, slot), *place.above))


def ends(values: Sequence[Written], count: int) -> Sequence[Written]:
    """So many of them: the first, and the last, which of numbers is the largest."""
    return values if len(values) <= count else [*values[: count - 1], values[-1]]


@dataclass
class Pages:
    """Pages that hold one word, each in another setting."""

    entry: Entry
    index: Index
    widths: Mapping[str, int]
    read: dict[str, Recipe | None] = field(default_factory=dict)

    def keys(self, name: str) -> list[Key]:
        """Where a parameter is changed: under the word, else, if all must agree, on the page."""
        size = name in OF_THE_PAGE and self.entry.parameter(name).role == "size"
        return [(0, name), *([(PAGE, name)] if size else [])]

    def pairs(
        self, key: Key, place: Place, base: Setting
    ) -> Iterator[tuple[Recipe, Recipe] | None]:
        """Legal recipes that differ in this alone; None for each page that gives no such pair.

        What a check names together with it is changed beside it first, then what else stands under
        the word.
        """
        checks = [names(parse(check, checks=True)) for check in self.entry.checks]
        named = set().union(*(some for some in checks if key[1] in some))
        own = {parameter.name for parameter in self.entry.parameters}
        wider = [(n, among) for among in (named, own, None) for n in (1, 2)]
        for others, among in [(0, named), *wider]:
            for setting in self.beside(place, base, key, others, among):
                yield from self.changes(place, setting, key, BESIDE if others else None)

    def changes(
        self, place: Place, setting: Setting, key: Key, limit: int | None
    ) -> Iterator[tuple[Recipe, Recipe] | None]:
        """The first legal value of a parameter with each other: unwritten, if that is legal."""
        unwritten = {k: value for k, value in setting.items() if k != key}
        first, found = self.recipe(place, unwritten), 0
        for value in self.values(self.entry.parameter(key[1])):
            recipe = self.recipe(place, {**unwritten, key: value})
            if recipe is None or first is None or recipe.graph == first.graph:
                first = first or recipe
                yield None
                continue
            yield first, recipe
            found += 1
            if found == limit:
                return

    def beside(
        self, place: Place, base: Setting, key: Key, others: int, among: Collection[str] | None
    ) -> Iterator[Setting]:
        """The base with so many options changed beside this one, of any or of some names."""
        changed = [
            (k, value)
            for k, parameter in place.parameters()
            if k != key and (among is None or k[1] in among)
            for value in ends(self.values(parameter), BESIDE)
        ]
        for some in combinations(changed, others):
            if len(dict(some)) == others:
                yield {**base, **dict(some)}

    @cached_property
    def bases(self) -> list[tuple[Place, Setting]]:
        """Where the word can stand, with all that must be written there, and the page's dims."""
        everywhere = places(self.entry, self.index)
        return [(place, base) for place in everywhere if (base := self.base(place)) is not None]

    def base(self, place: Place) -> Setting | None:
        """The first legal setting of what must be written, under dims of these widths."""
        sizes = {p.name for e in self.index if e.kind in NODES for p in e.sizes if needed(p)}
        dims = {**dict.fromkeys(sorted(sizes), EACH), **OTHERS, **self.widths}
        must = {k: p for k, p in place.parameters() if needed(p) and p.name not in dims}
        on_page = {(PAGE, name): number for name, number in dims.items()}
        for values in islice(product(*map(self.values, must.values())), PAGES):
            setting = {**on_page, **dict(zip(must, values, strict=True))}
            if self.recipe(place, setting) is not None:
                return setting
        return None

    def recipe(self, place: Place, setting: Setting) -> Recipe | None:
        """The page of a setting, or None where it is refused."""
        model = self.model(place.outermost, place.options(setting))
        page = {"recipe": 1, "dims": written_in(setting, PAGE), "model": model}
        text = repr(page)
        if text not in self.read:
            try:
                self.read[text] = load_recipe(page, (), self.plugins)
            except RecipeError:
                self.read[text] = None
        return self.read[text]

    @cached_property
    def plugins(self) -> tuple[Path, ...]:
        paths = (entry.path for entry in self.index)
        return tuple(dict.fromkeys(path for path in paths if not path.is_relative_to(ROOT)))

    def model(self, entry: Entry, options: dict[str, Written]) -> list[Written]:
        """The shortest model where a word matters: tokens are mixed, and labels can be read."""
        mixer = {"residual": [{"attention": {}, "as": LABELS[1]}]}
        if entry.kind == "embedding":
            return [labelled(written(entry, options), LABELS[0]), mixer, "lm_head"]
        start = [{"token_embedding": {}, "as": LABELS[0]}, mixer]
        if entry.kind == "head":
            return [*start, written(entry, options)]
        if entry.joins:
            return [*start, {entry.word: "mlp", **options}, "lm_head"]
        return [*start, *self.lenders(entry, options), written(entry, options), "lm_head"]

    def lenders(self, reader: Entry, options: Mapping[str, Written]) -> Iterator[Written]:
        """Leaves that lend what a reader may read, like it in all else."""
        ports = {p.type.slot for p in reader.parameters if p.type.refers} - {"stream"}
        references = {p.name for p in reader.parameters if p.type.refers}
        for entry in self.index:
            if ports & set(entry.lends):
                alike = {k: v for k, v in options.items() if k not in references}
                under = alike if entry == reader else {}
                yield {"residual": [{entry.word: under, "as": LENT}]}

    def values(self, parameter: Parameter) -> list[Written]:
        """Plain values of a parameter's type, legal or not."""
        found = list(self._of_type(parameter.type))
        return [*found, "none"] if parameter.type.optional else found

    def _of_type(self, type: Type) -> Iterator[Written]:
        match type.base:
            case "int":
                yield from dict.fromkeys((*WHOLE, *(round(n) for n in self.limits)))
            case "float":
                yield from dict.fromkeys((*REAL, *self.limits))
            case "bool":
                yield from (True, False)
            case "literal":
                yield from type.choices
            case "str":
                yield from WORDS
            case "slot":
                fillers = [self.index.filler(type.slot, w) for w in self.index.words(type.slot)]
                plain = [self.filled(filler) for filler in fillers]
                yield from (value for values in plain for value in values)
                yield from self.varied(fillers)
            case "node":
                yield from (*self.index.words("ffn"), *self.index.words("norm"))
            case "reference":
                yield from LABELS if type.slot == "stream" else (LENT,)
            case "list" if type.item is not None and type.item.base == "reference":
                yield from LABELS
            case "map" if type.item is not None:
                yield from ({name: value} for name in WORDS for value in self._of_type(type.item))
            case "list" if type.item is not None:
                yield from ([value] * n for n in (2, 1) for value in self._of_type(type.item))

    def filled(self, filler: Entry) -> Iterator[Written]:
        """A filler with each value of what must be written under it."""
        must = {p.name: p for p in writable(filler) if needed(p)}
        for values in islice(product(*map(self.values, must.values())), len(WHOLE)):
            yield written(filler, dict(zip(must, values, strict=True)))

    def varied(self, fillers: Sequence[Entry]) -> Iterator[Written]:
        """Fillers with one option written: a slot that only one word fills is alive by those."""
        for filler in fillers:
            options = writable(filler)
            for p in options if not any(map(needed, options)) else ():
                plain = p.type.base not in ("slot", "node")
                yield from (written(filler, {p.name: v}) for v in self.values(p)[: BESIDE * plain])

    @cached_property
    def limits(self) -> list[float]:
        """Numbers round those that the word's own checks name: a legal one may be far from ours."""
        text = " ".join(self.entry.checks)
        named = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
        return [number + step for number in named for step in (0, 1, -1, number)]


def labelled(node: Written, label: str) -> Written:
    """A leaf that bears a label."""
    return {**(node if isinstance(node, dict) else {node: {}}), "as": label}


def needed(parameter: Parameter) -> bool:
    return parameter.default is REQUIRED
