"""One file a verb: its docstring is its help, ``configure`` names its arguments, ``run`` acts."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.recipe import Recipe


def recipe_arguments(parser: ArgumentParser) -> None:
    """RECIPE, the values that override its own, and the plug-ins whose blocks it may use."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    parser.add_argument(
        "overrides", nargs="*", metavar="PATH=VALUE", help="dims.ff=512, model.repeat=8, ..."
    )
    plugin_argument(parser)


def plugin_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a Python file that registers blocks; may come more than once",
    )


def load(args: Namespace) -> Recipe:
    """The recipe that the arguments ask for; its warnings go to stderr."""
    from builder import load_recipe  # resolving loads late, so that --help stays instant
    from builder.errors import render

    recipe = load_recipe(args.recipe, args.overrides, args.plugins)
    for warning in recipe.warnings:
        print(render(warning, colour=sys.stderr.isatty()), file=sys.stderr)
    return recipe
