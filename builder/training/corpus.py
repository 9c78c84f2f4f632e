"""Tokens on disk, and the samples that are cut from them.

A source is tokenised once into a folder of memory-mapped files, which knows its tokenizer, its
source and its dtype, and is made again when any of them changes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from builder.errors import InputError, ResourceError
from builder.loss import IGNORED
from builder.tokenizers import Tokenizer
from builder.training import disk
from builder.training.data import Prompt, Source
from builder.training.order import Array, places

FORMAT = 2
GROUP = 64  # pieces tokenised at once: 4 MB of text, which take fifty times that for a moment
VALIDATION = 0.05


@dataclass(frozen=True)
class Batch:
    """Samples of ``T`` tokens: what is read, what is to follow each, and which belong together.

    ids, labels ``(B, T)`` int64, a label of -100 is not learnt; documents ``(B, T)`` or None.
    """

    ids: Tensor
    labels: Tensor
    documents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learnt(self) -> int:
        """How many labels count."""
        return int((self.labels != IGNORED).sum())

    @property
    def digest(self) -> int:
        """Of what is read, a sum over the rows: those of the parts of a batch add up to its own."""
        rows = (hashlib.blake2b(row.numpy(), digest_size=8).digest() for row in self.ids.cpu())
        return sum(int.from_bytes(row, "big") >> 24 for row in rows)  # a million fit an int64

    def to(self, device: torch.device) -> Batch:
        documents = None if self.documents is None else self.documents.to(device)
        return Batch(self.ids.to(device), self.labels.to(device), documents)

    def parts(self, count: int) -> list[Batch]:
        """The batch in so many parts, as even as can be."""
        cut = [
            part.tensor_split(count) if part is not None else [None] * count
            for part in (self.ids, self.labels, self.documents)
        ]
        return [Batch(ids, labels, documents) for ids, labels, documents in zip(*cut, strict=True)]


@dataclass(frozen=True)
class Tokens:
    """A stretch of a corpus.

    ``begins`` are the places where a document begins: at the end token before it, which is what
    its first token follows; or, where ``bare``, at its own first token, for there is no end token.
    ``learnt`` is False at tokens of prompts; None if there are none.
    """

    ids: Array = field(repr=False)
    begins: Array = field(repr=False)
    learnt: Array | None = field(default=None, repr=False)
    bare: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def stretch(self, first: int, last: int) -> Tokens:
        begins = self.begins[slice(*np.searchsorted(self.begins, (first, last)))]
        learnt = None if self.learnt is None else self.learnt[first:last]
        return Tokens(self.ids[first:last], begins - first, learnt, self.bare)

    def windows(self, firsts: Array, length: int, apart: bool) -> Batch:
        """The tokens from each of these places on, and those that follow them.

        ``apart`` keeps documents from seeing each other.  Shapes: firsts ``(B,)`` to ``(B,
        length)``.
        """
        at = firsts[:, None] + np.arange(length + 1)
        labels = self.ids[at[:, 1:]].astype(np.int64)
        if self.learnt is not None:
            labels[~self.learnt[at[:, 1:]].astype(bool)] = IGNORED
        documents = np.searchsorted(self.begins, at, side="right")
        if apart and self.bare:  # nothing of its own document stands before a first token
            labels[documents[:, 1:] != documents[:, :-1]] = IGNORED
        return Batch(
            torch.from_numpy(self.ids[at[:, :-1]].astype(np.int64)),
            torch.from_numpy(labels),
            torch.from_numpy(documents[:, :-1]) if apart else None,
        )


@dataclass(frozen=True)
class TokenFile:
    """All tokens of a source; the end token ends each document."""

    tokens: Tokens
    documents: int
    bytes: int
    source: str  # digest
    tokenizer: str  # hash


@dataclass(frozen=True)
class Corpus:
    """What a run trains on, in samples of ``length`` tokens."""

    train: Tokens
    length: int
    source: str  # digest
    apart: bool = False

    @property
    def samples(self) -> int:
        """How many an epoch has."""
        return (len(self.train) - 1) // self.length

    def places(self, seed: int, numbers: Array) -> Array:
        """Where these samples of the endless stream lie, in windows, in the order of a seed."""
        return places(numbers, self.samples, seed)

    def batch(self, seed: int, numbers: Array) -> Batch:
        """These samples of the endless stream."""
        firsts = self.places(seed, numbers) * self.length
        return self.train.windows(firsts, self.length, self.apart)


def tokenised(source: Source, tokenizer: Tokenizer, cache: Path, digest: str) -> TokenFile:
    """The tokens of a source with this digest, from the cache if it has them."""
    known = {"format": FORMAT, "source": digest, "tokenizer": tokenizer.hash}
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
        folder = disk.new_folder(home.parent)
        try:
            yield folder
            shutil.rmtree(home, ignore_errors=True)
            disk.rename(folder, home)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if not (home / "tokens.json").exists():  # else another process was first
            raise ResourceError(
                "cannot-write", f"cannot write tokens to {home}: {error.strerror}"
            ) from error


def write_tokens(folder: Path, source: Source, tokenizer: Tokenizer, known: dict[str, Any]) -> None:
    """Tokenise a source: ``tokens.bin``, the ends of its documents in ``documents.bin``, which
    tokens are learnt in ``learnt.bin`` if it has prompts, and what is known in ``tokens.json``.
    """
    writer = _Writer(tokenizer)
    with ExitStack() as stack:
        names = ["tokens", "documents", *["learnt"] * (getattr(source, "prompt", None) is not None)]
        files = {n: stack.enter_context((folder / f"{n}.bin").open("wb")) for n in names}
        pieces = _marked_pieces(source)
        while group := list(islice(pieces, GROUP)):
            writer.write(group, files)
    header = known | {"dtype": writer.dtype.name, "bare": tokenizer.end is None}
    header |= {"tokens": writer.tokens, "bytes": writer.bytes, "documents": writer.documents}
    header |= {"sha256": {path.name: file_digest(path) for path in sorted(folder.glob("*.bin"))}}
    (folder / "tokens.json").write_text(json.dumps(header, indent=2) + "\n")


@dataclass
class _Writer:
    """Appends tokens to files, and counts."""

    tokenizer: Tokenizer
    tokens: int = 0
    bytes: int = 0
    documents: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.tokenizer.size <= 1 << 16 else np.uint32)

    def write(self, group: Sequence[tuple[str, bool]], files: Mapping[str, BinaryIO]) -> None:
        end = [] if self.tokenizer.end is None else [self.tokenizer.end]
        encoded = self.tokenizer.encode_batch([piece for piece, _ in group])
        for (piece, last), ids in zip(group, encoded, strict=True):
            ids += end if last else []
            files["tokens"].write(np.asarray(ids, dtype=self.dtype).tobytes())
            if "learnt" in files:
                learnt = not isinstance(piece, Prompt)
                files["learnt"].write(bytes([learnt]) * len(ids))
            self.tokens, self.bytes = self.tokens + len(ids), self.bytes + len(piece.encode())
            if last:
                files["documents"].write(np.uint64(self.tokens).tobytes())
                self.documents += 1


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
    """What is in the cache.  ValueError if it is not what is asked for, or not as it was."""
    header = json.loads((home / "tokens.json").read_text())
    if {name: header[name] for name in known} != known:
        raise ValueError(f"{home} holds other tokens")
    if {path.name: file_digest(path) for path in home.glob("*.bin")} != header["sha256"]:
        raise ValueError(f"{home} is not as it was written")
    ids = _mapped(home / "tokens.bin", header["tokens"], np.dtype(header["dtype"]))
    ends = _mapped(home / "documents.bin", header["documents"], np.dtype(np.uint64))
    learnt = home / "learnt.bin"
    flags = _mapped(learnt, len(ids), np.dtype(np.uint8)) if learnt.exists() else None
    begins = ends.astype(np.int64) - (0 if header["bare"] else 1)
    tokens = Tokens(ids, begins, flags, header["bare"])
    return TokenFile(
        tokens, header["documents"], header["bytes"], header["source"], header["tokenizer"]
    )


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path, count: int, dtype: np.dtype[Any]) -> Array:
    return np.memmap(path, dtype=dtype, mode="r") if count else np.empty(0, dtype)


def split(file: TokenFile, length: int, eval_tokens: int) -> tuple[Tokens, Tokens]:
    """What to train on, and the corpus's tail for validation; InputError if no sample remains."""
    total = len(file.tokens)
    held = min(int(total * VALIDATION), eval_tokens)
    train = file.tokens.stretch(0, total - held)
    validation = file.tokens.stretch(total - held, total)
    if len(train) < length + 1:
        raise InputError(
            "corpus-too-small",
            f"the corpus has {len(train)} tokens to train on, and one window takes {length + 1}",
            "give it more text, or a smaller train.length",
        )
    return train, validation


def count_bytes(tokens: Tokens, tokenizer: Tokenizer) -> int:
    """The bytes that all tokens but the first spell, of those that are learnt."""
    ids = tokens.ids[1:]
    learnt = ids if tokens.learnt is None else ids[tokens.learnt[1:].astype(bool)]
    return tokenizer.count_bytes(learnt)
