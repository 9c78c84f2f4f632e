"""Talk with a run: each line is read, and continued.  /reset forgets, /quit ends."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import InputError, show
from builder.verbs import plugin_argument
from builder.verbs.generate import sampling, sampling_arguments, write
from builder.verbs.train import device_argument

if TYPE_CHECKING:
    from builder.continuation import Conversation


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    sampling_arguments(parser)
    device_argument(parser)
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.continuation import Conversation
    from builder.devices import pick_device
    from builder.training.runs import open_run, say

    opened = open_run(args.run, args.plugins)
    model = opened.model(pick_device(args.device))
    say(
        f"{opened.recipe.name}, {opened.recipe.graph.context} tokens of context;"
        " /reset forgets, /quit ends"
    )
    converse(Conversation(model, opened.tokenizer, sampling(args), args.max_new_tokens))


def converse(conversation: Conversation) -> None:
    """Lines from stdin until there are no more."""
    while (line := ask()) not in (None, "/quit"):
        if line == "/reset":
            conversation.reset()
        elif line:
            turn(conversation, line)


def ask() -> str | None:
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def turn(conversation: Conversation, line: str) -> None:
    """One line and its answer; Ctrl-C stops the answer, and not the talk."""
    try:
        conversation.answer(line, write)
        print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
    except InputError as error:
        print(show(error, colour=False), file=sys.stderr)
