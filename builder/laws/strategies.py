"""Hypothesis strategies that draw whole recipes: every structural word, every registered block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.vendor import pretty

from builder.errors import RecipeError
from builder.graph import leaves
from builder.index import REQUIRED, Entry, Index, Parameter, load_index
from builder.laws.grammar import OF_THE_PAGE, Accepts, Grammar, Written, written
from builder.laws.respell import respelled
from builder.read import to_python
from builder.recipe import Recipe, load_recipe

Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Page: TypeAlias = dict[str, Any]

NAMES = ("first", "second", "third")
LABELS = ("near", "far")
CONTEXT = 40
LEAVES = 40
NARROWEST = 2  # a norm of one number is its sign, or nothing


def _show(recipe: Recipe, printer: Any, cycle: bool) -> None:
    """A failing recipe as one would write it; hypothesis alone would print the whole graph."""
    printer.text(f"load_recipe({to_python(recipe.page)!r})")


pretty.for_type_by_name("builder.recipe", "Recipe", _show)


@dataclass(frozen=True)
class Where:
    """A place in a page: what stands here must keep the stream's ``width``.

    ``depth`` is how many branches may still be opened; ``expert`` is asked in an expert, where
    nothing may look at other tokens; ``blocks`` are the names that may be used, and ``sought`` is a
    word that is put wherever it can stand.
    """

    grammar: Grammar
    width: int
    depth: int = 2
    blocks: tuple[str, ...] = ()
    expert: Accepts | None = None
    sought: str = ""

    def seeks(self, entry: Entry) -> bool:
        """Whether a word is the one that is sought, or has a slot for it."""
        slots = (p for p in entry.parameters if p.type.base == "slot")
        return entry.word == self.sought or any(map(self.seeks_in, slots))

    def seeks_in(self, parameter: Parameter) -> bool:
        """Whether the word that is sought may fill a slot, or one of what may fill it."""
        kind, index = parameter.type.slot, self.grammar.index
        return any(self.seeks(index.filler(kind, word)) for word in index.words(kind))

    def accepts(self, node: Written) -> bool:
        return self.expert(node) if self.expert else self.grammar.keeps(node, self.width)

    def between(self, opened: Written, closed: Written, width: int) -> Where:
        """The place within ``[opened, ..., closed]``, where the stream has another width."""
        if self.expert is None:
            return replace(self, width=width, blocks=())
        expert = self.expert
        return replace(self, width=width, expert=lambda node: expert([opened, node, closed]))


def recipes(
    max_layers: int = 3,
    max_dim: int = 16,
    plugins: Sequence[Path] = (),
    holding: Sequence[str] = (),
) -> st.SearchStrategy[Recipe]:
    """Small recipes over all that is registered, in ``blocks/`` and in the plug-ins.

    Each holds one of the words of ``holding``, if one is drawn that can stand somewhere.
    """
    drawn = pages(max_layers, max_dim, plugins, holding)
    return drawn.map(lambda page: load_recipe(page, (), plugins)).filter(is_small)


def is_small(recipe: Recipe) -> bool:
    """Whether rounding stays rounding: a hundred leaves on end can make it a difference."""
    return sum(1 for _ in leaves(recipe.graph)) <= LEAVES


@st.composite
def pages(
    draw: Draw,
    max_layers: int = 3,
    max_dim: int = 16,
    plugins: Sequence[Path] = (),
    holding: Sequence[str] = (),
) -> Page:
    """A recipe's page, as dicts and lists."""
    index = _index(tuple(plugins))
    grammar = Grammar(index, draw(_dims(index, max_dim)))
    where = Where(grammar, grammar.dims["dim"])
    blocks: dict[str, Written] = {}
    for name in NAMES[: draw(st.integers(1, len(NAMES)))]:
        blocks[name] = _branch(draw, replace(where, blocks=tuple(blocks)))
    where = replace(where, blocks=tuple(blocks))
    seeking = replace(where, sought=draw(st.sampled_from(holding))) if holding else where
    start = _leaf(draw, seeking, grammar.entries(reads="tokens", gives="stream"), _starts(grammar))
    body, width = _body(draw, where, max_layers)
    body = [*_holding(draw, seeking), *body] if holding else body
    ends = grammar.entries(reads="stream", gives="logits")
    head = _leaf(draw, seeking, ends, lambda node: _ends(grammar, node, width))
    model = [start, *body, head, *_on_logits(draw, where)]
    page = {"recipe": 1, "dims": dict(grammar.dims), "blocks": blocks, "model": model}
    return _mixed(draw, page)


