"""Measure how long things take on this machine, here and with others."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.errors import InputError


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", metavar="CASE", help="what to measure; default all")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="runs of each; default 5"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of each contender; default: the cores"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables on a page too")


def run(args: Namespace) -> None:
    from builder.bench import cases, machine
    from builder.index import nearest

    names = ["language", *cases.CASES, "scaling"]
    for name in args.cases:
        if name not in names:
            near = nearest(name, names)
            help = f"did you mean {near!r}?" if near else f"cases: {', '.join(names)}"
            raise InputError("unknown-case", f"{name!r} is not a case", help)
    for option, value in (("rounds", args.rounds), ("threads", args.threads)):
        if value is not None and value < 1:
            raise InputError("usage", f"--{option} {value} is below 1", "write 1 or more")
    from builder.bench import tables  # which loads torch: a wrong word is answered before

    threads = args.threads or machine.cores()
    print(machine.described())
    for name in args.cases or names:
        heading, text, picture = measured(name, args.rounds, threads)
        print(f"\n{heading}\n\n{text}", flush=True)
        if args.write:
            on = machine.described().replace("\n", "; ")
            if picture:
                args.write.with_name(f"{name}.svg").write_text(picture, "utf-8")
                text = f"![{heading}]({name}.svg)\n\n{text}"
            told = f"{on}; {args.rounds} rounds, threads: {threads}."
            tables.write(args.write, name, f"**{heading}**\n\n{text}\n\n{told}")


def measured(name: str, rounds: int, threads: int) -> tuple[str, str, str]:
    """A case's heading, what it came to, in Markdown, and a picture, if it has one."""
    import torch

    from builder.bench import cases, commands, match, scaling, tables

    if name == "language":
        found = commands.measure(commands.language(), rounds)
        return f"{name}: whole commands, each in a new process", commands.table(found), ""
    if name == "scaling":
        os.environ["OMP_NUM_THREADS"] = str(threads)  # or the cores would decide
        torch.set_num_threads(threads)
        points, readings = scaling.trained(rounds), scaling.read(rounds)
        heading = f"{name}: time beside the operations that are counted"
        return heading, scaling.pages(points, readings), scaling.plot(points)
    case = cases.CASES[name]
    played = match.play(case, rounds, threads)
    return f"{name}: {case.story}", tables.table(case, *played), ""
