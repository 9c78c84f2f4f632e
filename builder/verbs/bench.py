"""Measure how long things take on this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from builder.errors import InputError


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure; default all")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="runs of each; default 5"
    )


def run(args: Namespace) -> None:
    from builder.bench import CASES, machine, measure, table
    from builder.index import nearest

    for case in args.cases:
        if case not in CASES:
            near = nearest(case, CASES)
            help = f"did you mean {near!r}?" if near else f"cases: {', '.join(CASES)}"
            raise InputError("unknown-case", f"{case!r} is not a case", help)
    if args.rounds < 1:
        raise InputError("usage", f"--rounds {args.rounds} is below 1", "write 1 or more")
    print(machine())
    for case in args.cases or CASES:
        print(f"\n{case}: {args.rounds} rounds, each task in a fresh process")
        print(table(measure(CASES[case](), args.rounds)))
