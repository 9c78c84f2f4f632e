"""Where a number comes from: what a message says of it, and which number is probably at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any

from builder.errors import COMMAND_LINE, Mark, Source
from builder.expressions import ExpressionError, evaluate, parse
from builder.expressions import names as names_in
from builder.index import Entry
from builder.read import Scalar, Sequence, Value

SHOWN = 32  # characters of an expression, or of what was overridden
TRIED = 64  # numbers on either side, to name one that would do


@dataclass(frozen=True)
class Origin:
    """Where an argument's value comes from: what was written for it, or else the ``entry`` whose
    default it is, or that it ``reaches`` as the width of the stream.

    ``expression`` is a default that follows from other arguments; ``dim`` is set if what was
    written is a dim, and not in the leaf itself.
    """

    value: Value | None = None
    entry: Entry | None = None
    reaches: bool = False
    expression: str | None = None
    dim: bool = False


@dataclass(frozen=True)
class Step:
    """A number that a fault follows from, and how many expressions away it is read."""

    name: str
    number: Any
    origin: Origin
    distance: int = 0


def trace(
    names: Iterable[str],
    known: MappingType[str, Any],
    origins: MappingType[str, Origin],
    dims: MappingType[str, tuple[Mark, Value]],
) -> list[Step]:
    """The numbers of these names, and those that they follow from, each once."""
    steps: dict[str, Step] = {}
    ahead = [(name, 0) for name in sorted(names, key=list(known).index)]
    while ahead:
        name, distance = ahead.pop(0)
        origin = origins.get(name)
        if origin is None and name in dims:
            origin = Origin(dims[name][1], dim=True)
        if name in steps or origin is None:
            continue
        steps[name] = Step(name, known.get(name), origin, distance)
        ahead += [(inner, distance + 1) for inner in sorted(_read_by(origin))]
    return list(steps.values())


def suspect(steps: Iterable[Step], base: Source | None) -> Step | None:
    """The written number that is probably at fault: what came last, else what stands nearest."""
    found: Step | None = None
    for step in steps:
        if step.origin.value is not None and (
            found is None or _weight(step, base) >= _weight(found, base)
        ):
            found = step
    return found


def _weight(step: Step, base: Source | None) -> tuple[int, bool, int]:
    """Of two that weigh the same, the later one in the signature is the suspect."""
    value = step.origin.value
    assert value is not None
    late = 0 if base is None or value.mark.source.name == base.name else 1
    late += (value.was is not None) + 2 * value.mark.source.name.startswith("<command")
    return late, not step.origin.dim, -step.distance


def notes(steps: Iterable[Step], fault: Step | None) -> Iterator[str]:
    """Where each number was set; the one under the caret says only what it replaced."""
    for step in steps:
        if step is not fault:
            yield f"{_shown(step)} is {_source(step.origin)}"
        elif (value := step.origin.value) is not None and value.was is not None:
            yield f"{step.name} is set here{in_place(value)}"


def in_place(value: Value) -> str:
    """What a value overrode, if it came by a path."""
    return "" if value.was is None else f", in place of {_cut(value.was.text)} at {value.was}"


def would_do(
    step: Step,
    known: MappingType[str, Any],
    origins: MappingType[str, Origin],
    good: Callable[[MappingType[str, Any]], bool],
) -> list[int]:
    """The nearest whole numbers on either side that may stand in a number's place."""
    value = step.origin.value
    written = value.value if isinstance(value, Scalar) else None
    if not isinstance(written, int) or isinstance(written, bool) or step.name not in known:
        return []
    below = range(written - 1, max(0, written - TRIED), -1)
    above = range(max(1, written + 1), max(1, written + 1) + TRIED)
    tried = (
        next((n for n in side if good(_followed({**known, step.name: n}, origins))), None)
        for side in (below, above)
    )
    return [number for number in tried if number is not None]


def _followed(known: dict[str, Any], origins: MappingType[str, Origin]) -> dict[str, Any]:
    """The arguments once more, after one was changed; None where one has no whole value."""
    for name, origin in origins.items():
        if origin.expression is not None and name in known:
            try:
                number = evaluate(parse(origin.expression), lambda name, args: known.get(name))
            except ExpressionError:
                number = 0
            known[name] = number if isinstance(number, int) and number >= 1 else None
    return known


def _read_by(origin: Origin) -> frozenset[str]:
    text = getattr(origin.value, "value", origin.expression)
    try:
        return names_in(parse(text)) if isinstance(text, str) else frozenset()
    except ExpressionError:
        return frozenset()


def _shown(step: Step) -> str:
    """``ff=8``, or ``ff = 2 * wide = 8``."""
    value, number = step.origin.value, step.number
    text = getattr(value, "value", step.origin.expression)
    if number is None and isinstance(value, Sequence):
        return step.name
    if isinstance(text, str) and text != number:
        shown = f"{step.name} = {_cut(text)}"
        return shown if not isinstance(number, int | float) else f"{shown} = {brief(number)}"
    return f"{step.name}={brief(text if number is None else number)}"


def brief(number: object) -> str:
    """A number in a few digits."""
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _source(origin: Origin) -> str:
    if origin.value is None:
        assert origin.entry is not None, origin
        return _unwritten(origin.entry, origin.reaches)
    place = origin.value.mark
    where = "on the command line" if place.source.name == COMMAND_LINE else f"at {place}"
    return f"set {where}{in_place(origin.value)}"


def _unwritten(entry: Entry, reaches: bool) -> str:
    if reaches:
        return f"the width that reaches {entry.word!r}"
    return f"the default of {entry.word!r} ({entry.place})"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
