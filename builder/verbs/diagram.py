"""Draw a recipe: an SVG for a paper, or Mermaid for a README.

The picture runs from the tokens at its foot to the logits.  Layers that are alike stand once, with
how often; what is read across depth is dashed.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from builder.errors import InputError
from builder.verbs import load, recipe_arguments


def configure(parser: ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument("--format", choices=["svg", "mermaid"], default="svg")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def run(args: Namespace) -> None:
    from builder.drawing.mermaid import mermaid
    from builder.drawing.svg import svg
    from builder.drawing.view import view

    shown = view(load(args))
    text = svg(shown) if args.format == "svg" else mermaid(shown)
    if args.out is None:
        sys.stdout.write(text)
    else:
        write(args.out, text)


def write(out: Path, text: str) -> None:
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {str(out)!r}: {error.strerror}") from None
