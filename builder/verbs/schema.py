"""Write the recipe language as a JSON Schema, for editors."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from builder.errors import InputError
from builder.verbs import plugin_argument


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "out", nargs="?", type=Path, metavar="OUT", help="a file; default: standard output"
    )
    plugin_argument(parser)


def run(args: Namespace) -> None:
    text = schema_text(args.plugins)
    if args.out is None:
        sys.stdout.write(text)
    else:
        write(args.out, text)
        print(f"{args.out}: a recipe beside it begins with\n{modeline(args.out.name)}")


def modeline(path: str) -> str:
    """The line by which a recipe names its schema to an editor, by a path from the recipe."""
    return f"# yaml-language-server: $schema={path}"


def schema_text(plugins: Sequence[Path] = ()) -> str:
    """The schema of everything registered, in ``blocks/`` and in the plug-ins."""
    from builder.index import load_index
    from builder.schema import recipe_schema

    return json.dumps(recipe_schema(load_index(plugins)), indent=1) + "\n"


def write(out: Path, text: str) -> None:
    """Write a schema, over an older one too.  InputError where another file has the name."""
    try:
        if out.exists() and not is_ours(out):
            message = f"{str(out)!r} exists already, and is no schema of recipes"
            raise InputError("file-exists", message, "choose another name")
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError("cannot-write", f"cannot write {str(out)!r}: {error.strerror}") from None


def is_ours(path: Path) -> bool:
    from builder.schema import COMMENT

    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["$comment"] == COMMENT)
    except (ValueError, KeyError, TypeError):
        return False
