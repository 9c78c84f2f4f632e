"""Measure a run: loss, bits per byte and perplexity, on its validation text or on other."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.verbs import plugin_argument
from builder.verbs.generate import within
from builder.verbs.train import device_argument

if TYPE_CHECKING:
    from builder.training.step import Evaluation


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--data", metavar="DATA", help="a file, folder or pattern, or a source such as python_docs"
    )
    parser.add_argument(
        "--lengths",
        type=whole_numbers,
        default=[],
        metavar="N,N,...",
        help="the loss of the last quarter of windows so long, of the same tokens each time",
    )
    parser.add_argument(
        "--past-context", action="store_true", help="lengths may be more than the context"
    )
    device_argument(parser)
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.training.evaluate import measure
    from builder.training.runs import open_run

    opened = open_run(args.run, args.plugins)
    sets = measure(opened, args.data, args.device, args.lengths, args.past_context)
    print("\n\n".join(told(name if len(sets) > 1 else "", found) for name, found in sets.items()))


def told(name: str, found: Evaluation) -> str:
    """What was found on one text."""
    loss = f"loss          {found.loss:.4f} nats a token"
    if found.accuracy is not None:
        rows = [loss, f"accuracy      {found.accuracy:.4f}", f"over {found.tokens:,} answers"]
    elif not found.bytes:
        rows = [loss, f"over {found.tokens:,} tokens, in the last quarter of a window"]
    else:
        rows = [
            loss,
            f"bits per byte {found.bits_per_byte:.4f}",
            f"perplexity    {found.perplexity:.2f}",
            f"over {found.tokens:,} tokens, {found.bytes:,} bytes",
        ]
    return "\n".join([*[name] * bool(name), *rows])


def whole_numbers(text: str) -> list[int]:
    """A list from the command line."""
    number = within(int, 1)
    return [int(number(part)) for part in text.split(",")]
