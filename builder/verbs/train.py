"""Train a recipe, and keep everything about it in a run folder."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.training.signals import stopping
from builder.verbs import load, recipe_arguments

if TYPE_CHECKING:
    from builder.training.runs import Run


def configure(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="the run folder; default: runs/<time>_<name>_<hash>"
    )
    parser.add_argument(
        "--from", dest="start", type=Path, metavar="RUN", help="start from the weights of a run"
    )
    device_argument(parser)
    shard_argument(parser)
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="NAME",
        help="where else numbers go: tensorboard, wandb (offline), trackio, mlflow",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="all but the training: writes no run"
    )


def device_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="D", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one"
    )


def shard_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--shard",
        choices=["fsdp"],
        help="under torchrun: each process holds a part of every weight, and not all of them",
    )


def run(args: Namespace) -> None:
    recipe = load(args)
    with stopping() as stop:
        with stop.before_anything():  # torch alone takes seconds to load
            from builder.training.loop import dry_run, train
            from builder.training.runs import open_run, say

            start = None if args.start is None else open_run(args.start, args.plugins)
        if args.dry_run:
            print(dry_run(recipe, args.device, say, start))
            return
        command = ["python", "-m", "builder", *sys.argv[1:]]
        shard = args.shard is not None
        trained = train(recipe, args.run, start, args.device, command, shard, args.log)
    if first_process():
        print(ending(trained))


def first_process() -> bool:
    """Whether this is the process that speaks, of those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


def ending(run: Run) -> str:
    """What the run came to, and what to try next."""
    samples = run.path / "samples.txt"
    last = (
        samples.read_text(encoding="utf-8").rpartition("--- step ")[2] if samples.exists() else ""
    )
    text = last.partition("\n")[2].rstrip()
    lines = [f"A sample:\n\n{text}\n"] if text else []
    path = shlex.quote(str(run.path))
    prompt = shlex.quote(" ".join(text.split()[:3]))  # which its tokenizer surely knows
    lines += [
        f"Trained: {run.path}. Now try",
        f"  python -m builder generate {path} {prompt}",
        f"  python -m builder eval {path}",
        f"  python -m builder export {path} exported/{run.recipe.name}",
    ]
    return "\n".join(lines)