def _mixed(draw: Draw, page: Page) -> Page:
    """The page, or one that gathers before its head what all nodes of a label gave."""
    if draw(st.integers(0, 2)):
        return page
    start, *between, last = page["model"]
    if label := draw(st.sampled_from(["", *LABELS])):
        start = {**(start if isinstance(start, dict) else {start: {}}), "as": label}
    reader = draw(st.sampled_from([{"mix": "near"}, {"mix": "far"}, {"add": "far"}]))
    other = {**page, "model": [start, *between, reader, last]}
    return other if _resolves(other) else page


def _resolves(page: Page) -> bool:
    try:
        load_recipe(page)
    except RecipeError:
        return False
    return True


@st.composite
def respellings(draw: Draw, /, **limits: Any) -> tuple[Recipe, Recipe]:
    """One model, spelt in two ways."""
    page = draw(pages(**limits))
    other = respelled(page, lambda low, high: draw(st.integers(low, high)))
    first = load_recipe(page)
    assume(is_small(first))
    return first, load_recipe(other)


@st.composite
def swaps(draw: Draw, /, **limits: Any) -> tuple[Recipe, Recipe]:
    """Two models that differ by what stands in one block."""
    page = draw(pages(**limits))
    name = draw(st.sampled_from(list(page["blocks"])))
    grammar = Grammar(_index(()), page["dims"])
    before = tuple(page["blocks"])[: list(page["blocks"]).index(name)]
    new = _branch(draw, Where(grammar, grammar.dims["dim"], blocks=before))
    other = page | {"blocks": page["blocks"] | {name: new}}
    assume(_resolves(other))  # it may have borne a label that is read further on
    return load_recipe(page), load_recipe(other)


@cache
def _index(plugins: tuple[Path, ...]) -> Index:
    return load_index(plugins)


# Sizes


@st.composite
def _dims(draw: Draw, index: Index, max_dim: int) -> dict[str, Any]:
    """A dim for each size that some node needs; ``ff`` and the like may be one number a layer."""
    heads = draw(st.sampled_from([1, 2, 4]))
    dim = heads * draw(st.sampled_from([n for n in (2, 4, 6, 8) if 8 <= heads * n <= max_dim]))
    dims: dict[str, Any] = {"dim": dim, "heads": heads}
    dims |= {"vocab": draw(st.integers(11, 17)), "context": CONTEXT}
    if draw(st.booleans()):
        dims["kv_heads"] = draw(st.sampled_from([n for n in (1, 2, 4) if heads % n == 0]))
    for entry in sorted(index, key=lambda entry: entry.word):
        for size in entry.sizes if entry.namespace == "node" else ():
            if size.default is REQUIRED and size.name not in dims:
                dims[size.name] = draw(st.integers(3, 6))
    if draw(st.integers(0, 4)) == 0:
        dims["ff"] = [draw(st.integers(3, 6)) for _ in range(16)]
    return dims


# Leaves and what fills their slots


def _starts(grammar: Grammar) -> Accepts:
    return lambda node: grammar.graph([node, "lm_head"]) is not None


def _ends(grammar: Grammar, node: Written, width: int) -> bool:
    return grammar.graph([*grammar.start(width), node]) is not None


def _on_logits(draw: Draw, where: Where) -> list[Written]:
    entries = where.grammar.entries(reads="logits", gives="logits")

    def accepts(node: Written) -> bool:
        return where.grammar.graph(["token_embedding", "lm_head", node]) is not None

    count = draw(st.sampled_from([0, 0, 1]))
    there = replace(where, width=where.grammar.dims["vocab"])
    return [_leaf(draw, there, entries, accepts) for _ in range(count)]


def _leaf(
    draw: Draw, where: Where, entries: Sequence[Entry], accepts: Accepts, first: int | None = None
) -> Written:
    """One of these leaves, of the ``first`` few if one of them can stand here, with options."""
    turned = [*_turned(draw, entries[:first]), *entries[first or len(entries) :]]
    for entry in sorted(turned, key=lambda entry: not where.seeks(entry)):

        def fits(given: dict[str, Any], entry: Entry = entry) -> bool:
            return accepts(written(entry, given))

        options = _options(draw, where, entry, fits)
        if options is not None:
            return written(entry, options)
    raise AssertionError(f"none of {[entry.word for entry in entries]} can stand in {where}")


