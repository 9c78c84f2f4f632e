"""Write a run, or several side by side, as one HTML page that needs nothing else."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.verbs import plugin_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the first run's folder"
    )
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.training.report import write
    from builder.training.runs import open_run

    print(write([open_run(path, args.plugins) for path in args.runs], args.out))
