"""Tokens on disk, and which of them make batch k: a pure function of (seed, k).

The corpus is tokenised once into a memory-mapped file, which knows its tokenizer and its source.
The order of the windows is a keyed permutation that is computed, never stored: nothing of it is in
a checkpoint, and it depends on neither batch size, nor workers, nor the number of processes.

"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from builder.errors import InputError, ResourceError
from builder.tokenizers import Tokenizer
from builder.training.data import Source, digest

Array: TypeAlias = np.ndarray[Any, Any]
FORMAT = 1
GROUP = 256  # pieces tokenised at once: 16 MB of text
VALIDATION = 0.05
ROUNDS = 6  # of the Feistel network; with fewer, small corpora are visibly ordered
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd


@dataclass(frozen=True)
class TokenFile:
    """All tokens of a corpus; the end token ends each document, at ``ends``."""

    tokens: Array = field(repr=False)
    ends: Array = field(repr=False)
    bytes: int
    source: str  # digest
    tokenizer: str  # hash


@dataclass(frozen=True)
class Corpus:
    """What a run trains and validates on: windows of ``length`` tokens and the one after."""

    train: Array = field(repr=False)
    validation: Array = field(repr=False)
    validation_bytes: int
    length: int
    source: str  # digest

    @property
    def windows(self) -> int:
        return (len(self.train) - 1) // self.length


def tokenised(source: Source, tokenizer: Tokenizer, cache: Path) -> TokenFile:
    """The tokens of a source, from the cache if it has them."""
    known = {"format": FORMAT, "source": digest(source), "tokenizer": tokenizer.hash}
    home = cache / hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
    try:
        return open_tokens(home, known)
    except (OSError, ValueError, KeyError):
        with _written(home) as folder:
            write_tokens(folder, source, tokenizer, known)
        return open_tokens(home, known)


@contextmanager
def _written(home: Path) -> Iterator[Path]:
    """A folder to write in, which then takes the place of ``home``."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home.parent))
        try:
            yield folder
            shutil.rmtree(home, ignore_errors=True)
            folder.rename(home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if not (home / "tokens.json").exists():  # else another process was first
            raise ResourceError(
                "cannot-write", f"cannot write tokens to {home}: {error.strerror}"
            ) from error


def write_tokens(folder: Path, source: Source, tokenizer: Tokenizer, known: dict[str, Any]) -> None:
    """Tokenise a source into ``tokens.bin``, and what is known of it into ``tokens.json``."""
    dtype = np.dtype(np.uint16 if tokenizer.size <= 1 << 16 else np.uint32)
    end = [] if tokenizer.end is None else [tokenizer.end]
    count, size, ends = 0, 0, []
    marked = _marked_pieces(source)
    with (folder / "tokens.bin").open("wb") as file:
        while group := list(islice(marked, GROUP)):
            for (piece, last), ids in zip(
                group, tokenizer.encode_batch([piece for piece, _ in group]), strict=True
            ):
                ids += end if last else []
                file.write(np.asarray(ids, dtype=dtype).tobytes())
                count, size = count + len(ids), size + len(piece.encode())
                ends += [count] if last else []
    np.asarray(ends, dtype=np.uint64).tofile(folder / "documents.bin")
    header = known | {"dtype": dtype.name, "tokens": count, "bytes": size, "documents": len(ends)}
    (folder / "tokens.json").write_text(json.dumps(header, indent=2) + "\n")


def _marked_pieces(source: Source) -> Iterator[tuple[str, bool]]:
    """Every piece, and whether its document ends with it."""
    for document in source.documents():
        held = None
        for piece in document:
            if held is not None:
                yield held, False
            held = piece
        if held is not None:
            yield held, True


def open_tokens(home: Path, known: dict[str, Any]) -> TokenFile:
    """What is in the cache.  ValueError if it is not what is asked for, or not whole."""
    header = json.loads((home / "tokens.json").read_text())
    dtype = np.dtype(header["dtype"])
    path = home / "tokens.bin"
    whole = path.stat().st_size == header["tokens"] * dtype.itemsize
    if {name: header[name] for name in known} != known or not whole:
        raise ValueError(f"{home} holds other tokens")
    tokens = np.memmap(path, dtype=dtype, mode="r") if header["tokens"] else np.empty(0, dtype)
    ends = np.fromfile(home / "documents.bin", dtype=np.uint64)
    return TokenFile(tokens, ends, header["bytes"], header["source"], header["tokenizer"])


def split(file: TokenFile, tokenizer: Tokenizer, length: int, eval_tokens: int) -> Corpus:
    """The corpus's tail for validation, the rest to train; InputError if no window remains."""
    held = min(int(len(file.tokens) * VALIDATION), eval_tokens)
    train, validation = (
        file.tokens[: len(file.tokens) - held],
        file.tokens[len(file.tokens) - held :],
    )
    if len(train) < length + 1:
        raise InputError(
            "corpus-too-small",
            f"the corpus has {len(train)} tokens to train on, and one window takes {length + 1}",
            "give it more text, or a smaller train.length",
        )
    return Corpus(train, validation, tokenizer.count_bytes(validation[1:]), length, file.source)


def windows(corpus: Corpus, seed: int, first: int, count: int) -> Array:
    """Samples ``first`` to ``first + count`` of the endless stream, (count, length + 1); each once
    an epoch.
    """
    index = np.arange(first, first + count, dtype=np.uint64)
    total = np.uint64(corpus.windows)
    keys = _mixed(index // total + np.uint64(seed * GOLDEN % 2**64))
    place = permuted(index % total, corpus.windows, keys)
    starts = place.astype(np.int64) * corpus.length
    found: Array = corpus.train[starts[:, None] + np.arange(corpus.length + 1)].astype(np.int64)
    return found


def permuted(index: Array, size: int, key: Array) -> Array:
    """Where a keyed permutation of ``range(size)`` sends each index; ``key`` is one number for
    each.

    A Feistel network permutes the next power of four; who lands outside walks on until inside
    (cycle walking).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    index = _feistel(index, half, key)
    while (outside := index >= size).any():
        index[outside] = _feistel(index[outside], half, key[outside])
    return index


def _feistel(index: Array, half: int, key: Array) -> Array:
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = index >> shift, index & mask
    for number in range(1, ROUNDS + 1):
        left, right = right, left ^ (_mixed(right + key * np.uint64(2 * number + 1)) & mask)
    found: Array = (left << shift) | right
    return found


def _mixed(x: Array) -> Array:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): each bit of x moves each of the result."""
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Array = x ^ (x >> np.uint64(31))
    return found
