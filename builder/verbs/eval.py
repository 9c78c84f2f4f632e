"""Measure a run: loss, bits per byte and perplexity, on its validation text or on other."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.verbs import plugin_argument
from builder.verbs.train import device_argument


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

    found = measure(open_run(args.run, args.plugins), args.data, args.device)
    print(f"loss          {found.loss:.4f} nats a token")
    print(f"bits per byte {found.bits_per_byte:.4f}")
    print(f"perplexity    {found.perplexity:.2f}")
    print(f"over {found.tokens:,} tokens, {found.bytes:,} bytes")
