"""Written nodes -> a tree of leaves: names inlined, lists spliced, repeats unrolled, layers found.

Two places that share weights hold the same ``WrittenLeaf`` object; everything else is made anew for
each copy.

"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TypeAlias

from blocks.kinds import NODES
from builder.budget import MAX_FAULTS, MAX_NESTED, MAX_TIMES, Budget, too_deep
from builder.edit import Editor
from builder.errors import Finding, Mark, RecipeError
from builder.expressions import ARITY
from builder.index import Entry, Index, nearest
from builder.numbers import quoted
from builder.read import Mapping, Scalar, Sequence, Value

STRUCTURE = {
    "residual": (),
    "parallel": (),
    "repeat": ("block", "pattern", "share"),
    "layers": ("pattern", "remainder"),
    "like": ("set",),
}
NOTHING = "nothing at all is: none"
CYCLE = "take its name out of there; repeat makes copies"
TIMES = re.compile(r"\s*(\w+)\s*\*\s*(.+)")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # a block's name, or a label


@dataclass(frozen=True, eq=False)
class WrittenLeaf:
    """A registered word and what was written under it."""

    entry: Entry
    given: MappingType[str, Value]
    mark: Mark
    blocks: tuple[str, ...]  # the named blocks that it was written in, outermost first


@dataclass(frozen=True, eq=False)
class WrittenResidual:
    body: tuple[Written, ...]
    mark: Mark


@dataclass(frozen=True, eq=False)
class WrittenParallel:
    branches: tuple[tuple[Written, ...], ...]
    mark: Mark


@dataclass(frozen=True, eq=False)
class WrittenJoined:
    """A joiner, and the branch that it goes round."""

    joiner: WrittenLeaf
    body: tuple[Written, ...]
    mark: Mark


@dataclass(frozen=True, eq=False)
class WrittenLayer:
    items: tuple[Written, ...]


@dataclass(frozen=True, eq=False)
class WrittenTap:
    """A label on what stands before it; on that leaf itself, if it ``names_leaf``."""

    label: str
    names_leaf: bool
    mark: Mark


Written: TypeAlias = (
    WrittenLeaf | WrittenResidual | WrittenParallel | WrittenJoined | WrittenLayer | WrittenTap
)


def written_nodes(items: tuple[Written, ...]) -> Iterator[Written]:
    """Every node in order of execution, a joiner before its body; inside experts not."""
    for item in items:
        yield item
        match item:
            case WrittenResidual():
                yield from written_nodes(item.body)
            case WrittenJoined():
                yield from written_nodes((item.joiner, *item.body))
            case WrittenLayer():
                yield from written_nodes(item.items)
            case WrittenParallel():
                for branch in item.branches:
                    yield from written_nodes(branch)


def written_leaves(items: tuple[Written, ...]) -> Iterator[WrittenLeaf]:
    """Every leaf in order of execution; inside experts not."""
    return (item for item in written_nodes(items) if isinstance(item, WrittenLeaf))


def written_taps(items: tuple[Written, ...]) -> Iterator[WrittenTap]:
    """Every label in order of execution."""
    return (item for item in written_nodes(items) if isinstance(item, WrittenTap))


def has_anchor(item: Written) -> bool:
    return any(NODES[leaf.entry.kind].anchor for leaf in written_leaves((item,)))


def given(
    entry: Entry, value: Value | None, findings: list[Finding], unasked: Container[str]
) -> dict[str, Value]:
    """What is written under a registered word: its options in a map, or its one value."""
    legal = [p.name for p in entry.parameters if p.name not in unasked]
    if value is None:
        return {}
    if isinstance(value, Mapping):
        for key, _ in value:
            if key.value not in legal:
                near = nearest(str(key.value), legal)
                help = f"did you mean {near!r}? " if near else ""
                help += f"options of {entry.word!r}: {', '.join(legal) or 'none'}"
                message = f"{key.value!r} is not an option of {entry.word!r}"
                findings.append(Finding("unknown-option", message, key.mark, help))
        return {str(key.value): item for key, item in value if key.value in legal}
    if len(entry.value) == 1:
        return {entry.value[0].name: value}
    message = f"{entry.word!r} takes options, not one value"
    help = (
        f"options in a map under it: {', '.join(legal)}" if legal else f"write {entry.word} alone"
    )
    findings.append(Finding("not-options", message, value.mark, help))
    return {}


@dataclass(frozen=True)
class Scope:
    """Where a node stands: in which named blocks, in a branch or not, what shares weights."""

    blocks: tuple[str, ...] = ()
    branch: bool = False
    shared: MappingType[str, list[tuple[Written, ...]]] = field(default_factory=dict)  # made once


@dataclass
class Expander:
    """Expands nodes of one page; faults go into ``findings`` and leave nothing in their place."""

    blocks: MappingType[str, Value]
    index: Index
    count: Callable[[Value], int | None]  # a whole number, or a finding and None
    findings: list[Finding]
    budget: Budget = field(default_factory=Budget)
    used: set[str] = field(default_factory=set)  # the blocks that something names
    depth: int = 0  # of the node that is being expanded
    told: set[Finding] = field(default_factory=set)  # a block's fault comes up wherever it is used

    def model(self, value: Value) -> tuple[Written, ...]:
        """A whole model, its layers found."""
        return _gather(self.node(value, Scope()))

    def node(self, value: Value, scope: Scope) -> tuple[Written, ...]:
        """The items that a node stands for; ``none`` stands for no items."""
        self.budget.step(value.mark)
        if self.depth == MAX_NESTED:
            raise RecipeError([*self.findings, too_deep(value.mark)])
        self.depth += 1
        try:
            return self._items(value, scope)
        finally:
            self.depth -= 1

    def _items(self, value: Value, scope: Scope) -> tuple[Written, ...]:
        match value:
            case Sequence(items=()):
                return self._fault("empty-list", "an empty list is not a node", value.mark, NOTHING)
            case Sequence():
                return tuple(item for part in value for item in self.node(part, scope))
            case Scalar(value=str(word)):
                return self._word(word, value.mark, scope)
            case Mapping():
                return self._map(value, scope)
        return self._fault("not-a-node", f"{quoted(value)} is not a node", value.mark, NOTHING)

    def leaf(self, entry: Entry, value: Value | None, mark: Mark, scope: Scope) -> WrittenLeaf:
        """A leaf with its options under it, or its one value."""
        self.budget.leaf(mark)
        unasked = () if NODES[entry.kind].reads == "tokens" else ("dim",)  # the width it meets
        return WrittenLeaf(entry, given(entry, value, self.findings, unasked), mark, scope.blocks)

    def _fault(self, code: str, message: str, mark: Mark, help: str = "") -> tuple[Written, ...]:
        return self._found([Finding(code, message, mark, help)])

    def _found(self, faults: list[Finding]) -> tuple[Written, ...]:
        """Faults leave nothing in their place; after very many the rest is not looked at."""
        self.told.update(faults)
        self.findings.extend(faults)
        if len(self.told) > MAX_FAULTS:
            raise RecipeError(self.findings)
        return ()

    def _words(self) -> list[str]:
        return [*self.blocks, *self.index.words("node"), *STRUCTURE, "none"]

    def _word(self, word: str, mark: Mark, scope: Scope) -> tuple[Written, ...]:
        if word == "none":
            return ()
        if word in self.blocks:
            return self._block(word, mark, scope)
        joiners = self.index.words("joiner")
        if word in self.index.words("node") and word not in joiners:
            return (self.leaf(self.index.node(word), None, mark, scope),)
        if word in STRUCTURE or word in joiners:
            help = f"it takes a node: {{{word}: ...}}"
            return self._fault("missing-value", f"{word!r} stands alone", mark, help)
        if TIMES.fullmatch(word):
            message = f"{word!r} is not a node here"
            return self._fault("not-a-node", message, mark, "counts go in a pattern")
        return self._unknown(word, mark, "a block or a leaf", self._words())

    def _unknown(
        self, word: object, mark: Mark, what: str, words: list[str]
    ) -> tuple[Written, ...]:
        near = nearest(str(word), words)
        help = f"did you mean {near!r}?" if near else "known: " + ", ".join(sorted(words))
        return self._fault("unknown-word", f"{word!r} is not {what}", mark, help)

    def _block(self, name: str, mark: Mark, scope: Scope) -> tuple[Written, ...]:
        if name in scope.blocks:
            cycle = " -> ".join([*scope.blocks[scope.blocks.index(name) :], name])
            return self._fault("block-cycle", f"block {name!r} holds itself: {cycle}", mark, CYCLE)
        self.used.add(name)
        inside = replace(scope, blocks=(*scope.blocks, name))
        if name not in scope.shared:
            return self.node(self.blocks[name], inside)
        made = scope.shared[name]
        if made:
            self.budget.leaf(mark, sum(1 for _ in written_leaves(made[0])))
        else:
            made.append(self.node(self.blocks[name], inside))
        return made[0]

    def _map(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        keys = {str(key.value): key for key, _ in value}
        heads = [k for k in keys if k in STRUCTURE or k in self.index.words("node")]
        if not heads:
            return self._no_node(value)
        if len(heads) > 1:
            message = f"{heads[0]!r} and {heads[1]!r} in one map: a map holds one node"
            help = "write a list, one node an item"
            return self._fault("two-nodes", message, keys[heads[1]].mark, help)
        (word,) = heads
        beside = self._beside(word)
        for key, mark in ((k, keys[k].mark) for k in keys if k not in (word, "as", *beside)):
            near = nearest(key, beside)
            help = f"options of {word!r} go in a map under it"
            if beside or word in STRUCTURE:
                help = f"beside it: {', '.join((*beside, 'as'))}"
            help = f"did you mean {near!r}? {help}" if near else help
            self._fault("unknown-word", f"{key!r} does not go beside {word!r}", mark, help)
        return self._labelled(self._headed(word, value, keys[word].mark, scope), value.get("as"))

    def _beside(self, word: str) -> tuple[str, ...]:
        """What a map may hold beside its node's word."""
        if word in STRUCTURE:
            return STRUCTURE[word]
        entry = self.index.node(word)
        return tuple(p.name for p in entry.parameters if p.name != "dim") if entry.joins else ()

    def _headed(self, word: str, value: Mapping, mark: Mark, scope: Scope) -> tuple[Written, ...]:
        """A map by the one node word that it holds."""
        if word in STRUCTURE:
            return getattr(self, f"_{word}")(value, scope)  # type: ignore[no-any-return]
        entry = self.index.node(word)
        if not entry.joins:
            return (self.leaf(entry, value[word], mark, scope),)
        body = self.node(value[word], replace(scope, branch=True))
        options = replace(
            value, entries=tuple(e for e in value if e[0].value in self._beside(word))
        )
        joiner = self.leaf(entry, options, mark, scope)
        return (WrittenJoined(joiner, body, value.mark),) if body else ()

    def _labelled(self, items: tuple[Written, ...], label: Value | None) -> tuple[Written, ...]:
        """What a label names is marked by a tap behind it; nothing at all cannot be named."""
        if label is None:
            return items
        word = getattr(label, "value", None)
        if not isinstance(word, str) or not WORD.fullmatch(word) or word in (*ARITY, "none"):
            self._fault("not-a-word", "a label is one word", label.mark, "for instance as: skip")
            return items
        lone = len(items) == 1 and isinstance(items[0], WrittenLeaf)
        return (*items, WrittenTap(word, lone, label.mark)) if items else ()

    def _no_node(self, value: Mapping) -> tuple[Written, ...]:
        if not value.entries:
            return self._fault("not-a-node", "an empty map is not a node", value.mark, NOTHING)
        key = value.entries[0][0]
        if key.value in self.blocks:
            message = f"{key.value!r} is a block, and takes no options"
            help = f"a changed copy: {{like: {key.value}, set: ...}}"
            return self._fault("unknown-word", message, key.mark, help)
        return self._unknown(key.value, key.mark, "a leaf or a structural word", self._words())

    def _residual(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        body = self.node(value["residual"], replace(scope, branch=True))
        return (WrittenResidual(body, value.mark),) if body else ()

    def _parallel(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        branches = value["parallel"]
        if not isinstance(branches, Sequence) or not branches.items:
            help = "for instance {parallel: [attention, glu]}"
            message = "'parallel' takes a list of branches"
            return self._fault("not-a-list", message, branches.mark, help)
        inside = replace(scope, branch=True)
        made = tuple(items for branch in branches if (items := self.node(branch, inside)))
        return (WrittenParallel(made, value.mark),) if len(made) > 1 else made[0] if made else ()

    def _like(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        name, mark = value["like"], value["like"].mark
        if not isinstance(name, Scalar) or name.value not in self.blocks:
            word = name.value if isinstance(name, Scalar) else "this"
            return self._unknown(word, mark, "a block", list(self.blocks))
        if name.value in scope.blocks:
            return self._fault("block-cycle", f"block {name.value!r} is like itself", mark, CYCLE)
        self.used.add(str(name.value))
        try:
            copy = Editor(self.index, self.blocks, budget=self.budget).like(value)
        except RecipeError as error:
            return self._found(error.findings)
        return self.node(copy, replace(scope, blocks=(*scope.blocks, str(name.value))))

    def _repeat(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        times = self._times(value["repeat"])
        if ("block" in value) == ("pattern" in value):
            message = "'repeat' takes a block or a pattern, one of the two"
            help = "for instance {repeat: 4, block: decoder}"
            return self._fault("repeat-what", message, value.mark, help)
        entries = self._pattern(value["pattern"]) if "pattern" in value else [value["block"]]
        shared, all_shared = self._shared(value.get("share"))
        scope = replace(scope, shared={**scope.shared, **{name: [] for name in shared}})
        if all_shared:
            once = tuple(self._entries(entries, scope))
            more = max(0, times - 1) * sum(1 for _ in written_leaves(once))
            self.budget.leaf(value.mark, more)
            return once * times
        made = tuple(item for _ in range(times) for item in self._entries(entries, scope))
        if times and not self.findings:
            self._all_met(value.get("share"), scope)
        return made

    def _all_met(self, share: Value | None, scope: Scope) -> None:
        """Hold that every name of a ``share`` was met in its repeat."""
        for name in share.items if isinstance(share, Sequence) else (share,):
            if isinstance(name, Scalar) and scope.shared.get(str(name.value)) == []:
                met = [other for other, made in scope.shared.items() if made]
                message = f"{name.value!r} is not in this repeat: there is nothing to share"
                help = "share " + ", ".join(met) if met else "leave it out, or use it in the repeat"
                self._fault("idle-share", message, name.mark, help)

    def _shared(self, value: Value | None) -> tuple[list[str], bool]:
        """The blocks that share their weights, or that the whole repeat does."""
        if value is None or (isinstance(value, Scalar) and isinstance(value.value, bool)):
            return [], bool(value and value.value)
        names = value.items if isinstance(value, Sequence) else (value,)
        if not names:
            self._fault("empty-list", "an empty list names no blocks", value.mark, "share: true")
        for name in names:
            if not isinstance(name, Scalar) or name.value not in self.blocks:
                word = name.value if isinstance(name, Scalar) else "this"
                self._unknown(word, name.mark, "a block", [*self.blocks, "true"])
        return [str(name.value) for name in names if isinstance(name, Scalar)], False

    def _layers(self, value: Mapping, scope: Scope) -> tuple[Written, ...]:
        if "pattern" not in value:
            help = "for instance {layers: 8, pattern: [local, full]}"
            return self._fault("repeat-what", "'layers' takes a pattern", value.mark, help)
        entries, rest = self._pattern(value["pattern"]), value.get("remainder")
        if rest is not None and not (isinstance(rest, Scalar) and rest.value == "truncate"):
            return self._fault("bad-value", "'remainder' is truncate, or not written", rest.mark)
        if not entries:
            return ()
        depth = self._times(value["layers"], len(entries))
        if depth % len(entries) and rest is None:
            below = depth - depth % len(entries)
            message = f"{depth} layers are no whole number of patterns of {len(entries)}"
            fits = f"{below} or {below + len(entries)}" if below else f"{len(entries)}"
            help = f"{fits} layers do; or remainder: truncate"
            self._fault("pattern-fit", message, value["layers"].mark, help)  # and look on
        rounds = [entries[i % len(entries)] for i in range(depth)]
        return tuple(self._entries(rounds, scope))

    def _pattern(self, value: Value) -> list[Value]:
        """The entries of a pattern, ``name*5`` written out."""
        if not isinstance(value, Sequence) or not value.items:
            help = "for instance pattern: [local, full]"
            self._fault("not-a-list", "a pattern is a list of entries", value.mark, help)
            return []
        entries: list[Value] = []
        for entry in value:
            written = entry.value if isinstance(entry, Scalar) else None
            counted = TIMES.fullmatch(written) if isinstance(written, str) else None
            if counted is None:
                entries.append(entry)
                continue
            name, count = counted.groups()
            number = Scalar(int(count) if re.fullmatch("[0-9]+", count) else count, entry.mark)
            entries += [Scalar(name, entry.mark)] * self._times(number)
            if len(entries) > MAX_TIMES:
                message = f"a pattern of {len(entries)} entries is more than {MAX_TIMES:,}"
                self._fault("too-many-nodes", message, value.mark, "repeat a shorter one")
                return []
        return entries

    def _times(self, value: Value, unknown: int = 1) -> int:
        """How often something stands, which is bounded.

        Where that cannot be told it is ``unknown``, and what stands there is still looked through.
        """
        times = self.count(value)
        if times is not None and times > MAX_TIMES:
            message = f"{times} times is more than {MAX_TIMES:,}"
            self._fault("too-many-nodes", message, value.mark, "repeat it less often")
            times = None
        return unknown if times is None else times

    def _entries(self, entries: list[Value], scope: Scope) -> Iterator[Written]:
        """Each entry is a layer; but in a branch it is a copy, and an entry that holds layers is
        none itself.
        """
        for entry in entries:
            items = self.node(entry, scope)
            if scope.branch:
                yield from items
            elif any(isinstance(item, WrittenLayer) for item in items):
                yield from _gather(items)
            elif items:
                yield WrittenLayer(items)


def _gather(items: tuple[Written, ...]) -> tuple[Written, ...]:
    """What stands beside the layers of a repeat, from its first mixer or feed-forward to its last,
    is a layer too.  A label right behind a layer is in it.
    """
    done: list[Written] = []
    run: list[Written] = []
    for item in (*items, None):
        before = done[-1] if done and not run else None
        if isinstance(item, WrittenTap) and isinstance(before, WrittenLayer):
            done[-1] = WrittenLayer((*before.items, item))
            continue
        if item is not None and not isinstance(item, WrittenLayer):
            run.append(item)
            continue
        places = [i for i, other in enumerate(run) if has_anchor(other)]
        if places:
            first, last = places[0], places[-1] + 1
            last += sum(1 for _ in takewhile(lambda i: isinstance(i, WrittenTap), run[last:]))
            run[first:last] = [WrittenLayer(tuple(run[first:last]))]
        done += run
        run = []
        if item is not None:
            done.append(item)
    return tuple(done)
