"""Go on with a run that was stopped, exactly where it was."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.verbs import plugin_argument
from builder.verbs.train import device_argument, ending, first_process, shard_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    device_argument(parser)
    shard_argument(parser)
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.training.loop import resume
    from builder.training.runs import open_run

    run = resume(open_run(args.run, args.plugins), args.device, args.shard is not None)
    if first_process():
        print(ending(run))