def _options(
    draw: Draw, where: Where, entry: Entry, accepts: Accepts, *, filler: bool = False
) -> dict[str, Any] | None:
    """Some of an entry's options, each legal beside those before it; None where none are."""
    free = [p for p in entry.parameters if p.name not in OF_THE_PAGE and not p.type.refers]
    free = [p for p in free if not (filler and p.role == "size")]
    needed = [p for p in free if where.grammar.must_be_written(p)]
    chosen: dict[str, Any] = {}
    for parameter in needed:  # each beside a stopgap for those that follow
        beside = {p.name: _stopgap(where, p) for p in needed} | chosen

        def good(value: Any, name: str = parameter.name, beside: Any = beside) -> bool:
            return accepts({**beside, name: value})

        found = _value(draw, where, parameter, good)
        if found is None:
            return None
        chosen[parameter.name] = found[0]
    if not accepts(chosen):
        return None
    for parameter in free:
        often = 2 if parameter.type.base in ("slot", "node") else 4
        often = 1 if where.seeks_in(parameter) else often
        if parameter not in needed and draw(st.integers(1, often)) == 1:
            beside = dict(chosen)

            def fits(value: Any, name: str = parameter.name, beside: Any = beside) -> bool:
                return accepts({**beside, name: value})

            found = _value(draw, where, parameter, fits)
            chosen |= {parameter.name: found[0]} if found else {}
    order = [parameter.name for parameter in entry.parameters]
    return dict(sorted(chosen.items(), key=lambda item: order.index(item[0])))


def _stopgap(where: Where, parameter: Parameter) -> Any:
    if parameter.type.base == "slot":
        return where.grammar.index.words(parameter.type.slot)[0]
    if parameter.type.base == "node":
        return where.grammar.index.words("norm")[0]
    return where.grammar.values(parameter, 1)[0]


def _value(draw: Draw, where: Where, parameter: Parameter, accepts: Accepts) -> tuple[Any] | None:
    """A legal value of one option, alone in a tuple; None where there is none."""
    if parameter.type.base == "slot":
        return _filler(draw, where, parameter, accepts)
    if parameter.type.base == "node":
        if where.expert is not None or where.depth == 0:
            return None
        held = _branch(draw, replace(where, depth=1, blocks=(), expert=accepts))
        return (held,) if accepts(held) else None  # it may all be none
    values = where.grammar.values(parameter, where.width)
    return next(((value,) for value in _turned(draw, values) if accepts(value)), None)


def _filler(draw: Draw, where: Where, parameter: Parameter, accepts: Accepts) -> tuple[Any] | None:
    index, kind = where.grammar.index, parameter.type.slot
    words = _turned(draw, [*index.words(kind), *["none"] * parameter.type.optional])
    for word in sorted(words, key=lambda w: w == "none" or not where.seeks(index.filler(kind, w))):
        if word == "none":
            return ("none",) if accepts("none") else None
        entry = index.filler(kind, word)

        def fits(given: dict[str, Any], entry: Entry = entry) -> bool:
            return accepts(written(entry, given))

        options = _options(draw, where, entry, fits, filler=True)
        if options is not None:
            return (written(entry, options),)
    return None


def _turned(draw: Draw, values: Sequence[Any]) -> list[Any]:
    """The values from a drawn one on, and then those before it."""
    start = draw(st.integers(0, len(values) - 1)) if values else 0
    return [*values[start:], *values[:start]]


# Branches: streams that end as they began


def _branch(draw: Draw, where: Where) -> list[Written]:
    return [_item(draw, where) for _ in range(draw(st.integers(1, 3)))]


