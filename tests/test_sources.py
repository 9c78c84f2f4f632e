"""Every kind of source gives its documents; prompts are read and not learnt; packed documents
cannot see each other.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builder.construct import make
from builder.errors import InputError
from builder.loss import IGNORED
from builder.model import build
from builder.tokenizers import Bpe, Bytes, Tokenizer
from builder.training import data as sources
from builder.training.corpus import Corpus, Tokens, count_bytes, tokenised
from builder.training.data import Dataset, Prompt, Stdin, Text, digest
from builder.training.evaluate import measure
from builder.training.feed import batches
from builder.training.loop import resume, train
from builder.training.prepare import prepare
from builder.training.world import World
from tests.tiny_runs import recipe_of, text_of

TOKENIZER = Bytes().fit([])
RECORDS = [{"q": "Why?", "a": "Because.", "n": 1}, {"q": "Кто?", "a": "Ты", "n": 2}]


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources.spooled.cache_clear()
    return tmp_path


def read(source):
    return ["".join(document) for document in source.documents()]


def learnt(source):
    """The text of each document that is learnt."""
    return ["".join(p for p in d if not isinstance(p, Prompt)) for d in source.documents()]


def tokens_of(source, tokenizer=TOKENIZER):
    return tokenised(source, tokenizer, Path("cache"), digest(source)).tokens


def write_records(path, **options):
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    if path.endswith(".gz"):
        Path(path).write_bytes(gzip.compress(text.encode()))
    elif path.endswith(".parquet"):
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(RECORDS), path)
    else:
        Path(path).write_text(text)


@pytest.mark.parametrize("path", ["r.jsonl", "r.jsonl.gz", "r.parquet"])
def test_records_are_read_alike_from_every_format(path):
    write_records(path)
    assert read(Text(path, key="a")) == ["Because.", "Ты"]
    both = Text(path, key="a", prompt="q")
    assert read(both) == ["Why?Because.", "Кто?Ты"] and learnt(both) == ["Because.", "Ты"]


@pytest.mark.parametrize("path", ["r.jsonl", "r.parquet"])
@pytest.mark.parametrize("options", [{"key": "absent"}, {"key": "n"}, {"key": "a", "prompt": "n"}])
def test_a_record_without_its_texts_is_told_with_its_place(path, options):
    write_records(path)
    with pytest.raises(InputError, match=r"r\.(jsonl:1|parquet, row 0): not an object") as caught:
        read(Text(path, **options))
    assert caught.value.code == "not-a-record"


def test_text_may_be_compressed():
    Path("a.txt.gz").write_bytes(gzip.compress("Слово\r\n".encode() * 9))
    assert read(Text("a.txt.gz")) == ["Слово\r\n" * 9]


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"word " * 999)[:40]], ids=["no", "cut"]
)
def test_what_is_no_whole_gzip_file_is_told(data):
    Path("a.txt.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.txt\.gz is no whole gzip file") as caught:
        read(Text("a.txt.gz"))
    assert caught.value.code == "not-text"


def test_what_is_no_parquet_file_is_told():
    pytest.importorskip("pyarrow")
    Path("a.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"cannot read a\.parquet"):
        read(Text("a.parquet"))


@needs("datasets")
def test_a_saved_dataset_is_read_by_its_split():
    import datasets

    whole = datasets.Dataset.from_list(RECORDS)
    whole.save_to_disk("alone")
    datasets.DatasetDict({"train": whole, "test": whole.select([1])}).save_to_disk("splits")
    assert read(Dataset("alone", key="a")) == ["Because.", "Ты"]
    assert read(Dataset("splits", key="a", split="test", prompt="q")) == ["Кто?Ты"]
    assert digest(Dataset("splits", key="a")) != digest(Dataset("splits", key="q"))
    with pytest.raises(InputError, match="no split 'valid'") as caught:
        read(Dataset("splits", split="valid"))
    assert caught.value.help == "splits: train, test"
    next(Path("alone").glob("*.json")).write_text("{")
    with pytest.raises(InputError, match="'alone' cannot be read"):
        read(Dataset("alone"))


def test_a_folder_that_nobody_saved_is_no_dataset():
    Path("empty").mkdir()
    with pytest.raises(InputError, match="save_to_disk") as caught:
        Dataset("empty").files()
    assert caught.value.code == "no-such-data"


@pytest.mark.parametrize("source", [Text("r.parquet"), Dataset("saved")])
def test_a_library_that_is_not_there_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    Path("r.parquet").touch()
    with pytest.raises(InputError, match="which is not installed") as caught:
        read(source)
    assert caught.value.code == "missing-library" and "[data]" in caught.value.help


# What is piped in


def pipe(monkeypatch, text, terminal=False):
    given = SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: terminal)
    monkeypatch.setattr(sys, "stdin", given)


def test_what_is_piped_in_is_trained_on_and_resumed_from(monkeypatch):
    text = text_of(3)
    pipe(monkeypatch, text)
    run = train(recipe_of({"data": "stdin"}), Path("runs/piped"))
    pipe(monkeypatch, "something else")
    kept = dict(run.recipe.data.options)["path"]
    assert Path(kept).read_text(encoding="utf-8") == text
    assert resume(run).metrics() == run.metrics()
    assert measure(run)["validation"].bytes > 0


def test_records_are_piped_in_with_a_key(monkeypatch):
    pipe(monkeypatch, "".join(json.dumps(record) + "\n" for record in RECORDS))
    assert learnt(Stdin(key="a", prompt="q")) == ["Because.", "Ты"]


@pytest.mark.parametrize(("text", "terminal"), [("", False), ("typed", True)])
def test_nothing_piped_in_is_told(monkeypatch, text, terminal):
    pipe(monkeypatch, text, terminal)
    with pytest.raises(InputError) as caught:
        read(Stdin())
    assert caught.value.code == "no-such-data"


# What is learnt, and what is seen


def test_tokens_of_prompts_are_no_labels(tmp_path):
    write_records("r.jsonl")
    tokens = tokens_of(Text("r.jsonl", key="a", prompt="q"))
    batch = tokens.windows(np.array([0]), len(tokens) - 1, apart=False)
    kept = batch.labels[0][batch.labels[0] != IGNORED].tolist()
    assert kept == [*TOKENIZER.encode("Because."), 0, *TOKENIZER.encode("Ты"), 0]
    assert count_bytes(tokens, TOKENIZER) == len("Because.Ты".encode())
    assert torch.equal(batch.ids[0, 1:], torch.tensor(tokens.ids[1:-1].astype(np.int64)))


@given(st.lists(st.text("abc", min_size=1, max_size=7), min_size=1, max_size=9), st.data())
def test_each_token_has_the_number_of_its_document_and_an_end_begins_the_next(texts, data):
    """Against a loop: the end token is what a document's first token follows."""
    ids, owner, begins = [], [], []
    for number, text in enumerate(texts):
        ids += [*TOKENIZER.encode(text), 0]
        owner += [number] * len(text) + [number + 1]
        begins.append(len(ids) - 1)
    tokens = Tokens(np.array(ids, np.uint16), np.array(begins))
    first = data.draw(st.integers(0, len(ids) - 2))
    last = data.draw(st.integers(first + 2, len(ids)))
    part = tokens.stretch(first, last)
    batch = part.windows(np.array([0]), last - first - 1, apart=True)
    expected = np.array(owner[first : last - 1])
    assert (
        batch.documents[0].numpy() - expected == batch.documents[0, 0].item() - expected[0]
    ).all()
    assert batch.labels[0].tolist() == ids[first + 1 : last], "every label is learnt"


