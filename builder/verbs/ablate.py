"""Compare variants of a recipe at equal cost, over seeds, with intervals and verdicts."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.ablation.named import MATCHES, SEEDS, TOLERANCE
from builder.errors import InputError, Stopped
from builder.training.signals import stopping
from builder.verbs import plugin_argument
from builder.verbs.eval import whole_numbers
from builder.verbs.generate import within
from builder.verbs.train import device_argument

if TYPE_CHECKING:
    from builder.ablation.outcome import Ask

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="the base, then recipes that are rows"
    )
    what_is_compared(parser)
    how_much(parser)
    parser.add_argument(
        "--claims",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a page of claims to try instead; exits 1 unless all are reproduced",
    )
    parser.add_argument(
        "--jobs", type=within(int, 1), default=1, metavar="N", help="processes that share the cells"
    )
    parser.add_argument(
        "--launch", choices=["torchrun", "slurm"], help="print a job script of this command instead"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="where results are written")
    device_argument(parser)
    plugin_argument(parser)


def what_is_compared(parser: ArgumentParser) -> None:
    """Rows, and how they are made to cost the same."""
    parser.add_argument(
        "--swap",
        action="append",
        default=[],
        metavar="PATH=V1,V2",
        help="a path and what stands there in turn; may come more than once",
    )
    parser.add_argument("--cross", action="store_true", help="combinations of swaps too")
    parser.add_argument(
        "--match", choices=MATCHES, default="none", help="which cost all rows have alike"
    )
    parser.add_argument(
        "--absorb", default="", metavar="DIM", help="the dim that makes it so, such as dims.ff"
    )
    parser.add_argument(
        "--multiple", type=within(int, 1), default=1, metavar="N", help="of which the dim is one"
    )
    parser.add_argument(
        "--tolerance",
        type=within(float, 0),
        default=TOLERANCE,
        metavar="SHARE",
        help=f"of the base's cost that a row may be off; default: {TOLERANCE}",
    )


def how_much(parser: ArgumentParser) -> None:
    """Seeds, rates, time, and by what number rows are judged."""
    parser.add_argument(
        "--seeds",
        type=whole_numbers,
        default=[],
        metavar="N[,N]",
        help=f"{SEEDS} by default; 3,9: nine for the rows that three leave inconclusive",
    )
    parser.add_argument(
        "--lr-sweep", type=within(int, 2), default=0, metavar="N", help="rates tried for each row"
    )
    parser.add_argument(
        "--budget", type=seconds, metavar="TIME", help="20m, 2h: it picks how many seeds"
    )
    parser.add_argument(
        "--metric",
        default="",
        metavar="NAME",
        help="loss, bits_per_byte, accuracy, solved, loss@256, 'loss@256 - loss@64'",
    )
    parser.add_argument(
        "--margin",
        type=within(float, 0),
        metavar="D",
        help="the difference that does not matter; default: 0.01 nats",
    )
    parser.add_argument(
        "--lengths", type=whole_numbers, default=[], metavar="N,N", help="measured at these too"
    )


def seconds(text: str) -> float:
    """A time from the command line: ``90s``, ``20m``, ``1.5h``."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)([smhd])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no time, such as 20m or 2h")
    return float(match[1]) * UNITS[match[2]]


def run(args: Namespace) -> int:
    from builder.ablation.crew import helped, out_of_group, script

    words = sys.argv[1:]
    if args.launch is not None:
        print(script(args.launch, launched(words)), end="")
        return 0
    with stopping() as stop, stop.before_anything("stopped between two cells"), told_to_go_on():
        speaks, args.device = out_of_group(args.device)
        with helped(args.jobs, words):
            return (try_claims if args.claims else compare)(args, speaks)


@contextmanager
def told_to_go_on() -> Iterator[None]:
    """Who is stopped may go on: by the same command, and not by resuming a cell."""
    try:
        yield
    except Stopped as stopped:
        help = "the same command goes on from there"
        raise Stopped(stopped.code, stopped.message, help, stopped.exit_code) from None


def launched(words: list[str]) -> list[str]:
    """The command without what asks for a script of it."""
    kept, value = [], False
    for word in words:
        if not value and word != "--launch" and not word.startswith("--launch="):
            kept.append(word)
        value = not value and word == "--launch"  # which stands behind it
    return kept


def compare(args: Namespace, speaks: bool) -> int:
    """The rows, their tables, and where they are written."""
    from builder.ablation.experiment import ablate
    from builder.ablation.folder import write
    from builder.ablation.tables import summary

    found = ablate(ask(args), args.device)
    if speaks:
        print(summary(found))
        print(write(found, args.run))
    return 1 if any(record.result.status == "failed" for record in found.records) else 0


def try_claims(args: Namespace, speaks: bool) -> int:
    """Every claim of every page: each is told when it is judged."""
    from builder.ablation.claims import read_claims
    from builder.ablation.folder import write_claims
    from builder.ablation.judge import judge

    found = []
    for claim in [claim for path in args.claims for claim in read_claims(path)]:
        found.append(judge(claim, args.device))
        if speaks:
            print(found[-1], flush=True)
    words = [judgement.word for judgement in found]
    if speaks:
        print(", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)))
        print(write_claims(found, args.run))
    return 0 if set(words) <= {"reproduced"} else 1


def ask(args: Namespace) -> Ask:
    """What the arguments ask."""
    from builder.ablation.outcome import Ask

    recipes = tuple(Path(word) for word in args.recipes if "=" not in word)
    if not recipes:
        raise InputError(
            "usage", "there is no recipe to compare", "ablate RECIPE --swap PATH=V1,V2"
        )
    return Ask(
        recipes,
        tuple(word for word in args.recipes if "=" in word),
        tuple(args.swap),
        args.cross,
        args.match,
        args.absorb,
        args.multiple,
        args.tolerance,
        tuple(args.seeds),
        args.lr_sweep,
        args.budget,
        args.metric,
        args.margin,
        tuple(args.lengths),
        tuple(args.plugins),
    )
