"""What a user can get wrong at the command line: a named error, the right code, no traceback."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from tests.commands import python

pytestmark = pytest.mark.slow
TOY = """\
recipe: 1
name: toy
dims: {dim: 16, heads: 2, ff: 24, vocab: 257, context: 16}
model: [token_embedding, {residual: [rmsnorm, attention]}, {residual: [rmsnorm, glu]}, lm_head]
tokenizer: bytes
data: {text: corpus.txt}
train: {steps: 4, batch: 2, eval_every: 4, checkpoint_every: 2, sample_tokens: 0}
"""
FIVE = """\
recipe: 1
dims: {dim: 16, heads: 3, ff: 24, vocab: 257, context: 16}
blocks:
  decoder: [{residual: [rmsnrom, {attention: {kv_heads: 2, posiiton: rope}}]}]
model: [token_embedding, {repeat: two, block: decoder}, {repeat: 2, block: encoder}, lm_head]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toy.yaml").write_text(TOY)
    (tmp_path / "corpus.txt").write_text("a small corpus of a few words, again and again\n" * 60)
    return tmp_path


def builder(folder: Path, *words: str, file_limit: int | None = None):
    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return python(folder, "-m", "builder", *words, before=limit)


def refused(done: subprocess.CompletedProcess[str], code: int, *shown: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for words in shown:
        assert words in done.stderr + done.stdout


def test_an_absent_recipe_is_a_named_error(folder):
    refused(builder(folder, "train", "nowhere.yaml"), 2, "error[cannot-read]", "nowhere.yaml")


def test_a_recipe_that_is_no_text_is_a_named_error(folder):
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    refused(builder(folder, "validate", "binary.yaml"), 2, "error[not-utf8]")


def test_five_mistakes_are_told_at_once_each_with_its_place(folder):
    (folder / "five.yaml").write_text(FIVE)
    done = builder(folder, "validate", "five.yaml")
    refused(
        done,
        2,
        "five.yaml:4:25: error[unknown-word]: 'rmsnrom'",
        "five.yaml:4:57: error[check-failed]: heads=3 is not a multiple of kv_heads=2",
        "five.yaml:4:60: error[unknown-option]: 'posiiton'",
        "five.yaml:5:35: error[unknown-name]: 'two'",
        "five.yaml:5:76: error[unknown-word]: 'encoder'",
    )


def test_a_corpus_of_ten_bytes_is_refused_with_both_numbers(folder):
    (folder / "corpus.txt").write_text("0123456789")
    refused(builder(folder, "train", "toy.yaml"), 2, "error[corpus-too-small]", "17")


def test_a_run_without_a_checkpoint_is_a_named_error(folder):
    (folder / "run").mkdir()
    refused(builder(folder, "generate", "run", "a"), 2, "error[not-a-run]")


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(folder):
    assert builder(folder, "train", "toy.yaml", "--run", "run").returncode == 0
    refused(builder(folder, "generate", "run", "x" * 40), 2, "error[prompt-too-long]", "16")


def test_a_full_disk_leaves_the_older_checkpoint(folder):
    assert builder(folder, "train", "toy.yaml", "train.steps=2", "--run", "run").returncode == 0
    before = sorted(path for path in (folder / "run").rglob("*.safetensors"))
    full = builder(folder, "train", "toy.yaml", "--run", "full", file_limit=30_000)
    refused(full, 3, "error[")
    assert sorted((folder / "run").rglob("*.safetensors")) == before
    assert not list((folder / "full").rglob("*.safetensors")), "nothing half written is left"


def test_a_damaged_checkpoint_is_noticed_before_it_is_used(folder):
    assert builder(folder, "train", "toy.yaml", "train.steps=2", "--run", "run").returncode == 0
    (weights,) = (folder / "run").rglob("model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    refused(builder(folder, "generate", "run", "a"), 5, "model.safetensors")
