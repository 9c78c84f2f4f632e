"""Tell where runs part: the first step that differs, and in what of it; exits 1 if they do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.errors import InputError
from builder.verbs import plugin_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders: the first, and others"
    )
    plugin_argument(parser)


def run(args: Namespace) -> int:
    from builder.training.compare import compare
    from builder.training.runs import open_run

    if len(args.runs) < 2:
        raise InputError("usage", "one run has nothing to be compared with", "compare RUN RUN ...")
    first, *others = [open_run(path, args.plugins) for path in args.runs]
    found = {other.path: compare(first, other) for other in others}
    told = [
        "\n".join([f"{first.path} and {path}", *(f"  {line}" for line in one.lines())])
        for path, one in found.items()
    ]
    print("\n\n".join(told))
    return 0 if all(one.same for one in found.values()) else 1
