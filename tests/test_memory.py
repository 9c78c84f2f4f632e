"""Memory that runs out is told with what a step takes by count, and with what would fit."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
import torch

from builder import load_recipe
from builder.__main__ import main
from builder.errors import ResourceError
from builder.measure import measure_memory
from builder.training import loop, memory
from builder.training.loop import train
from builder.training.world import ALONE, World
from tests.commands import python
from tests.tiny_runs import recipe_of, text_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


def bounded(size):
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_told_with_settings_that_do(tmp_path):
    dims = {"dim": 16, "heads": 2, "ff": 2048, "vocab": 300, "context": 128}
    page = {
        "dims": dims,
        "model": ["token_embedding", {"repeat": 8, "block": "decoder"}, "lm_head"],
    }
    quiet = {"steps": 1, "sample_tokens": 0, "eval_tokens": 0}
    Path("page.yaml").write_text(recipe_of(page, batch=96, **quiet).resolved)
    words = ["-m", "builder", "train", "page.yaml"]
    ran = python(tmp_path, *words, before=bounded(2_700_000_000))
    assert ran.returncode == 3, ran.stderr
    told = ran.stderr.partition("error[out-of-memory]: ")[2]
    assert re.search(r"about [3-9]\.\d+ GB by count, \d\.\d+ GB are there, and", told), told
    settings = re.findall(r"((?:train\.\w+=\w+ )+)\(", told)
    assert len(settings) == 3
    fits = python(tmp_path, *words, *settings[0].split(), before=bounded(2_700_000_000))
    assert fits.returncode == 0, fits.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
              RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")],
    ids=["python", "cuda", "cpu"],
)  # fmt: skip
def test_every_kind_of_lack_of_memory_is_known(error, monkeypatch):
    def lacking(training, index, batch):
        raise error

    monkeypatch.setattr(loop, "take_step", lacking)
    with pytest.raises(ResourceError, match="by count") as caught:
        train(recipe_of())
    assert caught.value.code == "out-of-memory" and caught.value.exit_code == 3


def test_another_fault_of_torch_stays_what_it_is(monkeypatch):
    def faulty(training, index, batch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(loop, "take_step", faulty)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(recipe_of())


def test_what_is_counted_is_one_part_in_one_process():
    recipe = recipe_of(batch=12, accumulate=2)
    cpu = torch.device("cpu")
    passing = 24 * 300 * 4 * 2  # of one row: its logits, and their gradient
    whole, third = (measure_memory(recipe, 24, rows, "fp32").total for rows in (6, 2))
    assert memory.needed(recipe, ALONE) == whole + 6 * passing
    assert memory.needed(recipe, World(cpu, 0, 3)) == third + 2 * passing
    sharded = measure_memory(recipe, 24, 2, "fp32", 3).total
    assert memory.needed(recipe, World(cpu, 0, 3, shard=True)) == sharded + 2 * passing
    chunked = recipe.set("train.loss_chunk", 24)
    kept = measure_memory(chunked, 24, 6, "fp32").total
    assert memory.needed(chunked, ALONE) == kept + passing


def test_a_model_that_never_fits_is_told_to_be_smaller(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    error = memory.out_of_memory(recipe_of(), ALONE)
    assert "a smaller model would" in error.help


def test_recomputing_keeps_what_enters_each_layer_and_no_more():
    recipe = load_recipe("recipes/llama.yaml")
    plain = measure_memory(recipe, 128, 1, "fp32")
    less = measure_memory(recipe.set("train.recompute", True), 128, 1, "fp32")
    assert less.weights == plain.weights
    assert less.activations < plain.activations / 3


def test_explain_tells_the_memory_of_one_of_many(capsys):
    words = ["explain", "recipes/gpt2.yaml", "train.ema=0.99", "--world", "4"]
    assert main(words) == 0
    whole = capsys.readouterr().out
    assert main([*words, "--shard", "fsdp"]) == 0
    part = capsys.readouterr().out
    assert "memory of each of 4, in bytes" in whole and "gathered" not in whole
    assert "weights gathered from the others" in part and "average of the weights" in part
