"""The prose that ships with Python: a corpus that is always there."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from blocks.registry import register
from builder.training.data import Document, pieces


@register("python_docs", kind="data")
class PythonDocs:
    """The prose that ships with CPython: its language reference, and the docstrings of the standard
    library.

    A document is one topic, or one module; they stand in an order drawn from their names, so that
    the end of the corpus is like the rest of it.  No module is imported.
    """

    skipped = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")

    def files(self) -> list[Path]:
        home, found = Path(sysconfig.get_path("stdlib")), []
        for folder, inside, names in os.walk(home):
            inside[:] = [name for name in inside if name not in self.skipped]
            found += [Path(folder, name) for name in names if name.endswith(".py")]
        return sorted(found, key=lambda path: path.relative_to(home).as_posix())

    def documents(self) -> Iterator[Document]:
        named = prose(tuple(self.files()))
        for name in sorted(named, key=lambda name: hashlib.sha256(name.encode()).digest()):
            yield pieces(named[name])


@cache
def prose(paths: Sequence[Path]) -> dict[str, str]:
    """The text of each module and topic, kept: a tokenizer is made from it, then the corpus."""
    home = Path(sysconfig.get_path("stdlib"))
    named: dict[str, str] = {}
    for path in paths:
        tree = parsed(path)
        named[path.relative_to(home).as_posix()] = docstrings(tree)
        if path.name == "topics.py" and path.parent.name == "pydoc_data":
            named |= topics(tree)
    return named


def parsed(path: Path) -> ast.Module:
    """A file of the standard library; those that are no Python, such as templates, are empty."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def docstrings(tree: ast.Module) -> str:
    """What a module says of itself, from the top down."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (
        (node, ast.get_docstring(node)) for node in ast.walk(tree) if isinstance(node, documented)
    )
    ordered = sorted(
        ((getattr(node, "lineno", 0), text) for node, text in found if text),
        key=lambda pair: pair[0],
    )
    return "".join(f"{text}\n\n" for _, text in ordered)


def topics(tree: ast.Module) -> dict[str, str]:
    """The chapters of ``pydoc_data/topics.py``: one dict, read without running it."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            return {
                f"topic {name}": text for name, text in ast.literal_eval(statement.value).items()
            }
    return {}
