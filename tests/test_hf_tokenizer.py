"""Tokenizers: ours and the library's give the same ids, before and after saving."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_bridge
from builder.tokenizers import Bpe, Tokenizer
from hf_bridge.tokenizer import token_ids
from tests.hf_folders import DATA, FITTING, built, needs_data, read

FOLDERS = ("models/stories260K/hf", "tokenizers/gpt2", "models/slm4096/hf")
TEXTS = [
    "Once upon a time",
    "  two  spaces ",
    "a\tb\n\nc",
    "naïve — “quote” 😀",
    "Привет, мир",
    "<s> </s> <unk> <|endoftext|> <pad>",
    "[INST] {} \\ \x00",
    "0.000 1e-5",
]


def pair(folder):
    tokenizer = Tokenizer.load(DATA / folder / "tokenizer.json")
    return tokenizer, hf_bridge.as_transformers_tokenizer(tokenizer)


@needs_data
@pytest.mark.parametrize("folder", FOLDERS[:2])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_equal(folder, text):
    ours, theirs = pair(folder)
    assert theirs(text).input_ids == ours.prompt(text)
    assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)


@pytest.fixture(scope="module")
def byte_level():
    return pair(FOLDERS[1])


@needs_data
@given(text=st.text())
@settings(deadline=None, max_examples=200)
def test_ids_are_equal_on_any_text(byte_level, text):
    ours, theirs = byte_level
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ids == ours.encode(text)
    assert theirs.decode(ids) == ours.decode(ids)


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_saved_tokenizer_is_loaded_the_same(folder, tmp_path):
    from transformers import AutoTokenizer

    ours, theirs = pair(folder)
    theirs.save_pretrained(tmp_path)
    texts = TEXTS if "slm" not in folder else ["What is SLM?\nA: SLM"]
    again, reread = (
        AutoTokenizer.from_pretrained(tmp_path),
        Tokenizer.load(tmp_path / "tokenizer.json"),
    )
    for text in texts:
        assert again(text).input_ids == theirs(text).input_ids
        assert reread.prompt(text) == ours.prompt(text)
    assert (again.bos_token_id, again.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)


@needs_data
def test_the_start_and_the_end_are_those_of_the_tokenizer():
    assert token_ids(pair(FOLDERS[0])[0]) == {"bos": 1, "eos": 2, "pad": 2}
    assert token_ids(pair(FOLDERS[1])[0]) == {"bos": 50256, "eos": 50256, "pad": 50256}
    assert set(token_ids(pair(FOLDERS[2])[0]).values()) == {None}
    assert set(token_ids(None).values()) == {None}


@needs_data
def test_batches_are_padded_on_the_left_and_masked():
    _, theirs = pair(FOLDERS[1])
    batch = theirs(["a", "a b c"], padding=True, return_tensors="pt")
    assert batch.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert set(batch.keys()) == {"input_ids", "attention_mask"}


@needs_data
def test_an_exported_folder_says_where_a_text_begins_and_ends(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = built(FITTING["llama"].replace("vocab: 31", "vocab: 512"))
    hf_bridge.to_hf(model, tmp_path / "out", tokenizer=pair(FOLDERS[0])[0])
    config = read(tmp_path / "out/config.json")
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert native.generation_config.eos_token_id == 2
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("Once").input_ids[0] == 1


PIECES = [
    *("the", " cat", "Don't", "naïve", " 3.14", "0x1F", "https://a.b/c?d=e", "CamelCase"),
    *("Привет", " мир", "ёж", "Щука-", "съешь же ещё", "№", "«", "»"),
    *("😀", "👩‍👩‍👧", "🏳️‍🌈", "e\u0301", "\u200b", "\ufeff", "\u202e", "漢字", "ﷺ", "\U0001f9ff"),
    *(" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", " \n ", "\x00", "\x7f", "\x1b[0m"),
    *("<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|end|>", "[INST]", "<0x0A>", "▁", "<|"),
]  # fmt: skip


def many_texts(count):
    chance = random.Random(0)
    return ["".join(chance.choices(PIECES, k=chance.randint(1, 8))) for _ in range(count)]


def trained():
    return Bpe(400).fit([*many_texts(300), "the cat sat on the mat. " * 20])


@pytest.mark.slow
@pytest.mark.parametrize("folder", [FOLDERS[0], FOLDERS[1], "ours"])
def test_ids_of_ten_thousand_texts_are_equal_there_and_back(folder, tmp_path):
    """Russian, emoji, white space, look-alikes of special tokens; saved, loaded, and read back."""
    from transformers import AutoTokenizer

    if folder != "ours" and not DATA.is_dir():
        pytest.skip(f"no data in {DATA}; RECIPE_DATA names it")
    ours = trained() if folder == "ours" else Tokenizer.load(DATA / folder / "tokenizer.json")
    texts = many_texts(10_000)
    ids = ours.encode_batch(texts)
    theirs = hf_bridge.as_transformers_tokenizer(ours)
    theirs.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for one in (theirs, loaded):
        assert one(texts, add_special_tokens=False).input_ids == ids
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode_batch(texts) == ids
    assert loaded.batch_decode(ids[:500]) == [ours.decode(row) for row in ids[:500]]
