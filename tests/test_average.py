"""The average of the weights is that of the formula, and it is what is validated and used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builder.training import checkpoints, loop
from builder.training.loop import train
from builder.training.prepare import prepare
from builder.training.step import averaged
from tests.tiny_runs import recipe_of, text_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


def test_it_is_the_exponential_mean_of_the_weights_after_each_step(monkeypatch):
    take, seen = loop.take_step, []

    def watched(training, index, batch):
        weight = training.model.get_parameter("lm_head.weight")
        seen.extend([weight.detach().clone().double()] * (index == 0))
        found = take(training, index, batch)
        seen.append(weight.detach().clone().double())
        return found

    monkeypatch.setattr(loop, "take_step", watched)
    run = train(recipe_of(ema=0.75))
    mean = seen[0]
    for weight in seen[1:]:
        mean = 0.75 * mean + 0.25 * weight
    kept = checkpoints.read(run.latest(), "average")["lm_head.weight"]
    torch.testing.assert_close(kept.double(), mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(run.model().lm_head.weight.detach(), kept, rtol=0, atol=0)
    last = checkpoints.read(run.latest(), "model")["lm_head.weight"]
    assert not torch.equal(kept, last)


def test_it_stands_in_for_the_weights_and_they_come_back():
    training = prepare(recipe_of(ema=0.5), print).training
    weight, mean = training.model.lm_head.weight, training.average["lm_head.weight"]
    with torch.no_grad():
        weight.add_(1.0)
    before = weight.detach().clone(), mean.clone()
    with averaged(training):
        assert torch.equal(weight, before[1])
    assert torch.equal(weight, before[0]) and torch.equal(mean, before[1])


def test_weights_that_are_taken_begin_the_average():
    first = train(recipe_of(), Path("runs/first"))
    training = prepare(recipe_of(ema=0.5), print, start=first).training
    taken = first.model().lm_head.weight
    assert torch.equal(training.average["lm_head.weight"], taken)
    assert torch.equal(training.model.lm_head.weight, taken)


def test_a_run_starts_from_the_average_of_another():
    first = train(recipe_of(ema=0.5), Path("runs/first"))
    training = prepare(recipe_of(), print, start=first).training
    kept = checkpoints.read(first.latest(), "average")["lm_head.weight"]
    assert torch.equal(training.model.lm_head.weight, kept)