def _item(draw: Draw, where: Where) -> Written:
    choices = ["leaf"] * 5
    if where.depth:
        choices += ["residual"] * 4 + ["parallel", "list", "none", "wide", "copies", "joined"]
        choices += ["skip", "lent"] if where.expert is None else []
    choices += ["block", "like"] if where.blocks else []
    choice = draw(st.sampled_from(choices))
    within = replace(where, depth=where.depth - 1)
    match choice:
        case "leaf":
            entries = where.grammar.entries(reads="stream", gives="stream")
            first = draw(st.sampled_from(sorted({entry.kind for entry in entries})))
            entries.sort(key=lambda entry: entry.kind != first)  # a kind of few words is no rarer
            leaf = _leaf(draw, where, entries, where.accepts, sum(e.kind == first for e in entries))
            if first != "ffn" or draw(st.integers(0, 3)) == 0:
                return leaf
            norms = [entry for entry in entries if entry.kind == "norm"]
            return [_leaf(draw, where, norms, where.accepts), leaf]  # products of products explode
        case "residual":
            return {"residual": _branch(draw, within)}
        case "parallel":
            return {"parallel": [_branch(draw, within), _item(draw, within)]}
        case "list":
            return _branch(draw, within)
        case "none":
            return "none"
        case "wide":
            return _widened(draw, within)
        case "copies":
            times, share = draw(st.integers(1, 2)), _share(draw, where, ())
            return {"residual": {"repeat": times, "block": _branch(draw, within), **share}}
        case "joined":
            return _joined(draw, within)
        case "skip":
            label = LABELS[within.depth]
            inside = replace(within, blocks=())  # that may bear this label too
            begin = {"residual": _branch(draw, inside), "as": label}
            node = [begin, _item(draw, inside), {"add": label}]
            return node if where.accepts(node) else "none"  # what it names may be nothing
        case "lent":
            return _lent(draw, within)
        case "block":
            return draw(st.sampled_from(where.blocks))
    return _like(draw, where)


