"""Export, step one: a graph matched against a family's recipe, whose bindings are the config.

A small machine rather than recursion: a state is a list of goals, what is bound so far, and the
equations put aside; a selection whose field is not known yet leaves the other cases behind as
states to come back to.  Depth first, the default's case first, then file order, so the answer is
always the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from builder.errors import Mark
from builder.expressions import Expression, parse
from builder.graph import (
    NODE,
    Chain,
    Edge,
    Filler,
    Graph,
    Joined,
    Layer,
    Leaf,
    Node,
    Parallel,
    Residual,
)
from builder.index import REQUIRED, Entry, Index, MakerDefault, Parameter, SizeDefault
from hf_bridge.difference import NO_MORE, At, Difference, Mismatch, marked, named, shown
from hf_bridge.family import Family, is_other
from hf_bridge.scope import Key, Scope
from hf_bridge.solve import Equation, NoSolution, solve
from hf_bridge.template import (
    ANYTHING,
    Case,
    Formula,
    Selection,
    Template,
    block,
    same,
    stands_for,
)

NOTHING = ("none", None)


@dataclass(frozen=True)
class Nodes:
    """A sequence of the family's nodes stands for a sequence of ours."""

    theirs: tuple[Any, ...]
    ours: tuple[Node, ...]
    at: At


@dataclass(frozen=True)
class Branches:
    theirs: tuple[Any, ...]
    ours: tuple[Node, ...]
    at: At


@dataclass(frozen=True)
class Setting:
    """A value of the family's recipe stands for an option of ours."""

    theirs: Template
    ours: Any
    at: At
    kind: str = ""  # of a slot's filler


Goal: TypeAlias = "Nodes | Branches | Setting"


@dataclass(frozen=True)
class State:
    """What is still to be matched, and what was found on the way."""

    goals: tuple[Any, ...]  # (goal, (goal, ... ())), shared between states
    bound: Mapping[Key, Any]
    equations: tuple[Equation, ...] = ()
    matched: int = 0

    def push(self, *goals: Goal) -> State:
        rest = self.goals
        for goal in reversed(goals):
            rest = (goal, rest)
        return replace(self, goals=rest)


