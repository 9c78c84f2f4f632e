"""What can go wrong, named for what the user can do about it, and how it is shown.

Errors are raised deep and rendered once, in ``__main__``.  A finding in a recipe carries the place,
a stable code named for the fault, one phrase that stands alone, and a help that would be accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

SHOWN = 20  # findings; past them a reader mends the first ones and runs again
NOTES = 5  # of one finding; a dim may be read in a hundred places
LONGEST = 1000  # characters of a message, which may quote a word of any length
SPAN = 96  # columns of the user's line that are shown
COMMAND_LINE = "<command line>"

RED, YELLOW, CYAN, PLAIN = "\x1b[1;31m", "\x1b[1;33m", "\x1b[36m", "\x1b[0m"


@dataclass(frozen=True)
class Source:
    """A text that was read, under the name that messages give it."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def lines(self) -> list[str]:
        """The lines as YAML counts them."""
        return re.split("\r\n|[\n\r\x85\u2028\u2029]", self.text)


@dataclass(frozen=True)
class Mark:
    """A place in a text: line and column from 1, and how many characters of that line it spans."""

    source: Source
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    @property
    def text(self) -> str:
        """What is written there."""
        lines = self.source.lines[self.line - 1 : self.line]
        return lines[0][self.column - 1 : self.column - 1 + self.width] if lines else ""


@dataclass(frozen=True)
class Finding:
    """One fault of a recipe: where, which, why, and what would be accepted.

    ``blocks`` are the named blocks that it stands in, outermost first, and ``layers`` the layers
    where it was found; ``merged`` makes a note of them.
    """

    code: str
    message: str
    mark: Mark
    help: str = ""
    notes: tuple[str, ...] = ()
    severity: str = "error"  # or "warning"
    blocks: tuple[str, ...] = field(default=(), compare=False)
    layers: tuple[int, ...] = field(default=(), compare=False)


class BuilderError(Exception):
    """Something that we expected could happen.  ``code`` is stable; ``help`` says what to do."""

    exit_code = 70

    def __init__(self, code: str, message: str, help: str = "") -> None:
        self.code, self.message, self.help = code, message, help
        super().__init__(f"error[{code}]: {message}")


class InputError(BuilderError):
    """The user's input, apart from a place in a recipe: a prompt, a path, a corpus."""

    exit_code = 2


class ResourceError(BuilderError):
    """Memory or disk ran out."""

    exit_code = 3


class NumbersError(BuilderError):
    """A loss or a gradient that is not finite."""

    exit_code = 4


class DamagedError(BuilderError):
    """A file that is damaged, or not ours."""

    exit_code = 5


class Stopped(BuilderError):
    """Stopped from outside, with everything saved: 75 can be resumed, 130 was Ctrl-C."""

    def __init__(self, code: str, message: str, help: str = "", exit_code: int = 75) -> None:
        super().__init__(code, message, help)
        self.exit_code = exit_code


