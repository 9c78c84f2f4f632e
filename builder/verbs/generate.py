"""Continue prompts with a trained run."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import InputError
from builder.verbs import plugin_argument
from builder.verbs.train import device_argument

if TYPE_CHECKING:
    from builder.continuation import Sampling
    from builder.model import Model

COMPILE = {"auto": "auto", "always": True, "never": False}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "prompts", nargs="+", metavar="PROMPT", help="a text to continue; several go together"
    )
    sampling_arguments(parser)
    parser.add_argument(
        "--compile",
        choices=list(COMPILE),
        default="auto",
        help="compile the steps that follow a prompt; default: if that pays",
    )
    parser.add_argument(
        "--int8", action="store_true", help="round their matrices to 8 bits, and tell the error"
    )
    device_argument(parser)
    plugin_argument(parser)


def sampling_arguments(parser: ArgumentParser) -> None:
    """How a text is continued; ``chat`` takes the same."""
    parser.add_argument(
        "--max-new-tokens", type=within(int, 1), default=100, metavar="N", help="default: 100"
    )
    parser.add_argument(
        "--temperature", type=within(float, 0), default=0.8, metavar="T", help="default: 0.8"
    )
    parser.add_argument(
        "--top-k", type=within(int, 1), metavar="K", help="choose among the K likeliest"
    )
    parser.add_argument(
        "--top-p",
        type=within(float, 1e-9, 1),
        metavar="P",
        help="among those that hold P of it all",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the same S gives the same text")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")


def within(
    kind: type[int] | type[float], least: float, most: float = float("inf")
) -> Callable[[str], float]:
    """A number of the command line, in its limits."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a number of kind {kind.__name__}") from None
        if not least <= number <= most:
            limits = f"{least:g} or more" if most == float("inf") else f"above 0 and up to {most:g}"
            raise ArgumentTypeError(f"{text} is not {limits}")
        return number

    return read


def sampling(args: Namespace) -> Sampling:
    from builder.continuation import Sampling

    return Sampling(0.0 if args.greedy else args.temperature, args.top_k, args.top_p, args.seed)


def run(args: Namespace) -> None:
    from builder.continuation import continue_all, continue_text, encode_prompt
    from builder.devices import pick_device
    from builder.training.runs import open_run, say

    opened = open_run(args.run, args.plugins)
    context = opened.recipe.graph.context
    prompts = [encode_prompt(opened.tokenizer, prompt, context) for prompt in args.prompts]
    new = min(args.max_new_tokens, context - max(map(len, prompts)))
    if new < args.max_new_tokens:
        say(f"stopping at the context of {context}, after {new} new tokens")
    model = opened.model(pick_device(args.device))
    steps = {"compile": COMPILE[args.compile], "int8": args.int8}
    if args.int8:
        say(told_error(model, prompts, new))
    if len(prompts) == 1:
        write(args.prompts[0])
        continue_text(model, opened.tokenizer, prompts[0], new, sampling(args), write, **steps)
        print()
    else:
        texts = continue_all(model, opened.tokenizer, prompts, new, sampling(args), **steps)
        print("\n\n".join(texts))


def told_error(model: Model, prompts: Sequence[Sequence[int]], new: int) -> str:
    """What rounding does to these prompts.  InputError if there are no such steps."""
    from builder.continuation import device_of, padded
    from builder.decode import NotCompiled
    from builder.generate import rounding_error

    device = device_of(model)
    if device.type != "cpu":
        raise InputError("no-int8", f"--int8 is for a CPU, not {device.type}", "--device cpu")
    ids, padding = padded(prompts, device)
    try:
        error = rounding_error(model, ids, new, padding if len(prompts) > 1 else None)
    except NotCompiled as reason:
        raise InputError("no-int8", f"the steps are not compiled: {reason}", "no --int8") from None
    return f"int8: the next token's probabilities are off by {error:.2g} nats (KL) on this prompt"


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