def test_documents_apart_are_learnt_as_if_each_stood_alone():
    """The loss of a packed window is that of its documents, each read by itself after its end."""
    model = build(recipe_of(), dtype=torch.float64).eval()
    ids = np.array([5, 6, 7, 0, 8, 9, 0, 10, 11, 12, 13, 0], np.uint16)
    tokens = Tokens(ids, np.array([3, 6, 11]))
    packed = tokens.windows(np.array([0]), 11, apart=True)
    together = model.loss(packed.ids, packed.labels, documents=packed.documents) * 11
    alone = 0.0
    for first, last in ((0, 3), (3, 6), (6, 11)):
        part = torch.from_numpy(ids[first : last + 1].astype(np.int64))[None]
        alone = alone + model.loss(part[:, :-1], part[:, 1:]) * (last - first)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_without_an_end_token_nothing_leads_to_a_first_token():
    alphabet = Tokenizer(TOKENIZER._backend)
    alphabet.__dict__["end"] = None
    Path("r.jsonl").write_text('{"text": "ab"}\n{"text": "cd"}\n')
    tokens = tokens_of(Text("r.jsonl"), alphabet)
    batch = tokens.windows(np.array([0]), 3, apart=True)
    a, b, c, d = TOKENIZER.encode("abcd")
    assert batch.ids.tolist() == [[a, b, c]] and batch.labels.tolist() == [[b, IGNORED, d]]
    assert batch.documents.diff().tolist() == [[0, 1]]
    joined = tokens.windows(np.array([0]), 3, apart=False)
    assert joined.labels.tolist() == [[b, c, d]] and joined.documents is None


