"""What can go wrong, named for what the user can do about it, and how it is shown.

Errors are raised deep and rendered once, in ``__main__``.  A finding in a recipe carries the place, a stable
code named for the fault, one phrase that stands alone, and a help that would be accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A text that was read, under the name that messages give it."""

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Mark:
    """A place in a text: line and column from 1, and how many characters it spans on its first line."""

    source: Source
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Finding:
    """One fault of a recipe: where, which, why, and what would be accepted."""

    code: str
    message: str
    mark: Mark
    help: str = ""
    notes: tuple[str, ...] = ()
    severity: str = "error"  # or "warning"


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
        self.findings = sorted(findings, key=lambda f: (f.mark.source.name, f.mark.line, f.mark.column))
        Exception.__init__(self, "\n".join(render(finding) for finding in self.findings))
