"""Paths: find what is written on a page, and write something else there.

``blocks.decoder.attention.mask.sliding_window`` names a block, the only ``attention`` in it, its
slot ``mask`` and the filler there.  A page is never changed: each assignment gives a new one, whose
new values remember the place of what they overrode.

"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias

from builder.budget import MAX_NESTED, Budget, too_deep
from builder.errors import Finding, Mark, RecipeError
from builder.index import Entry, Index, MakerDefault, Parameter, Type, nearest
from builder.read import Mapping, Scalar, Sequence, Value

SECTIONS = {"tokenizer": "tokenizer", "data": "data"}  # slots of the page itself
NUMBERS = (
    "repeat",
    "layers",
    "pattern",
    "block",
    "share",
    "remainder",
)  # named for the value written there
BRANCHES = ("residual", "parallel", "block", "pattern")  # what a path looks through

Step: TypeAlias = int | str
Place: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True)
class Assignment:
    """``path=value``, and where it stands."""

    path: str
    value: Value
    mark: Mark


def assign(
    page: Mapping, assignment: Assignment, index: Index, budget: Budget | None = None
) -> Mapping:
    """The page with one value changed, within a budget for them all.  RecipeError
    ``path-not-found`` or ``path-ambiguous`` if it names nothing.
    """
    blocks = page.get("blocks")
    named = {str(k.value): v for k, v in blocks} if isinstance(blocks, Mapping) else {}
    return Editor(index, named, assignment.mark, budget=budget or Budget()).page(
        page, assignment.path.split("."), assignment.value
    )


@dataclass(frozen=True)
class Editor:
    """Walks one path through values; the signatures say what a word may hold."""

    index: Index
    blocks: MappingType[str, Value]
    mark: Mark | None = None
    through: frozenset[str] = frozenset()  # the blocks whose copies are being made
    budget: Budget = field(default_factory=Budget)

    def page(self, page: Mapping, words: list[str], new: Value) -> Mapping:
        head, rest = words[0], words[1:]
        if head in ("dims", "blocks") and rest:
            held = page.get(head) or Mapping((), self.mark or page.mark)
            if not isinstance(held, Mapping):
                self._fail("path-not-found", f"{head!r} is not a map")
            old = held.get(rest[0])
            if len(rest) == 1:
                value = new if head == "dims" or old is None else _with_it(new, old)
            elif head == "dims" or old is None:
                self._unknown(".".join(words[:2]), rest[0], [str(key.value) for key, _ in held])
            else:
                value = self.node(old, rest[1:], new)
            return put(page, head, put(held, rest[0], value))
        old = page.get(head)
        if head == "model" and old is not None:
            return put(page, head, self.node(old, rest, new))
        if head in SECTIONS:
            value = self._slot(old, SECTIONS[head], rest, new) if rest else new
            return put(page, head, value)
        if head == "train" and rest:
            options = old or Mapping((), self.mark or page.mark)
            return put(
                page, head, self._options(options, self.index.filler("section", "train"), rest, new)
            )
        if head in ("name", "train") and not rest:
            return put(page, head, new)
        self._unknown(
            ".".join(words), head, ["dims", "blocks", "model", "train", "name", *SECTIONS]
        )

    def node(self, value: Value, words: list[str], new: Value) -> Value:
        """Within a node: the word found there, or the node itself if the path ends."""
        if not words:
            return _with_it(new, value)
        word, rest = words[0], words[1:]
        if isinstance(value, Mapping) and "like" in value:
            return self._through_like(value, words, new)
        places = list(self._places(value, word))
        if not places:
            self._unknown(word, word, sorted(set(_words(value, self._branches))))
        if rest and (rest[0].isdigit() or rest[0] == "all"):
            which, rest = rest[0], rest[1:]
            if which != "all" and not 1 <= int(which) <= len(places):
                self._fail(
                    "path-not-found", f"there are {len(places)} of {word!r}, and no number {which}"
                )
            places = places if which == "all" else [places[int(which) - 1]]
        elif len(places) > 1:
            shown = [f"{word}.{i + 1} ({place_mark(value, p)})" for i, p in enumerate(places[:9])]
            shown += ["..."] if len(places) > len(shown) else []
            message = f"{word!r} stands {len(places)} times"
            help = f"{', '.join(shown)}; {word}.all is every one"
            self._fail("path-ambiguous", message, help)
        for place in places:
            value = _update(value, place, lambda old: self._at(old, word, rest, new))
        return value

    def like(self, value: Mapping) -> Value:
        """The copy that ``{like: name, set: {...}}`` stands for, its settings made."""
        inside = self._inside(value)
        copy = self.blocks[str(getattr(value["like"], "value", ""))]
        settings = value.get("set")
        if settings is None:
            return copy
        if not isinstance(settings, Mapping):
            self._fail("not-a-map", "'set' takes a map of paths and values", mark=settings.mark)
        for path, new in settings:
            copy = replace(inside, mark=path.mark).node(copy, str(path.value).split("."), new)
        return copy

    def _inside(self, value: Mapping) -> Editor:
        """The editor within a copy, which may not be a copy of itself."""
        name = value["like"]
        word = name.value if isinstance(name, Scalar) else None
        if not isinstance(word, str) or word not in self.blocks:
            near = nearest(str(word), list(self.blocks))
            help = f"did you mean {near!r}?" if near else "blocks: " + ", ".join(self.blocks)
            self._fail("unknown-word", f"{word!r} is not a block", help, name.mark)
        if word in self.through:
            self._fail("block-cycle", f"block {word!r} is like itself", mark=name.mark)
        if len(self.through) == MAX_NESTED // 2:  # each is looked through, and then changed
            raise RecipeError([too_deep(name.mark)])
        return replace(self, through=self.through | {word})

    def _through_like(self, value: Mapping, words: list[str], new: Value) -> Mapping:
        """A change inside a copy is one more setting of the copy."""
        self._inside(value).node(self.like(value), words, new)  # it finds its place, or fails
        settings = value.get("set") or Mapping((), value.mark)
        assert isinstance(settings, Mapping)
        return put(value, "set", put(settings, ".".join(words), new))

    @property
    def _branches(self) -> tuple[str, ...]:
        return (*BRANCHES, *self.index.words("joiner"))

    def _places(self, value: Value, word: str) -> Iterator[Place]:
        """Where a word stands in a node: in lists, branches, copies, but not in a named block."""
        self.budget.step(self.mark or value.mark)
        match value:
            case Scalar():
                if value.value == word:
                    yield ()
            case Sequence():
                for i, item in enumerate(value):
                    yield from ((i, *place) for place in self._places(item, word))
            case Mapping():
                if "like" in value:
                    if next(self._inside(value)._places(self.like(value), word), None) is not None:
                        yield ()
                    return
                if word in value and word not in NUMBERS:
                    yield ()
                for key, item in value:
                    if key.value == word and word in NUMBERS:
                        yield (word,)
                    elif key.value in self._branches:
                        yield from ((str(key.value), *place) for place in self._places(item, word))

    def _at(self, old: Value, word: str, rest: list[str], new: Value) -> Value:
        if isinstance(old, Mapping) and "like" in old:
            return self._through_like(old, [word, *rest], new)
        if not rest:
            return _with_it(new, old)
        if word in self.index.words("joiner") and isinstance(old, Mapping):
            entry = self.index.node(word)
            if rest[0] in {parameter.name for parameter in entry.parameters} - {"dim"}:
                return self._options(old, entry, rest, new)
        if word in self._branches or word in NUMBERS:
            inner = old[word] if isinstance(old, Mapping) and word in old else old
            changed = self.node(inner, rest, new)
            return (
                put(old, word, changed)
                if isinstance(old, Mapping) and inner is not old
                else changed
            )
        if word in self.blocks:
            self._fail(
                "path-not-found",
                f"a path does not look into block {word!r} from here",
                f"blocks.{word}. ...",
            )
        return self._under(old, self.index.node(word), rest, new)

    def _under(self, old: Value, entry: Entry, words: list[str], new: Value) -> Mapping:
        """A registered word with one thing under it changed."""
        word = Scalar(entry.word, old.mark)
        under: Value = Mapping((), old.mark)
        if isinstance(old, Mapping) and entry.word in old:
            word, under = next((key, value) for key, value in old if key.value == entry.word)
        if not isinstance(under, Mapping):
            name = Scalar(entry.value[0].name, under.mark) if entry.value else word
            under = Mapping(((name, under),), under.mark)
        changed = self._options(under, entry, words, new)
        if [key.value for key, _ in changed] == [p.name for p in entry.value]:
            changed = changed.entries[0][1]  # type: ignore[assignment]  # a value alone needs no name
        return (
            put(old, entry.word, changed)
            if isinstance(old, Mapping)
            else Mapping(((word, changed),), old.mark)
        )

    def _options(self, options: Value, entry: Entry, words: list[str], new: Value) -> Mapping:
        if not isinstance(options, Mapping):
            self._fail(
                "path-not-found", f"{entry.word!r} holds no map of options", mark=options.mark
            )
        known = {p.name: p for p in entry.parameters if p.name != "dim"}
        if words[0] not in known:
            self._unknown(f"{entry.word}.{words[0]}", words[0], list(known))
        parameter, rest, old = known[words[0]], words[1:], options.get(words[0])
        if not rest:
            value = (
                _with_it(new, old or _default(parameter, options.mark))
                if parameter.type.base == "slot"
                else new
            )
        elif parameter.type.base == "slot":
            value = self._slot(
                old or _default(parameter, options.mark), parameter.type.slot, rest, new
            )
        elif (
            parameter.type.base == "node" and (old or _default(parameter, options.mark)) is not None
        ):
            value = self.node(old or _default(parameter, options.mark) or new, rest, new)
        elif parameter.type.base == "map":
            value = self._named(old or Mapping((), options.mark), parameter.type, rest, new)
        else:
            self._fail(
                "path-not-found",
                f"{words[0]!r} of {entry.word!r} is one value: nothing is inside it",
            )
        return put(options, words[0], value)

    def _named(self, old: Value, type: Type, words: list[str], new: Value) -> Mapping:
        """A map of names with one of them changed, or added; a name of plain values has dots."""
        held = old if isinstance(old, Mapping) else Mapping((), old.mark)
        if type.item is None or type.item.base != "slot":
            return put(held, ".".join(words), new)
        name, rest = words[0], words[1:]
        value = self._slot(held.get(name), type.item.slot, rest, new) if rest else new
        return put(held, name, value)

    def _slot(self, old: Value | None, kind: str, words: list[str], new: Value) -> Value:
        """A slot's filler picked by its word; the same one keeps its other options, another
        replaces it.
        """
        word, rest = words[0], words[1:]
        if word not in self.index.words(kind):
            self._unknown(word, word, list(self.index.words(kind)))
        entry = self.index.filler(kind, word)
        same = old is not None and word in (
            old.value if isinstance(old, Scalar) else "",
            *_keys(old),
        )
        base = old if same and old is not None else Scalar(word, self.mark or new.mark)
        if rest:
            return self._under(base, entry, rest, new)
        if isinstance(new, Mapping):
            for key, value in new:
                base = self._under(base, entry, [str(key.value)], value)
            return base
        if len(entry.value) != 1:
            self._fail("not-options", f"{word!r} takes options, not one value", mark=new.mark)
        return self._under(base, entry, [entry.value[0].name], new)

    def _unknown(self, path: str, word: str, words: list[str]) -> NoReturn:
        near = nearest(word, words)
        help = f"did you mean {near!r}?" if near else "here: " + ", ".join(words)
        mark = self.mark and _word_within(self.mark, word)
        self._fail("path-not-found", f"{path!r} names nothing that is written", help, mark)

    def _fail(self, code: str, message: str, help: str = "", mark: Mark | None = None) -> NoReturn:
        place = mark or self.mark
        assert place is not None, message
        raise RecipeError([Finding(code, message, place, help)])


def _word_within(path: Mark, word: str) -> Mark:
    """The place of one word of a path."""
    words = path.text.split(".")
    if not word or word not in words:
        return path
    before = sum(len(other) + 1 for other in words[: words.index(word)])
    return replace(path, column=path.column + before, width=len(word))


def put(mapping: Mapping, key: str, value: Value) -> Mapping:
    """The map with a value replaced, which remembers the old one's place, or added at the end."""
    old = mapping.get(key)
    if old is value:
        return mapping
    if old is None:
        return replace(mapping, entries=(*mapping.entries, (Scalar(key, value.mark), value)))
    if value.was is None and value.mark != old.mark:
        value = replace(value, was=old.mark)
    entries = tuple((k, value if k.value == key else v) for k, v in mapping)
    return replace(mapping, entries=entries)


