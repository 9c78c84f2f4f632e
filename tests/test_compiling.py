"""Layers that are compiled for training: when, and what is said where they cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from builder import build
from builder.training import loop, session
from builder.training.compiling import Compiler, compile_layers, kinds, worth_compiling
from builder.training.corpus import Batch
from builder.training.layers import around_layers
from builder.training.loop import resume, train
from builder.training.runs import open_run
from builder.training.settings import settings_of
from builder.training.step import Training, backward
from builder.training.trouble import first_bad
from tests.tiny_runs import assert_same, recipe_of, text_of

its_own = pytest.mark.filterwarnings("ignore")  # the compiler warns of what it does itself
compiles = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


def worth(device="cpu", sharded=False, **settings):
    recipe = recipe_of(**settings)
    return worth_compiling(build(recipe, device=device), settings_of(recipe), sharded)


def test_a_run_is_compiled_if_it_is_long_enough():
    """10,000 weights over 96 tokens a step are some 6 million operations."""
    assert not worth(steps=9)
    assert not worth(steps=1_000_000)
    assert worth(steps=10_000_000)


def test_what_is_asked_for_decides():
    assert worth(steps=9, compile="always")
    assert not worth(steps=10_000_000, compile="never")


def test_nothing_is_guessed_of_an_unknown_device_or_of_shared_weights():
    assert not worth("meta", steps=10_000_000)
    assert not worth(sharded=True, steps=10_000_000)
    assert worth(sharded=True, compile="always")


def test_layers_that_are_alike_are_one_kind():
    blocks = {"decoder": [{"residual": "glu"}], "other": [{"residual": "mlp"}]}
    pattern = {"repeat": 6, "pattern": ["decoder", "decoder", "other"]}
    page = {"blocks": blocks, "model": ["token_embedding", pattern, "lm_head"]}
    assert kinds(build(recipe_of(page), device="meta")) == 2


@its_own
def test_what_cannot_be_compiled_runs_as_it_is_and_it_is_said_once():
    def backend(graph, given):
        raise RuntimeError("no such luck\nand much more")

    torch.compiler.reset()
    model, told = build(recipe_of()).train(), []
    around_layers(model, None, recompute=False)
    ids = torch.arange(20).reshape(2, 10)

    def loss():
        torch.manual_seed(0)  # for what dropout draws
        return model.loss(ids, ids)

    expected = loss()
    compile_layers(model, Compiler(told.append, backend))
    assert torch.equal(loss(), expected)
    assert torch.equal(loss(), expected)
    assert len(told) == 2 and told[1].startswith("the layers are not compiled: ")
    assert "no such luck" in told[1] and "\n" not in told[1]


@its_own
@compiles
@pytest.mark.slow
def test_a_compiled_run_that_was_stopped_comes_to_the_same_bits(folder, monkeypatch):
    torch.compiler.reset()
    recipe = recipe_of(compile="always")
    whole = train(recipe, Path("runs/whole"))
    ends = session.end_if_asked

    def interrupted(where, number):
        if number == 5:
            raise KeyboardInterrupt
        ends(where, number)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "end_if_asked", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, Path("runs/parts"))
    torch.compiler.reset()
    assert_same(resume(open_run(Path("runs/parts"))), whole)
    eager = train(recipe_of(compile="never"), Path("runs/eager"))
    last, plain = (losses(run)[-1] for run in (whole, eager))
    assert last == pytest.approx(plain, rel=1e-2)  # dropout draws otherwise


def losses(run):
    return [event["loss"] for event in run.metrics() if event["event"] == "step"]


@its_own
def test_where_numbers_went_bad_is_found_in_layers_that_are_compiled():
    """What watches the leaves comes after they were compiled."""
    torch.compiler.reset()
    settings = settings_of(recipe_of(compile="always"))
    training = Training.alone(build(recipe_of()).train(), settings)
    around_layers(training.model, None, recompute=False)
    compile_layers(training.model, Compiler(print, "eager"))
    ids = torch.arange(20).reshape(2, 10)
    batch = Batch(ids, ids)
    backward(training, batch, 0)
    with torch.no_grad():
        for weight in training.model.layers[1].glu.parameters():
            weight.fill_(1e30)
    assert first_bad(training, 0, batch) == "what layers.1.glu gives"
