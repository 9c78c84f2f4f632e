"""Check recipes and report everything that is wrong with them."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builder.errors import BuilderError, Finding, RecipeError, show
from builder.verbs import plugin_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipe files")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    plugin_argument(parser)


def run(args: Namespace) -> int:
    results = {path: faults(path, args.plugins) for path in args.recipes}
    if args.format == "json":
        found = [row for path, error in results.items() for row in rows(path, error)]
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(text(path, error) for path, error in results.items()))
    return max((error.exit_code for error in results.values() if error and bad(error)), default=0)


def faults(path: Path, plugins: Sequence[Path] = ()) -> BuilderError | None:
    """What is wrong with one recipe, its warnings included."""
    from builder import load_recipe  # it resolves and checks; torch stays out

    try:
        warnings = load_recipe(path, (), plugins).warnings
    except BuilderError as error:
        return error
    return RecipeError(warnings) if warnings else None


def bad(error: BuilderError | None) -> bool:
    if isinstance(error, RecipeError):
        return any(finding.severity == "error" for finding in error.findings)
    return error is not None


def text(path: Path, error: BuilderError | None) -> str:
    told = [show(error, colour=sys.stdout.isatty())] if error else []
    return "\n".join(told if bad(error) else [*told, f"{path}: ok"])


def rows(path: Path, error: BuilderError | None) -> list[dict[str, Any]]:
    """One JSON object a finding; a fault of the whole file has no line."""
    if isinstance(error, RecipeError):
        return [row(finding) for finding in error.findings]
    if error is None:
        return []
    told = {"code": error.code, "message": error.message, "notes": [], "help": error.help}
    return [{"file": str(path), "line": None, "column": None, **told, "severity": "error"}]


def row(finding: Finding) -> dict[str, Any]:
    mark = finding.mark
    return {
        "file": mark.source.name,
        "line": mark.line,
        "column": mark.column,
        "code": finding.code,
        "message": finding.message,
        "notes": list(finding.notes),
        "help": finding.help,
        "severity": finding.severity,
    }