def place_mark(value: Value, place: Place) -> Mark:
    """The mark of what stands at a place within a value."""
    for step in place:
        if isinstance(value, Sequence) and isinstance(step, int):
            value = value.items[step]
        elif isinstance(value, Mapping):
            value = value[step]
    return value.mark


def _keys(value: Value | None) -> list[str]:
    return [str(key.value) for key, _ in value] if isinstance(value, Mapping) else []


def _default(parameter: Parameter, mark: Mark) -> Value | None:
    """A slot's or a node's default, as it would be written."""
    if isinstance(parameter.default, MakerDefault):
        return as_written(parameter.default, mark)
    return Scalar("none", mark) if parameter.default is None else None


def as_written(default: MakerDefault, mark: Mark) -> Value:
    """A slot's default as a recipe would write it."""
    if not default.options:
        return Scalar(default.word, mark)
    options = tuple(
        (Scalar(name, mark), Scalar(value, mark)) for name, value in default.options.items()
    )
    return Mapping(((Scalar(default.word, mark), Mapping(options, mark)),), mark)


def _with_it(new: Value, old: Value | None) -> Value:
    """``it`` inside a new node is what stood there; a list is spliced."""
    match new:
        case Scalar(value="it") if old is not None:
            return old
        case Sequence():
            return replace(new, items=tuple(_with_it(item, old) for item in new))
        case Mapping():
            return replace(new, entries=tuple((key, _with_it(value, old)) for key, value in new))
    return new


def _update(value: Value, place: Place, change: Callable[[Value], Value]) -> Value:
    if not place:
        return change(value)
    step, rest = place[0], place[1:]
    if isinstance(value, Sequence):
        assert isinstance(step, int)
        items = list(value.items)
        items[step] = _update(items[step], rest, change)
        return replace(value, items=tuple(items))
    assert isinstance(value, Mapping) and isinstance(step, str)
    return put(value, step, _update(value[step], rest, change))


def _words(value: Value, branches: tuple[str, ...]) -> Iterator[str]:
    """Every word that a path could name in a node, to suggest one."""
    match value:
        case Scalar(value=str(word)):
            yield word
        case Sequence():
            for item in value:
                yield from _words(item, branches)
        case Mapping():
            for key, item in value:
                if key.value not in ("as", "set"):
                    yield str(key.value)
                if key.value in branches or key.value == "like":
                    yield from _words(item, branches)
