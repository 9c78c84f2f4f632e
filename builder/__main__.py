"""``python -m builder VERB ...``: finds the verb, runs it, and renders what went wrong, once."""

from __future__ import annotations

import ast
import errno
import gc
import importlib
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from builder.errors import BuilderError, InputError, ResourceError, show

PROGRAM = "python -m builder"
DISTRIBUTION = "onepage-lm"
GROUP = "builder.verbs"
HOMES = ("builder", "hf_bridge")  # the packages whose verbs are found without being installed
ROOT = Path(__file__).resolve().parent.parent
OUR_FAULT = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and give the exit code; whatever goes wrong is told here, once."""
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except Exception as error:
        return report(error)


def run(argv: list[str]) -> int:
    """Run one verb, and give its exit code."""
    match argv:
        case []:
            print(overview(), file=sys.stderr)
            return 2
        case ["-h" | "--help" | "help", *_]:
            print(overview())
            return 0
        case ["--version", *_]:
            print(version())
            return 0
    module = importlib.import_module(verb_module(argv[0]))
    parser = Parser(prog=f"{PROGRAM} {argv[0]}", description=module.__doc__, allow_abbrev=False)
    module.configure(parser)
    return module.run(parser.arguments(argv[1:])) or 0


class Parser(ArgumentParser):
    """An argument parser whose complaint is one of our errors, with the nearest option."""

    def arguments(self, argv: Sequence[str]) -> Namespace:
        """Options may stand among other arguments, unless the verb has verbs of its own."""
        return self.parse_args(argv) if self._subparsers else self.parse_intermixed_args(argv)

    def error(self, message: str) -> NoReturn:
        help = self.format_usage().strip()
        if message.startswith("unrecognized arguments: "):
            word = message.split(": ", 1)[1].split()[0].partition("=")[0]
            message = f"'{self.prog}' does not take {word!r}"
            help = _nearest(word, self._option_string_actions) or help
        raise InputError("usage", message, help)


def verbs() -> dict[str, Path | str]:
    """Every verb: the file that holds it, or the module that an installed package names."""
    return installed_verbs() | home_verbs()


def home_verbs() -> dict[str, Path | str]:
    paths = (path for home in HOMES for path in sorted(ROOT.glob(f"{home}/verbs/*.py")))
    return {path.stem.rstrip("_"): path for path in paths if path.stem != "__init__"}


def installed_verbs() -> dict[str, Path | str]:
    from importlib.metadata import (
        entry_points,
    )  # slow: only for help, and for verbs that are not ours

    return {point.name: point.module for point in entry_points(group=GROUP)}


def verb_module(verb: str) -> str:
    """The module of a verb; ours are found without a look at what is installed."""
    place = home_verbs().get(verb) or installed_verbs().get(verb)
    if isinstance(place, Path):
        return ".".join(place.relative_to(ROOT).with_suffix("").parts)
    if place is None:
        help = _nearest(verb, verbs()) or f"'{PROGRAM} --help' lists the verbs"
        raise InputError("unknown-verb", f"{verb!r} is not a verb", help)
    return place


def overview() -> str:
    """The help: each verb with the first line of its docstring, read without importing it."""
    known = verbs()
    width = max(map(len, known))
    lines = (f"  {verb:<{width}}  {summary(known[verb])}" for verb in sorted(known))
    usage = f"usage: {PROGRAM} VERB ...\n\nBuild, check and train language models from recipes.\n"
    return "\n".join([usage, *lines, f"\n'{PROGRAM} VERB --help' tells more of one."])


def summary(place: Path | str) -> str:
    if isinstance(place, str):
        return f"from {place}"
    doc = ast.get_docstring(ast.parse(place.read_text("utf-8"))) or ""
    return doc.partition("\n")[0]


def version() -> str:
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"


def report(error: Exception) -> int:
    """Tell what went wrong: theirs in a few lines, ours with its traceback."""
    expected = expected_error(error)
    if expected is not None:
        colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        print(show(expected, colour=colour), file=sys.stderr)
        return expected.exit_code
    import traceback

    traceback.print_exception(error)
    print("this is our fault, not yours: please report it, with the lines above", file=sys.stderr)
    return OUR_FAULT


def expected_error(error: Exception) -> BuilderError | None:
    """An error that we can tell; torch's go by name, so that it need not be loaded."""
    if isinstance(error, BuilderError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        message = str(error).partition("\n")[0] or "memory ran out"
        return ResourceError(
            "out-of-memory", message, "a smaller batch, context or dtype needs less"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError("disk-full", f"{error.strerror}: {error.filename}", "free some space")
    return None


def _nearest(word: str, words: Iterable[str]) -> str:
    from builder.index import nearest

    near = nearest(word, words)
    return f"did you mean {near!r}?" if near else ""


if __name__ == "__main__":
    code = main()
    gc.freeze()  # or Python looks once more through all that torch has loaded: half a second
    sys.exit(code)