class RecipeError(BuilderError):
    """The recipe cannot be built.  Carries every finding, in file order."""

    exit_code = 2

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = sorted(findings, key=_place)
        first = next((f for f in self.findings if f.severity == "error"), self.findings[0])
        self.code, self.message, self.help = first.code, first.message, first.help
        Exception.__init__(self, show(self))


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Each fault once, though every layer found it; its notes say where it came up."""
    alike: dict[Finding, list[Finding]] = {}
    for finding in findings:
        alike.setdefault(replace(finding, notes=()), []).append(finding)
    return [_merged(group) for group in alike.values()]


def _merged(group: list[Finding]) -> Finding:
    notes = list(dict.fromkeys(note for finding in group for note in finding.notes))
    if len(notes) > NOTES:
        notes[NOTES - 1 :] = [f"and {len(notes) - NOTES + 1} more like these"]
    layers = sorted({layer for finding in group for layer in finding.layers})
    blocks = list(dict.fromkeys(finding.blocks[0] for finding in group if finding.blocks))
    where = f"layer{'s'[: len(layers) > 1]} {ranges(layers)}" if layers else ""
    if blocks:
        inside = f"in block{'s'[: len(blocks) > 1]} " + _listed([repr(block) for block in blocks])
        notes.append(f"{inside}, used by {where}" if where else inside)
    elif len(layers) > 1:
        notes.append(f"in {where}")
    return replace(group[0], notes=tuple(notes))


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, told by their runs: ``0-2, 4-6, 8``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def applied(findings: Iterable[Finding], recipe: str) -> list[Finding]:
    """The findings of a recipe; one whose place is elsewhere says which recipe it is told of."""
    return [_applied(finding, recipe) for finding in findings]


def _applied(finding: Finding, recipe: str) -> Finding:
    name = finding.mark.source.name
    if name == recipe:
        return finding
    note = f"applied to {recipe}" if name.startswith("<") else f"which {recipe} extends"
    return replace(finding, notes=(*finding.notes, note))


def raise_all(findings: Sequence[Finding]) -> None:
    """Raise one error with every finding, if any of them is an error."""
    if any(finding.severity == "error" for finding in findings):
        raise RecipeError(findings)


def show(error: BuilderError, *, colour: bool = False) -> str:
    """What the user reads: every finding of a recipe, or the one message."""
    if not isinstance(error, RecipeError):
        return "\n".join(_told(f"error[{error.code}]", error.message, error.help, "error", colour))
    first = sorted(error.findings, key=lambda finding: finding.severity != "error")[:SHOWN]
    shown = [render(finding, colour=colour) for finding in sorted(first, key=_place)]
    if more := len(error.findings) - SHOWN:
        shown += [f"... and {more} more"] if more > 0 else []
    return "\n".join(shown)


def render(finding: Finding, *, colour: bool = False) -> str:
    """A finding with its place, the user's own line, and carets under the fault."""
    mark = finding.mark
    head, *rest = _told(
        f"{finding.severity}[{finding.code}]",
        _brief(finding.message),
        _brief(finding.help),
        finding.severity,
        colour,
    )
    line = mark.source.lines[mark.line - 1] if mark.line <= len(mark.source.lines) else ""
    text, carets = _window(line, mark.column - 1, mark.width)
    quoted = [f"{mark.line:>4} | {text}", f"{'':>4} | {carets}"] if line.strip() else []
    return "\n".join(
        [f"{mark}: {head}", *quoted, *(f"   {_brief(note)}" for note in finding.notes), *rest]
    )


def _told(label: str, message: str, help: str, severity: str, colour: bool) -> list[str]:
    if colour:
        label = f"{RED if severity == 'error' else YELLOW}{label}{PLAIN}"
    aid = f"{CYAN}help:{PLAIN}" if colour else "help:"
    return [f"{label}: {message}", *([f"   {aid} {help}"] if help else [])]


def _brief(text: str) -> str:
    """A text as a terminal shows it, without the middle of a word that has no end."""
    text = _visible(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def _place(finding: Finding) -> tuple[str, int, int]:
    return finding.mark.source.name, finding.mark.line, finding.mark.column


def _window(line: str, start: int, width: int) -> tuple[str, str]:
    """The line as a terminal shows it, cut round the caret if it is long, and its carets."""
    start = min(start, len(line))
    first, last = 0, len(line)
    if len(line) > SPAN or _columns(line) > SPAN:
        first = max(0, min(start - SPAN // 3, len(line) - SPAN))
        last = first + SPAN
    before, fault = _visible(line[first:start]), _visible(line[start : min(start + width, last)])
    left, right = ("…" if first else ""), ("…" if last < len(line) else "")
    text = left + before + fault + _visible(line[start + width : last]) + right
    return text.rstrip(), " " * _columns(left + before) + "^" * max(1, _columns(fault))


def _visible(text: str) -> str:
    """Tabs as spaces; what a terminal would obey, or not show, as a dot."""
    return "".join(
        c if c.isprintable() or unicodedata.combining(c) else "·"
        for c in text.replace("\t", "    ")
    )


def _columns(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in _visible(text)
    )