def _widened(draw: Draw, where: Where) -> Written:
    """A branch of another width, between a leaf that leads there and one that leads back."""
    grammar, changing = where.grammar, where.grammar.changing_width()
    entry = draw(st.sampled_from([e for e in changing if where.seeks(e)] or changing))
    value = draw(st.sampled_from([2, 3] if entry.outer else grammar.widths()))
    opened: Written = {entry.word: value}
    width = grammar.width_after(opened, where.width)
    if width is None or width < NARROWEST:
        return "none"
    values = (where.width, value, width // where.width)
    closers = [{entry.word: back} for entry in changing for back in values]
    backs = [closed for closed in closers if where.accepts([opened, closed])]
    if not backs:
        return "none"
    closed = draw(st.sampled_from(backs))
    return [opened, *_branch(draw, where.between(opened, closed, width)), closed]


def _joined(draw: Draw, where: Where) -> Written:
    """A joiner round a branch, of whatever width the branch then meets."""
    joiners = where.grammar.joiners()
    entry = draw(st.sampled_from([e for e in joiners if where.seeks(e)] or joiners))

    def fits(given: dict[str, Any]) -> bool:
        return where.accepts({entry.word: "rmsnorm", **given})

    options = _options(draw, where, entry, fits)
    if options is None:
        return "none"
    layer = {"repeat": 1, "block": {entry.word: "rmsnorm", **options}}
    probe = where.grammar.graph([*where.grammar.start(where.width), layer, "lm_head"])
    assert probe is not None, options
    inner = next(leaf.dim for leaf in leaves(probe) if leaf.word == "rmsnorm")
    if inner < NARROWEST or (inner != where.width and where.expert is not None):
        return "none"
    if inner != where.width:
        where = replace(where, width=inner, blocks=())
    norms = [e for e in where.grammar.entries(reads="stream", gives="stream") if e.kind == "norm"]
    first = _leaf(draw, where, norms, where.accepts)  # else it may all be nothing, and lerp idle
    return {entry.word: [first, *_branch(draw, where)], **options}


def _lent(draw: Draw, where: Where) -> Written:
    """A mixer that lends what it has, and one that reads it."""
    index = where.grammar.index
    entry = draw(st.sampled_from([index.node(w) for w in index.words("mixer") if _lends(index, w)]))

    def fits(given: dict[str, Any]) -> bool:
        return where.accepts(written(entry, given))

    options = _options(draw, where, entry, fits)
    if options is None:
        return "none"
    label = LABELS[where.depth]
    reader = draw(st.sampled_from([p.name for p in entry.parameters if p.type.refers]))
    lender = {"residual": [{entry.word: options, "as": label}]}
    return [lender, {"residual": {entry.word: {**options, reader: label}}}]


def _lends(index: Index, word: str) -> bool:
    return bool(index.node(word).lends)


def _like(draw: Draw, where: Where) -> Written:
    """A copy of a block; the one setting that fits every block is one that adds to it."""
    name = draw(st.sampled_from(where.blocks))
    return {"like": name, "set": {}} if draw(st.booleans()) else {"like": name}


def _share(draw: Draw, where: Where, names: Sequence[str]) -> dict[str, Any]:
    """Shared weights; not where a size differs by layer, for those could not be."""
    if any(isinstance(dim, list) for dim in where.grammar.dims.values()):
        return {}
    name = draw(st.sampled_from(names)) if names else True
    choice = draw(st.sampled_from([None, None, True, name, [name] if names else False]))
    return {} if choice is None else {"share": choice}


# What lies between the embedding and the head


def _body(draw: Draw, where: Where, max_layers: int) -> tuple[list[Written], int]:
    """Sections of the model, and the width that they end in."""
    body: list[Written] = []
    left = max_layers
    for _ in range(draw(st.integers(1, 2))):
        section, used = _section(draw, where, left)
        left -= used
        body.append(section)
    if draw(st.booleans()):
        body.append(_item(draw, replace(where, depth=0)))
    if draw(st.integers(0, 3)):
        return body, where.width
    width = draw(st.sampled_from(where.grammar.widths()))
    after = replace(where, width=width, depth=1, blocks=())
    return [*body, {"linear": width}, *_branch(draw, after)], width


def _holding(draw: Draw, where: Where) -> list[Written]:
    """Nodes that hold the word that is sought: in the stream, round a branch, or as a layer."""
    grammar = where.grammar
    if any(map(where.seeks, grammar.joiners())):
        node = _joined(draw, replace(where, depth=1))
    elif any(entry.word == where.sought for entry in grammar.changing_width()):
        node = _widened(draw, replace(where, depth=1))
    else:
        entries = grammar.entries(reads="stream", gives="stream")
        node = _leaf(draw, where, entries, where.accepts)
    if node == "none":
        return []
    inside: Written = draw(st.sampled_from([node, {"residual": ["rmsnorm", node]}]))
    return [draw(st.sampled_from([inside, {"repeat": 2, "block": inside}]))]


def _section(draw: Draw, where: Where, left: int) -> tuple[Written, int]:
    """Some layers, at most ``left``, and how many."""
    choices = ["items"] + ["repeat", "pattern", "layers", "rounds"] * (left > 0)
    choice = draw(st.sampled_from(choices))
    if choice == "items":
        return _branch(draw, replace(where, depth=1)), min(left, 1)
    if choice == "repeat":
        times = draw(st.integers(1, left))
        share = _share(draw, where, ())
        return {"repeat": times, "block": _entry(draw, where), **share}, times
    if choice == "rounds":  # a repeat of repeats: only the innermost count
        inner = {"repeat": 1, "block": draw(st.sampled_from(where.blocks))}
        times, entry = draw(st.integers(1, max(1, left // 2))), _entry(draw, where)
        names = [name for name in (inner["block"], entry) if name in where.blocks]
        share = _share(draw, where, names)
        return {"repeat": times, "block": [inner, entry], **share}, 2 * times
    entries = [_entry(draw, where) for _ in range(draw(st.integers(1, min(2, left))))]
    if choice == "layers":
        fits = len(entries) * draw(st.integers(1, left // len(entries)))
        depth = draw(st.sampled_from([fits, left]))
        return {"layers": depth, "pattern": entries, "remainder": "truncate"}, depth
    times = draw(st.integers(1, left // len(entries)))
    if times * (len(entries) + 1) <= left and isinstance(entries[0], str):
        entries[0] = f"{entries[0]}*2"
        used = times * (len(entries) + 1)
    else:
        used = times * len(entries)
    names = [entry for entry in entries if entry in where.blocks]
    return {"repeat": times, "pattern": entries, **_share(draw, where, names)}, used


def _entry(draw: Draw, where: Where) -> Written:
    """An entry of a pattern: mostly a block's name."""
    if draw(st.integers(0, 3)):
        return draw(st.sampled_from(where.blocks))
    return _item(draw, replace(where, depth=1))
