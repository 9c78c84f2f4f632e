"""Text becomes batches: batch k is a pure function of the seed and k."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import InputError
from builder.tokenizers import Bytes
from builder.training.corpus import Corpus, Tokens, count_bytes, split
from builder.training.corpus import tokenised as tokenised_as
from builder.training.data import PIECE, Text, digest, pieces
from builder.training.order import permuted
from builder.training.python_docs import PythonDocs

TOKENIZER = Bytes().fit([])


def corpus(tokens, length):
    return Corpus(Tokens(np.arange(tokens, dtype=np.uint16), np.empty(0, np.int64)), length, "")


def windows(data, seed, first, count):
    """Samples of the stream, each with the token after it."""
    batch = data.batch(seed, np.arange(first, first + count))
    return np.concatenate([batch.ids.numpy(), batch.labels[:, -1:].numpy()], 1)


def tokenised(source, tokenizer, cache):
    return tokenised_as(source, tokenizer, cache, digest(source))


def read(source):
    return ["".join(document) for document in source.documents()]


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_sends_every_index_somewhere_else(size, key):
    index = np.arange(size, dtype=np.uint64)
    assert sorted(permuted(index, size, np.full(size, key, np.uint64)).tolist()) == list(
        range(size)
    )


@settings(deadline=None)
@given(
    tokens=st.integers(30, 400),
    length=st.integers(1, 20),
    seed=st.integers(0, 2**40),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_samples_depend_on_neither_batch_size_nor_where_one_begins(tokens, length, seed, cuts):
    data = corpus(tokens, length)
    whole = windows(data, seed, 0, 60)
    at, parts = 0, []
    while at < 60:
        count = min(cuts[len(parts) % len(cuts)], 60 - at)
        parts.append(windows(data, seed, at, count))
        at += count
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@settings(deadline=None)
@given(tokens=st.integers(30, 400), length=st.integers(1, 20), epoch=st.integers(0, 3))
def test_every_window_comes_once_an_epoch(tokens, length, epoch):
    data = corpus(tokens, length)
    found = windows(data, 0, epoch * data.samples, data.samples)
    assert sorted(found[:, 0].tolist()) == [length * i for i in range(data.samples)]
    np.testing.assert_array_equal(found[:, 1:] - found[:, :-1], 1)


def test_epochs_and_seeds_have_orders_of_their_own():
    data = corpus(2001, 2)
    orders = [windows(data, s, e * 1000, 1000)[:, 0].tolist() for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    neighbours = np.abs(np.diff(orders[0])).mean() / 2
    assert 280 < neighbours < 390  # a third of 1000, as of any random order


@pytest.mark.slow
def test_python_docs_are_a_few_megabytes_of_prose():
    documents = read(PythonDocs())
    assert 1e6 < sum(map(len, documents)) < 1e7
    assert documents == read(PythonDocs())


@settings(deadline=None)
@given(line=st.text(max_size=20), count=st.integers(0, 3))
def test_pieces_are_the_text(line, count):
    text = f"{line}\n" * (count * PIECE // (len(line) + 1) + count)
    cut = list(pieces(text))
    assert "".join(cut) == text and all(len(piece) <= PIECE for piece in cut)


@pytest.mark.parametrize("line", ["word\r\n", "слово ", "x"])
def test_a_file_comes_back_as_it_is(line, tmp_path):
    text = line * (3 * PIECE // len(line))
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert read(Text(str(tmp_path / "a.txt"))) == [text]


def test_folders_and_patterns_are_read_in_order(tmp_path):
    for name, text in {"b.txt": "second", "a.txt": "first", ".hidden": "no"}.items():
        (tmp_path / name).write_text(text)
    assert read(Text(str(tmp_path))) == ["first", "second"]
    assert read(Text(str(tmp_path / "b*"))) == ["second"]


def test_each_line_of_jsonl_is_a_document(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one\\ntwo"}\n\n{"body": "three"}\n')
    assert read(Text(str(path), key="body")) == ["one\ntwo", "three"]
    with pytest.raises(InputError, match=r"a\.jsonl:1") as caught:
        read(Text(str(path)))
    assert caught.value.code == "not-a-record"


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"a\.bin is not UTF-8"):
        read(Text(str(tmp_path / "a.bin")))
    with pytest.raises(InputError, match="nowhere"):
        read(Text(str(tmp_path / "nowhere")))


def test_tokens_are_those_of_the_documents_with_an_end_after_each(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("ab", "é")))
    file = tokenised(Text(str(tmp_path / "a.jsonl")), TOKENIZER, tmp_path / "cache")
    assert file.tokens.ids.tolist() == [*TOKENIZER.encode("ab"), 0, *TOKENIZER.encode("é"), 0]
    assert file.tokens.begins.tolist() == [2, 5] and file.documents == 2
    assert file.bytes == 4


def test_the_cache_is_rebuilt_when_the_text_changes_or_it_is_torn_or_a_bit_flips(tmp_path):
    path, cache = tmp_path / "a.txt", tmp_path / "cache"
    path.write_text("one")
    first = tokenised(Text(str(path)), TOKENIZER, cache)
    tokens = first.tokens.ids.tolist()
    (home,) = cache.iterdir()
    written = (home / "tokens.bin").stat().st_mtime_ns
    tokenised(Text(str(path)), TOKENIZER, cache)
    assert (home / "tokens.bin").stat().st_mtime_ns == written
    (home / "tokens.bin").write_bytes(b"\0\0")
    assert tokenised(Text(str(path)), TOKENIZER, cache).tokens.ids.tolist() == tokens
    damaged = bytearray((home / "tokens.bin").read_bytes())
    damaged[1] ^= 1
    (home / "tokens.bin").write_bytes(damaged)
    assert tokenised(Text(str(path)), TOKENIZER, cache).tokens.ids.tolist() == tokens
    path.write_text("two")
    assert tokenised(Text(str(path)), TOKENIZER, cache).source != first.source
    assert not list(cache.glob(".tmp-*"))


def test_the_digest_knows_the_options(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    path = str(tmp_path / "a.jsonl")
    assert digest(Text(path)) != digest(Text(path, key="body"))


def test_validation_is_the_tail_and_its_bytes_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("é" * 1000)
    file = tokenised(Text(str(tmp_path / "a.txt")), TOKENIZER, tmp_path / "cache")
    train, validation = split(file, 16, 10_000)
    assert len(validation) == 100 and len(train) == 1901
    assert count_bytes(validation, TOKENIZER) == 98  # the first is not predicted, the last ends
    assert len(split(file, 16, 40)[1]) == 40


def test_a_corpus_too_small_for_one_window_names_both_numbers(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789")
    file = tokenised(Text(str(tmp_path / "a.txt")), TOKENIZER, tmp_path / "cache")
    with pytest.raises(InputError, match=r"11 tokens .* 129") as caught:
        split(file, 128, 1000)
    assert caught.value.code == "corpus-too-small"
