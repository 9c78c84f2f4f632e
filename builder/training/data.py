"""Where text comes from: a source names its files, and gives documents as pieces of text.

A piece is at most ``PIECE`` characters, so that a file larger than memory passes through; the
tokens of a document are those of its pieces, one after another.

"""

from __future__ import annotations

import ast
import glob
import hashlib
import json
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, TextIO, TypeAlias

from blocks.registry import register
from builder.errors import InputError

PIECE = 1 << 16
Document: TypeAlias = Iterator[str]


class Source(Protocol):
    """What a recipe's ``data`` becomes."""

    def files(self) -> list[Path]: ...

    def documents(self) -> Iterator[Document]: ...


@register("python_docs", kind="data")
class PythonDocs:
    """The prose that ships with CPython: its language reference, and the docstrings of the standard
    library.

    A document is one topic, or one module; they stand in an order drawn from their names, so that
    the end of the corpus is like the rest of it.  No module is imported.
    """

    skipped = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")

    def files(self) -> list[Path]:
        home = Path(sysconfig.get_path("stdlib"))
        found = (
            path
            for path in home.rglob("*.py")
            if not set(path.relative_to(home).parts) & set(self.skipped)
        )
        return sorted(found, key=lambda path: path.relative_to(home).as_posix())

    def documents(self) -> Iterator[Document]:
        named = prose(tuple(self.files()))
        for name in sorted(named, key=lambda name: hashlib.sha256(name.encode()).digest()):
            yield pieces(named[name])


@register("text", kind="data")
class Text:
    """Your own text: a file, a folder of files, or a pattern such as ``books/*.txt``.

    A file is one document; in a ``.jsonl`` file each line is one, under ``key``.
    """

    def __init__(self, path: str, /, *, key: str = "text") -> None:
        self.path, self.key = path, key

    def files(self) -> list[Path]:
        path = Path(self.path).expanduser()
        if path.is_file():
            return [path]
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            found = [
                file
                for file in inside
                if not any(p.startswith(".") for p in file.relative_to(path).parts)
            ]
        else:
            found = [
                file for file in map(Path, glob.glob(str(path), recursive=True)) if file.is_file()
            ]
        if not found:
            raise InputError(
                "no-such-data",
                f"there is no text at {self.path!r}",
                "data: {text: FILE, folder or pattern}",
            )
        return sorted(found)

    def documents(self) -> Iterator[Document]:
        for path in self.files():
            if path.suffix == ".jsonl":
                yield from (pieces(text) for text in records(path, self.key))
            else:
                yield file_pieces(path)


def pieces(text: str) -> Document:
    """A text cut after line ends, as a file is."""
    start = 0
    while start < len(text):
        end = cut(text[start : start + PIECE], last=start + PIECE >= len(text))
        yield text[start : start + end]
        start += end


def file_pieces(path: Path) -> Document:
    """A UTF-8 file, its line ends untouched.  InputError if it is not text."""
    rest = ""
    with opened(path) as file:
        while chunk := file.read(PIECE):
            rest += chunk
            end = cut(rest, last=False)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A file of text.  InputError if it cannot be read, or is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            "not-text", f"{path} is not UTF-8 text: {error.reason}", "convert it to UTF-8"
        ) from None
    except OSError as error:
        raise InputError("cannot-read", f"cannot read {path}: {error.strerror}") from None


def cut(text: str, last: bool) -> int:
    """Where to cut: after the last line end, else the last space, else the end."""
    return len(text) if last else (text.rfind("\n") + 1 or text.rfind(" ") + 1 or len(text))


def records(path: Path, key: str) -> Iterator[str]:
    """The texts of a JSONL file.  InputError names the line that has none."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield record(line, key, f"{path}:{number}")


def record(line: str, key: str, place: str) -> str:
    try:
        text = json.loads(line)[key]
    except (ValueError, TypeError, KeyError):
        text = None
    if not isinstance(text, str):
        raise InputError("not-a-record", f"{place}: not a JSON object with a text under {key!r}")
    return text


def digest(source: Source) -> str:
    """Of everything the source reads, and how."""
    total = hashlib.sha256(repr((type(source).__name__, sorted(vars(source).items()))).encode())
    for path in source.files():
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError("cannot-read", f"cannot read {path}: {error.strerror}") from None
    return total.hexdigest()


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
