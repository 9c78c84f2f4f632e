"""Where text comes from: a source names its files, and gives documents as pieces of text.

A piece is at most ``PIECE`` characters, so that a file larger than memory passes through; the
tokens of a document are those of its pieces, one after another.  A piece may be a ``Prompt``, which
is read and not learnt.

"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeAlias

from blocks.registry import register
from builder.errors import InputError, ResourceError
from builder.training.libraries import library

if TYPE_CHECKING:
    from builder.training.samples import Task

PIECE = 1 << 16
ROWS = 1024  # of a parquet file, read at once
SPOOL = Path("runs/.cache/stdin")
EXTRA = "'onepage-lm[data]'"
Document: TypeAlias = Iterator[str]


class Prompt(str):
    """Text that a model reads, and whose tokens it does not learn to write."""

    __slots__ = ()


class Source(Protocol):
    """What a recipe's ``data`` becomes."""

    def files(self) -> list[Path]: ...

    def documents(self) -> Iterator[Document]: ...


@register("text", kind="data")
class Text:
    """Your own text: a file, a folder of files, or a pattern such as ``books/*.txt``.

    A file is one document; in a ``.jsonl`` or ``.parquet`` file each record is one, under ``key``.
    What it has under ``prompt`` comes first, and is not learnt.  Text and JSONL may be ``.gz``.
    """

    def __init__(self, path: str, /, *, key: str = "text", prompt: str | None = None) -> None:
        self.path, self.key, self.prompt = path, key, prompt

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
            yield from documents_of(path, self.key, self.prompt)


@register("dataset", kind="data")
class Dataset:
    """A folder that the ``datasets`` library saved: each row of a ``split`` is a document, under
    ``key``; what it has under ``prompt`` comes first, and is not learnt.
    """

    def __init__(
        self, path: str, /, *, split: str = "train", key: str = "text", prompt: str | None = None
    ) -> None:
        self.path, self.split, self.key, self.prompt = path, split, key, prompt

    def files(self) -> list[Path]:
        found = sorted(path for path in Path(self.path).expanduser().rglob("*") if path.is_file())
        if not any(path.suffix == ".arrow" for path in found):
            message = f"{self.path!r} is no folder that save_to_disk made"
            raise InputError("no-such-data", message, "data: {dataset: FOLDER}")
        return found

    def documents(self) -> Iterator[Document]:
        for number, row in enumerate(self._rows()):
            yield record_pieces(row, self.key, self.prompt, f"{self.path}, row {number}")

    def _rows(self) -> Any:
        datasets = library("datasets", f"{self.path!r}", EXTRA)
        try:
            found = datasets.load_from_disk(str(Path(self.path).expanduser()))
        except Exception as error:  # what the library raises has no narrower type
            raise InputError("not-a-dataset", f"{self.path!r} cannot be read: {error}") from error
        if not isinstance(found, datasets.DatasetDict):
            return found
        if self.split not in found:
            message = f"{self.path!r} has no split {self.split!r}"
            raise InputError("no-such-data", message, f"splits: {', '.join(found)}")
        return found[self.split]


@register("stdin", kind="data")
class Stdin:
    """What is piped in: one document, or with a ``key`` a JSON object a line.

    It is kept under ``runs/.cache``, from where the run reads it again.
    """

    def __init__(self, *, key: str | None = None, prompt: str | None = None) -> None:
        self.key, self.prompt = key, prompt

    def files(self) -> list[Path]:
        return [spooled(".txt" if self.key is None else ".jsonl")]

    def documents(self) -> Iterator[Document]:
        for path in self.files():
            yield from documents_of(path, self.key or "", self.prompt)

    def kept(self) -> tuple[str, dict[str, str]]:
        """The file that it was put in, as the source ``text`` and its options."""
        given = {"path": str(self.files()[0]), "key": self.key, "prompt": self.prompt}
        return "text", {name: value for name, value in given.items() if value is not None}


@cache
def spooled(suffix: str) -> Path:
    """Standard input as a file named by its digest: it can be read once.  InputError if empty."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no-such-data", "nothing is piped in", "cat FILE | python -m builder ...")
    total = hashlib.sha256()
    try:
        SPOOL.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=SPOOL, prefix=".tmp-", delete=False) as file:
            while chunk := sys.stdin.buffer.read(1 << 20):
                total.update(chunk)
                file.write(chunk)
            size = file.tell()
        kept = SPOOL / f"{total.hexdigest()[:16]}{suffix}"
        Path(file.name).replace(kept)
    except OSError as error:
        message = f"cannot keep what is piped in at {SPOOL}: {error.strerror}"
        raise ResourceError("cannot-write", message) from error
    if not size:
        raise InputError("no-such-data", "what is piped in is empty")
    return kept


def documents_of(path: Path, key: str, prompt: str | None) -> Iterator[Document]:
    """The documents of a file, by what its name ends with."""
    kinds = [suffix for suffix in path.suffixes if suffix != ".gz"]
    match kinds[-1:]:
        case [".jsonl"]:
            for place, record in records(path):
                yield record_pieces(record, key, prompt, place)
        case [".parquet"]:
            for place, record in rows(path, key, prompt):
                yield record_pieces(record, key, prompt, place)
        case _:
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
        open_text = gzip.open if path.suffix == ".gz" else open
        with open_text(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("not-text", f"{path} is no whole gzip file: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            "not-text", f"{path} is not UTF-8 text: {error.reason}", "convert it to UTF-8"
        ) from None
    except OSError as error:
        raise InputError("cannot-read", f"cannot read {path}: {error.strerror}") from None


def cut(text: str, last: bool) -> int:
    """Where to cut: after the last line end, else the last space, else the end."""
    return len(text) if last else (text.rfind("\n") + 1 or text.rfind(" ") + 1 or len(text))


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """What each line of a JSONL file holds, and its place; None for what is not JSON."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield f"{path}:{number}", json.loads(line)
                except ValueError:
                    yield f"{path}:{number}", None


def rows(path: Path, key: str, prompt: str | None) -> Iterator[tuple[str, Any]]:
    """The rows of a parquet file, some at a time, with these columns alone, and their places."""
    parquet = library("pyarrow.parquet", str(path), EXTRA)
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = [c for c in (key, prompt) if c is not None and c in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield f"{path}, row {number}", row
                    number += 1
    except (OSError, ValueError) as error:
        raise InputError("cannot-read", f"cannot read {path}: {error}") from None


def record_pieces(record: Any, key: str, prompt: str | None, place: str) -> Document:
    """A record's prompt, then its text.  InputError names the place that has none."""
    held = record if isinstance(record, Mapping) else {}
    text, before = held.get(key), held.get(prompt) if prompt else ""
    if not isinstance(text, str) or not isinstance(before, str):
        under = f"a text under {key!r}" + (f" and {prompt!r}" if prompt else "")
        raise InputError("not-a-record", f"{place}: not an object with {under}")
    return chain(map(Prompt, pieces(before)), pieces(text))


def digest(source: Source | Task) -> str:
    """Of everything the source reads, and how."""
    total = hashlib.sha256(repr((type(source).__name__, sorted(vars(source).items()))).encode())
    for path in source.files():
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError("cannot-read", f"cannot read {path}: {error.strerror}") from None
    return total.hexdigest()