# The order of samples


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_worlds_and_parts_share_out_the_samples_of_one_alone(world, accumulate):
    corpus = Corpus(Tokens(np.arange(500), np.empty(0, np.int64)), 8, "")
    settings = make(recipe_of(batch=17, steps=9, accumulate=accumulate).train)
    cpu = torch.device("cpu")
    alone = [batch for _, batch in batches(corpus, settings, World(cpu), 0)]
    ranks = [dict(batches(corpus, settings, World(cpu, rank, world), 3)) for rank in range(world)]
    for step in range(3, 9):
        parts = [part for rank in ranks for part in rank[step].parts(accumulate)]
        assert torch.equal(torch.cat([part.ids for part in parts]), alone[step].ids)
        assert sum(rank[step].digest for rank in ranks) == alone[step].digest


def test_an_epoch_has_each_sample_once():
    corpus = Corpus(Tokens(np.arange(501), np.empty(0, np.int64)), 5, "")
    epochs = [corpus.batch(7, np.arange(100) + 100 * n).ids[:, 0].tolist() for n in range(3)]
    assert all(sorted(epoch) == list(range(0, 500, 5)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


# Other texts to validate on


def test_named_sets_are_validated_on_and_told_apart(tmp_path):
    Path("text.txt").write_text(text_of(0), encoding="utf-8")
    Path("other.txt").write_text("zebra " * 200)
    recipe = recipe_of(eval_sets={"other": {"text": "other.txt"}}, eval_tokens=300)
    run = train(recipe, Path("runs/sets"))
    told = [e for e in run.metrics() if e["event"] == "validation"]
    assert [(e["step"], e.get("set")) for e in told][:2] == [(4, None), (4, "other")]
    found = measure(run)
    assert found["other"].bits_per_byte == pytest.approx(told[-1]["bits_per_byte"], rel=1e-6)
    assert found["other"].tokens < 300 and found.keys() == {"validation", "other"}


def test_a_named_set_without_tokens_is_told():
    Path("text.txt").write_text(text_of(0), encoding="utf-8")
    Path("empty.txt").touch()
    with pytest.raises(InputError, match="eval_sets: 'none yet' has 0 tokens"):
        prepare(recipe_of(eval_sets={"none yet": {"text": "empty.txt"}}))


def test_a_tokenizer_is_learnt_once_from_a_text(monkeypatch):
    Path("text.txt").write_text(text_of(0), encoding="utf-8")
    first = prepare(recipe_of(), print).texts.tokenizer.hash
    monkeypatch.setattr(Bpe, "fit", lambda self, texts: pytest.fail("it was learnt again"))
    assert prepare(recipe_of(), print).texts.tokenizer.hash == first
    Path("text.txt").write_text(text_of(1), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception):
        prepare(recipe_of(), print)
