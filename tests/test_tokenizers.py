"""Text comes back as it went in, whatever the tokenizer."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.__main__ import main
from builder.errors import DamagedError, InputError
from builder.tokenizers import END, Bpe, Bytes, Char, File, TextStream, Tokenizer

TEXT = "The cat sat on the mat. Кошка сидела на коврике. 猫が座った。 naïve 🙂\n" * 20
PLANS = {"bpe": Bpe(320), "bytes": Bytes(), "char": Char()}


@pytest.fixture(scope="module", params=PLANS)
def tokenizer(request):
    return PLANS[request.param].fit([TEXT])


@pytest.mark.parametrize("word", ["bpe", "bytes"])
def test_every_string_comes_back(word):
    tokenizer = PLANS[word].fit([TEXT])

    @settings(deadline=None)
    @given(text=st.text() | st.text(alphabet=f"{END} é🙂\r\n\t"))
    def law(text):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.count_bytes(tokenizer.encode(text)) == len(text.encode())

    law()


@settings(deadline=None)
@given(text=st.text(alphabet=sorted(set(TEXT))))
def test_characters_come_back(text):
    tokenizer = Char().fit([TEXT])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.count_bytes(tokenizer.encode(text)) == len(text.encode())


def test_the_end_is_token_0_and_is_never_read_from_text(tokenizer):
    assert tokenizer.end == 0
    if tokenizer.alphabet is None:
        assert 0 not in tokenizer.encode(f"a{END}b")
    assert tokenizer.decode([0]) == ""


def test_a_saved_tokenizer_is_the_same_one_alone(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    assert (loaded.hash, loaded.end, loaded.size) == (tokenizer.hash, tokenizer.end, tokenizer.size)
    assert loaded.alphabet == tokenizer.alphabet
    foreign = tokenizers.Tokenizer.from_file(str(path))
    assert foreign.encode(TEXT).ids == tokenizer.encode(TEXT)
    assert File(str(path)).fit([]).hash == tokenizer.hash


def test_fitting_twice_gives_the_same_tokenizer(tokenizer):
    again = [plan.fit([TEXT]).hash for plan in PLANS.values()]
    assert tokenizer.hash in again


def test_streamed_text_is_the_decoded_text(tokenizer):
    stream = TextStream(tokenizer)
    shown = [stream.push(token) for token in tokenizer.encode(TEXT)]
    assert "".join(shown) + stream.finish() == TEXT
    assert not any("\ufffd" in part for part in shown)


def test_streaming_after_a_prompt_keeps_the_space(tmp_path):
    tokenizer = PLANS["bpe"].fit([TEXT])
    ids = tokenizer.encode("The cat sat")
    stream = TextStream(tokenizer, ids[:1])
    assert tokenizer.decode(ids[:1]) + "".join(map(stream.push, ids[1:])) == "The cat sat"


def test_a_character_that_was_not_in_the_text_is_refused_by_name():
    with pytest.raises(InputError, match=r"'é' \(U\+00E9\)") as caught:
        Char().fit(["abc"]).encode("abé")
    assert caught.value.code == "unseen-character"


def test_a_vocab_without_room_for_the_bytes_is_refused():
    with pytest.raises(InputError, match="vocab=100") as caught:
        Bpe(100).fit([TEXT])
    assert caught.value.code == "vocab-too-small"


def test_the_size_is_never_above_vocab():
    assert Bpe(300).fit([TEXT]).size == 300
    assert Bpe(10_000).fit([TEXT]).size < 10_000


def test_a_file_that_is_no_tokenizer_is_damaged_and_a_missing_one_is_input(tmp_path):
    bad = tmp_path / "tokenizer.json"
    bad.write_text('{"model": 3}')
    with pytest.raises(DamagedError, match=r"tokenizer\.json"):
        File(str(bad)).fit([])
    with pytest.raises(InputError, match="absent"):
        File(str(tmp_path / "absent.json")).fit([])


def test_an_empty_prompt_starts_from_the_end_of_the_text_before(tokenizer):
    assert tokenizer.prompt("") == [tokenizer.end]


# The verb


def test_the_verb_trains_a_tokenizer_and_tells_what_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be " * 99)
    assert main(["tokenizer", "train", "text.txt", "mine.json", "--vocab", "270"]) == 0
    assert "{file: mine.json}" in capsys.readouterr().out
    words = ["tokenizer", "inspect", "mine.json", "--text", "to be", "--data", "text.txt"]
    assert main(words) == 0
    told = capsys.readouterr().out
    tokenizer = Tokenizer.load(Path("mine.json"))
    ids = tokenizer.encode("to be")
    assert f"tokens   {tokenizer.size:,}" in told and "end      0 (<|endoftext|>)" in told
    assert " ".join(f"{tokenizer.name(i)}={i}" for i in ids) in told
    count = len(tokenizer.encode("to be or not to be " * 99))
    assert f"{19 * 99 / count:.2f} bytes a token, over 1,881 bytes" in told


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["train", "text.txt", "text.txt"], "file-exists"),
        (["train", "absent.txt", "new.json"], "no-such-data"),
        (["train", "text.txt", "no/such/folder.json"], "cannot-write"),
        (["train", "text.txt", "new.json", "--vocab", "9"], "vocab-too-small"),
        (["inspect", "absent.json"], "unreadable-file"),
        (["inspect", "text.txt"], "not-a-tokenizer"),
    ],
)
def test_what_the_verb_cannot_do_is_told(words, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("to be or not to be " * 99)
    assert main(["tokenizer", *words]) in (2, 5)
    assert f"error[{code}]" in capsys.readouterr().err
