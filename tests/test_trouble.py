"""Numbers that go bad reach no weight and no checkpoint, and are told where they began."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from builder.errors import NumbersError
from builder.training import checkpoints, loop, step
from builder.training.loop import resume, train
from builder.training.prepare import prepare
from builder.training.runs import open_run
from builder.training.trouble import FEWEST, Losses
from tests.tiny_runs import assert_same, recipe_of, remembered, story, text_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


@pytest.fixture
def poisoned(monkeypatch):
    """A leaf that gives NaN, or whose gradient is, while some steps are computed."""

    def poison(name, steps, where="forward"):
        backward = step.backward

        def spoilt(training, batch, index):
            module = training.model.get_submodule(name)
            if index not in steps:
                return backward(training, batch, index)
            with pytest.MonkeyPatch.context() as patch:
                if where == "forward":
                    forward = module.forward
                    patch.setattr(
                        module, "forward", lambda x, **given: forward(x, **given) * math.nan
                    )
                    return backward(training, batch, index)
                hook = module.register_full_backward_hook(
                    lambda m, given, out: tuple(g * math.inf for g in given)
                )
                try:
                    return backward(training, batch, index)
                finally:
                    hook.remove()

        monkeypatch.setattr(step, "backward", spoilt)
        monkeypatch.setattr("builder.training.trouble.backward", spoilt)

    return poison


def events(run, name):
    return [event for event in run.metrics() if event["event"] == name]


def finite(run):
    return all(value.isfinite().all() for value in remembered(run).values())


def test_stop_saves_what_was_good_and_says_what_was_first(poisoned):
    poisoned("layers.1.attention", {6})
    with pytest.raises(NumbersError) as caught:
        train(recipe_of(), Path("runs/bad"))
    run = open_run(Path("runs/bad"))
    (told,) = events(run, "not-finite")
    assert caught.value.exit_code == 4 and caught.value.code == "not-finite"
    assert "step 7: loss nan" in caught.value.message
    assert "first: what layers.1.attention gives" in caught.value.message
    assert told["samples"] == samples_read(run, 6) and str(told["samples"]) in caught.value.message
    assert checkpoints.step_of(run.latest()) == 6 and finite(run)


def samples_read(run, index):
    """The windows of a step's batch, found in the text by what they hold."""
    corpus, settings = prepare(run.recipe, print).texts.corpus, run.recipe.train
    batch = corpus.batch(settings["seed"], np.arange(4) + 4 * index)
    windows = [corpus.train.ids[i * 24 : i * 24 + 24].tolist() for i in range(corpus.samples)]
    return [windows.index(row) for row in batch.ids.tolist()]


@pytest.mark.parametrize("name", ["layers.0.glu", "lm_head"])
def test_a_gradient_is_traced_to_the_leaf_that_it_reaches(poisoned, name):
    poisoned(name, {3}, "backward")
    with pytest.raises(NumbersError, match=r"loss \d.*gradient norm (nan|inf); first: ") as caught:
        train(recipe_of(), Path("runs/bad"))
    assert "the gradient" in caught.value.message


def test_skip_goes_on_with_the_weights_as_they_were(poisoned):
    poisoned("layers.0.attention", {4})
    run = train(recipe_of(nonfinite="skip"), Path("runs/skip"))
    assert [e["step"] for e in events(run, "step")] == [1, 2, 3, 4, 6, 7, 8, 9]
    (told,) = events(run, "not-finite")
    assert told["step"] == 5 and told["then"] == "skip" and told["loss"] == "nan"
    assert finite(run)


def test_rollback_goes_on_behind_it_from_the_last_checkpoint(poisoned):
    poisoned("layers.0.attention", {4})
    run = train(recipe_of(nonfinite="rollback"), Path("runs/back"))
    assert [e["step"] for e in events(run, "step")] == [1, 2, 3, 4, 6, 7, 8, 9]
    whole = train(recipe_of(nonfinite="rollback", steps=9), Path("runs/again"))
    assert_same(run, whole)
    skipped = train(recipe_of(nonfinite="skip"), Path("runs/skip"))
    losses = [[e["loss"] for e in events(r, "step")] for r in (run, skipped)]
    assert (
        losses[0][:4] == losses[1][:4] and losses[0][4] != losses[1][4]
    )  # the fourth step is gone


def test_a_run_that_was_rolled_back_is_resumed_to_the_bit(poisoned):
    poisoned("layers.0.attention", {7})
    whole = train(recipe_of(nonfinite="rollback", checkpoint_every=3), Path("runs/whole"))
    take = loop.take_step

    def dying(training, index, batch):
        if index == 8 and not Path("died").exists():
            Path("died").touch()
            raise KeyboardInterrupt
        return take(training, index, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(nonfinite="rollback", checkpoint_every=3), Path("runs/died"))
    assert_same(resume(open_run(Path("runs/died"))), whole)


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_what_does_not_end_stops(poisoned, policy):
    poisoned("lm_head", range(4, 1000))
    with pytest.raises(NumbersError):
        train(recipe_of(nonfinite=policy, steps=100), Path("runs/bad"))
    run = open_run(Path("runs/bad"))
    assert len(events(run, "not-finite")) == loop.PATIENCE + 1 and finite(run)


def test_weights_that_are_not_finite_are_never_saved(monkeypatch):
    """As when a step is finite, and so long that its end is not."""
    take = loop.take_step

    def far(training, index, batch):
        found = take(training, index, batch)
        if index == 4:
            with torch.no_grad():
                training.model.lm_head.weight[3, 3] = math.inf
        return found

    monkeypatch.setattr(loop, "take_step", far)
    with pytest.raises(NumbersError, match=r"lm_head\.weight is not finite, and is not saved"):
        train(recipe_of(checkpoint_every=5), Path("runs/bad"))
    assert not open_run(Path("runs/bad")).begun


def test_a_spike_is_an_event_with_its_samples(monkeypatch):
    backward = step.backward

    def jumping(training, batch, index):
        return backward(training, batch, index) + 9 * (index == 30)

    monkeypatch.setattr(step, "backward", jumping)
    run = train(recipe_of(steps=40), Path("runs/spike"))
    (spike,) = events(run, "spike")
    assert spike["step"] == 31 and len(spike["samples"]) == 4
    assert spike["loss"] > spike["usual"] + 8


def test_a_spike_stands_out_of_the_losses_before_it():
    losses = Losses()
    assert [losses.expected(5 - 0.01 * n) for n in range(FEWEST)] == [None] * FEWEST
    assert losses.expected(4.9) is None, "it was as high a moment ago"
    assert losses.expected(9.0) == pytest.approx(4.92, abs=0.05)


def test_events_are_json_without_nan(poisoned):
    poisoned("lm_head", {2})
    run = train(recipe_of(nonfinite="skip"), Path("runs/skip"))
    text = (run.path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text and len(story(run)) == text.count("\n")


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_last_step_that_is_bad_still_ends_the_run(poisoned, policy):
    poisoned("lm_head", {8})
    run = train(recipe_of(nonfinite=policy), Path("runs/last"))
    assert checkpoints.step_of(run.latest()) == 9 and finite(run)
    assert run.last("validation")["step"] == 9


def test_rolling_back_on_every_step_stops_though_every_step_is_saved(poisoned):
    poisoned("lm_head", range(4, 1000))
    with pytest.raises(NumbersError):
        train(recipe_of(nonfinite="rollback", steps=100, checkpoint_every=1), Path("runs/bad"))
