"""Measure a run: loss, bits per byte and perplexity, on its validation text or on other."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.verbs import plugin_argument
from builder.verbs.train import device_argument

if TYPE_CHECKING:
    from builder.training.step import Evaluation


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument(
        "--data", metavar="DATA", help="a file, folder or pattern, or a source such as python_docs"
    )
    device_argument(parser)
    plugin_argument(parser)


def run(args: Namespace) -> None:
    from builder.training.evaluate import measure
    from builder.training.runs import open_run

    sets = measure(open_run(args.run, args.plugins), args.data, args.device)
    print("\n\n".join(told(name if len(sets) > 1 else "", found) for name, found in sets.items()))


def told(name: str, found: Evaluation) -> str:
    """What was found on one text."""
    lines = [
        *[name] * bool(name),
        f"loss          {found.loss:.4f} nats a token",
        f"bits per byte {found.bits_per_byte:.4f}",
        f"perplexity    {found.perplexity:.2f}",
        f"over {found.tokens:,} tokens, {found.bytes:,} bytes",
    ]
    return "\n".join(lines)
