"""What the laws said of a recipe, told to people and to machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from builder.errors import BuilderError, Finding, render, show
from builder.laws.examine import Answer, Examination, Failure
from builder.laws.laws import LAWS

WIDEST = max(map(len, LAWS))


def told(answer: Answer, before: Iterable[Answer] = (), *, colour: bool = False) -> str:
    """A law in one line, and in a few if it is broken as none before it was."""
    title, failure = f"{answer.title:<{WIDEST}}  ", answer.failure
    if answer.unasked:
        return f"{title}not asked: {answer.unasked}"
    if failure is None:
        return f"{title}ok  {answer.error:.2g}"
    for other in before:
        if other.failure is not None and _is_one_fault(failure, other.failure):
            return f"{title}broken, as {other.title!r} is"
    return f"{title}broken\n{paragraph(answer.law, failure, colour)}"


def _is_one_fault(failure: Failure, other: Failure) -> bool:
    """Whether one need not be told after the other: some faults break nearly every law."""
    mine, theirs = failure.blame, other.blame
    return mine.says == theirs.says or (mine.fault != "" and mine.fault == theirs.fault)


def paragraph(law: str, failure: Failure, colour: bool = False) -> str:
    """What a broken law says, with the leaf's place on the page and the smallest input."""
    found, notes = failure.blame, []
    if found.leaf is not None and found.leaf not in found.says:
        notes.append(f"in {found.leaf}")
    if failure.ids:
        count = f"{failure.tokens} token{'s'[: failure.tokens > 1]}"
        rows = "; ".join(" ".join(map(str, row)) for row in failure.ids)
        notes.append(f"on {count}, seed {failure.seed}: {rows}")
    if found.mark is not None:
        return render(Finding(law, found.says, found.mark, "", tuple(notes)), colour=colour)
    head = show(BuilderError(law, found.says), colour=colour)
    return "\n".join([head, *(f"   {note}" for note in notes)])


def as_json(path: Path, examination: Examination, answers: Sequence[Answer]) -> dict[str, Any]:
    """All of it for machines; what takes time, or how long, is left out, so that it is stable."""
    whole = examination.twin
    return {
        "recipe": str(path),
        "name": whole.original.name,
        "twin": None if whole.is_itself else str(whole),
        "seeds": list(examination.seeds),
        "reads_length": examination.reads_length,
        "holds": all(answer.failure is None for answer in answers),
        "laws": [_row(answer) for answer in answers],
    }


def _row(answer: Answer) -> dict[str, Any]:
    failure = answer.failure
    if answer.unasked:
        return {"law": answer.law, "holds": None, "unasked": answer.unasked}
    if failure is None:
        return {"law": answer.law, "holds": True, "error": answer.error}
    mark = failure.blame.mark
    return {
        "law": answer.law,
        "holds": False,
        "says": failure.blame.says,
        "leaf": failure.blame.leaf,
        "file": mark and mark.source.name,
        "line": mark and mark.line,
        "column": mark and mark.column,
        "seed": failure.seed,
        "tokens": failure.tokens,
        "ids": [list(row) for row in failure.ids],
    }
