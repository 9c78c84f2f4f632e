"""Text to tokens and back: byte-level BPE, characters, bytes, or somebody's ``tokenizer.json``.

A recipe's word (``tokenizer: bpe``) is a plan, whose ``fit`` reads the corpus and gives a
``Tokenizer``. Whatever the plan, the result is one ``tokenizer.json``, which the ``tokenizers``
package loads alone.

"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from blocks.registry import register
from builder.errors import DamagedError, InputError

END = "<|endoftext|>"
ENDS = (END, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>")  # what other people call it
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())  # one printable character for each byte


class Tokenizer:
    """``decode(encode(text)) == text``; special tokens are never read out of the text itself."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        self._json = json.loads(backend.to_str())

    @property
    def size(self) -> int:
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def end(self) -> int | None:
        """The token between documents, if there is one."""
        special = {
            token["content"]: token["id"]
            for token in self._json["added_tokens"]
            if token["special"]
        }
        return next((special[word] for word in ENDS if word in special), None)

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self._json, sort_keys=True).encode()).hexdigest()

    @cached_property
    def alphabet(self) -> frozenset[str] | None:
        """The characters it knows, where it knows no others; None where it can spell anything."""
        model = self._json["model"]
        whole = model.get("byte_fallback") or model.get("unk_token") or self._byte_level
        if model.get("type") != "BPE" or model.get("merges") or whole or self._json["normalizer"]:
            return None
        return frozenset(token for token in model["vocab"] if len(token) == 1)

    @property
    def _byte_level(self) -> bool:
        return (self._json["decoder"] or {}).get("type") == "ByteLevel"

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        self._refuse_unseen(texts)
        return [
            found.ids for found in self._backend.encode_batch(list(texts), add_special_tokens=False)
        ]

    def _refuse_unseen(self, texts: Sequence[str]) -> None:
        if self.alphabet is not None:
            for unseen in sorted(set().union(*texts) - self.alphabet):
                raise InputError(
                    "unseen-character",
                    f"{unseen!r} (U+{ord(unseen):04X}) is not among the tokenizer's "
                    f"{len(self.alphabet)} characters",
                    "it knows those of its text; 'tokenizer: bytes' and 'bpe' can spell anything",
                )
        model = self._json["model"]
        if model["type"] == "WordLevel" and model.get("unk_token") not in model["vocab"]:
            known = model["vocab"]
            for unseen in sorted({word for text in texts for word in text.split()} - known.keys()):
                message = f"{unseen!r} is not among the tokenizer's {len(known)} tokens"
                raise InputError("unseen-token", message, "a task's tokens are numbers: '1 2 3'")

    def prompt(self, text: str) -> list[int]:
        """What to generate from: with the start token, if the tokenizer's template has one."""
        self._refuse_unseen([text])
        ids: list[int] = self._backend.encode(text).ids
        if ids:
            return ids
        if self.end is None:
            raise InputError(
                "empty-prompt",
                "the prompt is empty, and the tokenizer has no token to start from",
                "give a prompt",
            )
        return [self.end]

    def decode(self, ids: Iterable[int]) -> str:
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def name(self, id: int) -> str:
        """How a token is written in its file; of a byte-level one, a character for each byte."""
        return self._backend.id_to_token(id) or ""

    def count_bytes(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> int:
        """How many UTF-8 bytes the tokens spell; special tokens spell none."""
        if not self._byte_level:
            return len(self.decode(int(i) for i in ids).encode())
        return int(self._lengths[np.asarray(ids, dtype=np.int64)].sum())

    @cached_property
    def _lengths(self) -> np.ndarray[Any, Any]:
        lengths = np.zeros(self.size, dtype=np.int64)
        for token, index in self._backend.get_vocab(with_added_tokens=False).items():
            lengths[index] = len(token)  # a character of the byte-level alphabet is a byte
        for token in self._json["added_tokens"]:
            lengths[token["id"]] = 0 if token["special"] else len(token["content"].encode())
        return lengths

    def save(self, path: Path) -> None:
        path.write_text(self.to_json(), encoding="utf-8")

    def to_json(self) -> str:
        text: str = self._backend.to_str(pretty=True)
        return text

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                "unreadable-file", f"the tokenizer {path} cannot be read: {error}"
            ) from error
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # what the package raises has no narrower type
            raise DamagedError(
                "not-a-tokenizer", f"{path} is not a tokenizer.json: {error}"
            ) from error


class TextStream:
    """Text for the terminal: a character of several tokens is held back until it is whole."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt)
        self._shown = len(tokenizer.decode(self._ids))

    def push(self, token: int) -> str:
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        return "" if text.endswith("\ufffd") else self._show(text)

    def finish(self) -> str:
        return self._show(self._tokenizer.decode(self._ids))

    def _show(self, text: str) -> str:
        new, self._shown = text[self._shown :], len(text)
        return new


@register("bpe", kind="tokenizer")
class Bpe:
    """Byte-level byte-pair encoding, trained on the corpus until the recipe's vocab is full.

    Source: Radford et al. 2019 (GPT-2), section 2.2.
    """

    learns = True  # from the corpus

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab

    def fit(self, texts: Iterable[str]) -> Tokenizer:
        if self.vocab <= len(BYTES):
            least = len(BYTES) + 1
            raise InputError(
                "vocab-too-small",
                f"vocab={self.vocab} is below {least}: 256 bytes and the end",
                f"{least}",
            )
        backend = tokenizers.Tokenizer(models.BPE())
        byte_level(backend)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,
            special_tokens=[END],
            initial_alphabet=BYTES,
            min_frequency=2,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return Tokenizer(backend)


@register("bytes", kind="tokenizer")
class Bytes:
    """A token for each byte, after the end of text: 257 of them."""

    def fit(self, texts: Iterable[str]) -> Tokenizer:
        return without_merges(BYTES, byte_level)


@register("char", kind="tokenizer")
class Char:
    """A token for each character that the corpus holds, in the order of their code points."""

    learns = True

    def fit(self, texts: Iterable[str]) -> Tokenizer:
        return without_merges(sorted(set().union(*texts)), spell)


@register("file", kind="tokenizer")
class File:
    """A ``tokenizer.json``, as the ``tokenizers`` package and the Hugging Face hub write it."""

    def __init__(self, path: str, /) -> None:
        self.path = Path(path)

    def fit(self, texts: Iterable[str]) -> Tokenizer:
        return Tokenizer.load(self.path)


def numbered(count: int) -> Tokenizer:
    """Of what is no text: a token for each number, which are written apart."""
    vocab = {str(number): number for number in range(count)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocab))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend)


def byte_level(backend: tokenizers.Tokenizer) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()


def spell(backend: tokenizers.Tokenizer) -> None:
    backend.decoder = decoders.Fuse()


def without_merges(alphabet: Sequence[str], finish: Any) -> Tokenizer:
    """BPE that merges nothing: a token for each letter of the alphabet, after the end."""
    vocab = {token: index for index, token in enumerate([END, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    finish(backend)
    backend.add_special_tokens([END])
    return Tokenizer(backend)