@dataclass
class Unifier:
    """One graph against one family; ``furthest`` is the difference after the most agreement."""

    family: Family
    graph: Graph
    index: Index
    furthest: Difference | None = None
    layers: int = field(init=False)

    def __post_init__(self) -> None:
        self.layers = len(self.graph.layers)

    def solutions(self) -> Iterator[dict[Key, Any]]:
        """Every way to read the graph as the family, the preferred one first."""
        pending = [self._start()]
        while pending:
            state = pending.pop()
            try:
                while state.goals:
                    goal, rest = state.goals
                    state, *others = self._step(goal, replace(state, goals=rest))
                    pending.extend(reversed(others))
                yield solve(state.bound, state.equations, self.family, self.layers)
            except Mismatch as mismatch:
                self.note(mismatch.difference)
            except NoSolution as none:
                at = none.equation
                ours = shown(at.value)
                self.note(Difference(at.place, ours, none.wanted, state.matched, at.mark))

    def _start(self) -> State:
        known = {field: value for field, value in self.family.pin.items() if not is_other(value)}
        known |= {field: values[0] for field, values in self.family.require.items()}
        dims, at = self.family.dims, At()
        state = State((), {(name, None): value for name, value in known.items()})
        return state.push(
            Nodes(tuple(self.family.recipe["model"]), self.graph.items, at),
            Setting(dims["vocab"], self.graph.vocab, at.below("vocab", None)),
            Setting(dims["context"], self.graph.context, at.below("context", None)),
        )

    def note(self, difference: Difference) -> None:
        if self.furthest is None or difference.matched > self.furthest.matched:
            self.furthest = difference

    def _step(self, goal: Goal, state: State) -> list[State]:
        """The states that follow: the first is tried first."""
        match goal:
            case Nodes(theirs=(), ours=()) | Branches(theirs=(), ours=()):
                return [state]
            case Nodes():
                return self._nodes(goal, state)
            case Branches():
                return self._branches(goal, state)
            case Setting(theirs=Selection() as selection):
                return [
                    chosen.push(replace(goal, theirs=case.node))
                    for case, chosen in self._cases(selection, state, goal.at)
                ]
            case Setting():
                return [self._setting(goal, state)]

    def _fail(
        self, state: State, at: At, ours: str, theirs: str, mark: Mark | None = None
    ) -> Mismatch:
        return Mismatch(Difference(str(at), ours, theirs, state.matched, mark or at.mark))

    def _nodes(self, goal: Nodes, state: State) -> list[State]:
        if not goal.theirs:
            first = goal.ours[0]
            raise self._fail(state, goal.at, named(first), NO_MORE, marked(first))
        head, *rest = goal.theirs
        match head:
            case list():
                return [state.push(replace(goal, theirs=(*head, *rest)))]
            case Selection():
                return [
                    chosen.push(replace(goal, theirs=(case.node, *rest)))
                    for case, chosen in self._cases(head, state, goal.at)
                ]
            case str() if head in self.family.blocks:
                return [state.push(replace(goal, theirs=(self.family.blocks[head], *rest)))]
            case "none" | None:
                return [state.push(replace(goal, theirs=tuple(rest)))]
            case {"repeat": times, "block": block}:
                return [self._repeat(times, block, tuple(rest), goal, state)]
            case dict() | str():
                return [self._node(head, tuple(rest), goal, state)]
        raise AssertionError(f"a node of a family cannot be {head!r}")

    def _repeat(
        self, times: Template, block: Template, rest: tuple[Any, ...], goal: Nodes, state: State
    ) -> State:
        count = next(
            (i for i, node in enumerate(goal.ours) if not isinstance(node, Layer)), len(goal.ours)
        )
        layers: list[Goal] = [
            Nodes((block,), items(layer.body), At(layer.index, (), None))
            for layer in goal.ours[:count]
            if isinstance(layer, Layer)
        ]
        depth = Setting(times, count, goal.at.below("repeat", None))
        return state.push(depth, *layers, replace(goal, theirs=rest, ours=goal.ours[count:]))

    def _node(self, head: Any, rest: tuple[Any, ...], goal: Nodes, state: State) -> State:
        word, options = next(iter(head.items())) if isinstance(head, dict) else (head, {})
        if not goal.ours:
            raise self._fail(state, goal.at, NO_MORE, word)
        ours, *after = goal.ours
        at = goal.at.below(word, marked(ours))
        after_goal = replace(goal, theirs=rest, ours=tuple(after))
        state = replace(state, matched=state.matched + 1)
        match word, ours:
            case "residual", Residual():
                return state.push(Nodes((options,), items(ours.body), at), after_goal)
            case "parallel", Parallel():
                return state.push(Branches(tuple(options), ours.branches, at), after_goal)
            case _, Joined(joiner=Leaf(word=around) as joiner) if around == word:
                others = {name: value for name, value in head.items() if name != word}
                body = Nodes((options,), items(ours.body), at)
                return state.push(*self._options(word, others, joiner, at), body, after_goal)
            case _, Leaf() if ours.word == word:
                return state.push(*self._options(word, options, ours, at), after_goal)
        missed = replace(state, matched=state.matched - 1)
        raise self._fail(missed, goal.at, named(ours), word, marked(ours))

    def _branches(self, goal: Branches, state: State) -> list[State]:
        if not goal.theirs or not goal.ours:
            ours = named(goal.ours[0]) if goal.ours else "no more branches"
            raise self._fail(
                state, goal.at, ours, "another branch" if goal.theirs else "no more branches"
            )
        head, *rest = goal.theirs
        if isinstance(head, Selection):
            return [
                chosen.push(
                    replace(goal, theirs=(*(() if case.node in NOTHING else (case.node,)), *rest))
                )
                for case, chosen in self._cases(head, state, goal.at)
            ]
        after = replace(goal, theirs=tuple(rest), ours=goal.ours[1:])
        return [state.push(Nodes((head,), items(goal.ours[0]), goal.at), after)]

    def _options(self, word: str, written: Any, leaf: Leaf, at: At) -> list[Goal]:
        entry = block(self.index, "node", word)
        if not isinstance(written, dict):
            written = {entry.parameters[0].name: written}
        return list(self._settings(entry, written, dict(leaf.options), at, leaf))

    def _settings(
        self,
        entry: Entry,
        written: Mapping[str, Any],
        ours: Mapping[str, Any],
        at: At,
        leaf: Leaf | None = None,
    ) -> Iterator[Goal]:
        for parameter in entry.parameters:
            if parameter.name not in ours:
                continue  # a size of a filler, which its leaf gives
            value = ours[parameter.name]
            here = at.below(parameter.name, getattr(value, "mark", None))
            if parameter.name in written:
                yield Setting(written[parameter.name], value, here, kind_of(parameter))
            elif parameter.role == "size" and leaf is not None:
                yield from self._size(parameter, ours, here, leaf)
            elif parameter.role != "size":
                yield Setting(default_of(parameter), value, here, kind_of(parameter))

    def _size(
        self, parameter: Parameter, ours: Mapping[str, Any], at: At, leaf: Leaf
    ) -> Iterator[Goal]:
        """A size that the family's leaf leaves to the dims, or to the block's own default."""
        if parameter.name == "dim" and leaf.kind != "embedding":
            return  # the width that reaches the leaf: proved by importing
        if parameter.name in self.family.dims:
            yield Setting(self.family.dims[parameter.name], ours[parameter.name], at)
        elif isinstance(parameter.default, SizeDefault):
            expected = Scope(sizes=ours).evaluate(default_tree(parameter.default))
            yield Setting(expected, ours[parameter.name], at)

    def _setting(self, goal: Setting, state: State) -> State:
        theirs, ours, at = goal.theirs, goal.ours, goal.at
        if isinstance(theirs, str) and theirs != "none" and not goal.kind and is_number(ours):
            theirs = Formula(theirs, parse(theirs, template=True))  # the recipe's own expression
        match theirs:
            case Formula():
                return self._bind(theirs, ours, at, state)
            case "none" | None if ours is None:
                return state
            case str() | dict() if isinstance(ours, Filler):
                return self._filler(theirs, ours, at, state)
            case str() | dict() | list() if isinstance(ours, NODE):
                return state.push(Nodes((theirs,), items(ours), at))
        if not same(theirs, ours):
            raise self._fail(state, at, shown(ours), shown(theirs))
        return state

    def _filler(self, theirs: Any, ours: Filler, at: At, state: State) -> State:
        word, options = next(iter(theirs.items())) if isinstance(theirs, dict) else (theirs, {})
        if word != ours.word:
            raise self._fail(state, at, ours.word, word, ours.mark)
        entry = block(self.index, ours.kind, word)
        if not isinstance(options, dict):
            options = {entry.parameters[0].name: options}
        return state.push(*self._settings(entry, options, dict(ours.options), at))

    def _bind(self, formula: Formula, value: Any, at: At, state: State) -> State:
        value = list(value) if isinstance(value, tuple) else value
        if isinstance(value, Filler | Edge | NODE):
            raise self._fail(state, at, shown(value), f"a plain value ({formula.text})")
        if (hole := formula.hole) is None:
            if not is_number(value) and not isinstance(value, bool):
                raise self._fail(state, at, shown(value), formula.text)
            equation = equation_of(formula, value, at)
            return replace(state, equations=(*state.equations, equation))
        key = (hole.path, at.layer if hole.index is not None else None)
        if key not in state.bound:
            return replace(state, bound={**state.bound, key: value})
        if not same(state.bound[key], value):
            raise self._fail(
                state, at, shown(value), f"{shown(state.bound[key])} elsewhere ({formula.text})"
            )
        return state

    def _cases(self, selection: Selection, state: State, at: At) -> list[tuple[Case, State]]:
        """The cases that the bindings allow, the default's first, with what choosing each says."""
        found: list[tuple[int, Case, State]] = []
        for case in selection.cases:
            chosen: State | None = state
            preference = 0
            for position, (key, values) in enumerate(zip(selection.keys, case.values, strict=True)):
                others = selection.others(position)
                if chosen is not None:
                    preference += not self._is_default(key, values, others)
                    chosen = self._choose(key, values, others, chosen, at)
            if chosen is not None:
                found.append((preference, case, chosen))
        if not found:
            keys = ", ".join(key.text for key in selection.keys)
            raise self._fail(state, at, "a value that no case has", keys)
        return [(case, chosen) for _, case, chosen in sorted(found, key=lambda one: one[0])]

    def _choose(
        self, key: Formula, values: tuple[Any, ...], others: tuple[Any, ...], state: State, at: At
    ) -> State | None:
        scope = Scope(state.bound, self.layers, at.layer)
        if (known := scope.known(key)) is not None:
            return state if stands_for(values, known[0], others) else None
        if ANYTHING in values:
            # The case binds the field itself; solve() refuses a value that another case lists.
            return state
        if (hole := key.hole) is not None:
            where = (hole.path, at.layer if hole.index is not None else None)
            written = self._default(key) if self._is_default(key, values, others) else values[0]
            return replace(state, bound={**state.bound, where: written})
        return replace(state, equations=(*state.equations, equation_of(key, values[0], at)))

    def _is_default(self, key: Formula, values: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
        if key.hole is None or key.hole.path not in self.family.config:
            return False
        default = self._default(key)
        return not isinstance(default, Formula | Selection) and stands_for(values, default, others)

    def _default(self, key: Formula) -> Any:
        assert key.hole is not None, f"{key.text} is no field, so it has no default"
        return self.family.config[key.hole.path].value


def equation_of(formula: Formula, value: Any, at: At) -> Equation:
    return Equation(formula.text, formula.tree, value, at.layer, str(at), at.mark)


def items(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Chain) else (node,)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind_of(parameter: Parameter) -> str:
    """The kind of the filler that a parameter takes; empty for a plain value."""
    return parameter.type.slot if parameter.type.base == "slot" else ""


def default_of(parameter: Parameter) -> Any:
    """A signature's default, as a recipe would write it."""
    match parameter.default:
        case MakerDefault(word=word, options=options):
            return {word: dict(options)}
    assert parameter.default is not REQUIRED, (
        f"{parameter.name} is required, and the family leaves it out"
    )
    return parameter.default


def default_tree(default: SizeDefault) -> Expression:
    return parse(default.expression)
