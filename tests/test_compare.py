"""Two runs are alike to the bit, or it is told at which step they part, and in what of it first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from builder.__main__ import main
from builder.training import loop, step
from builder.training.compare import compare, first_parting
from builder.training.loop import train
from builder.training.runs import open_run
from tests.tiny_runs import recipe_of, text_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


@pytest.fixture
def first():
    return train(recipe_of(), Path("runs/first"))


def test_two_runs_of_one_recipe_are_alike_to_the_bit(first, capsys):
    second = train(recipe_of(), Path("runs/second"))
    assert compare(first, second).same
    assert main(["compare", "runs/first", "runs/second", "runs/first"]) == 0
    told = capsys.readouterr().out
    assert told.count("no difference in the 9 steps that both logged") == 2
    assert "same recipe" in told and "same surroundings" in told


def test_one_flipped_bit_of_a_gradient_is_seen_in_its_step(first, monkeypatch, capsys):
    backward = step.backward

    def flipped(training, batch, index):
        loss = backward(training, batch, index)
        if index == 4:
            gradient = training.model.lm_head.weight.grad
            gradient.view(-1)[7:8].view(dtype=torch.int32).bitwise_xor_(1)
        return loss

    monkeypatch.setattr(step, "backward", flipped)
    second = train(recipe_of(), Path("runs/second"))
    found = compare(first, second).parting
    assert (found.step, found.different) == (5, ("gradient",))
    assert str(found).startswith("first difference at step 5: same batch, same rate, same loss")
    assert main(["compare", "runs/first", "runs/second"]) == 1
    assert "different gradient" in capsys.readouterr().out


def test_other_weights_before_a_step_show_in_its_loss(first, monkeypatch):
    take = loop.take_step

    def moved(training, index, batch):
        if index == 6:
            with torch.no_grad():
                training.model.lm_head.weight[0, 0] += 1
        return take(training, index, batch)

    monkeypatch.setattr(loop, "take_step", moved)
    found = compare(first, train(recipe_of(), Path("runs/second")))
    assert found.parting.step == 7 and found.parting.alike == ("batch", "rate")
    assert found.parting.different == ("loss", "gradient")
    assert found.validation and "at step 9" in found.validation[0]


def test_another_order_of_the_text_shows_in_the_batch(first):
    found = compare(first, train(recipe_of(seed=1), Path("runs/second")))
    assert found.parting.step == 1 and "batch" in found.parting.different
    assert any("seed 0 → 1" in line for line in found.made)


def test_another_text_is_told_by_its_digest(first):
    Path("text.txt").write_text(text_of(1), encoding="utf-8")
    found = compare(first, train(recipe_of(), Path("runs/second")))
    assert any("source" in line and "tokenizer" in line for line in found.made)


def test_a_shorter_run_is_told(first):
    longer = train(recipe_of(steps=12, schedule="constant"), Path("runs/longer"))
    shorter = train(recipe_of(schedule="constant"), Path("runs/shorter"))
    found = compare(shorter, longer)
    assert found.parting is None or found.parting.step > 1
    assert "one ends at step 9, the other at step 12" in list(found.lines()) and not found.same


def test_steps_that_were_not_logged_widen_the_place():
    steps = [{"step": n, "batch": "a", "lr": 1.0, "loss": float(n)} for n in (10, 20)]
    other = [steps[0], steps[1] | {"loss": 7.0}]
    found = first_parting(list(zip(steps, other, strict=True)))
    assert str(found) == "first difference between steps 10 and 20: different loss"


def test_a_single_run_is_a_usage_error(first, capsys):
    assert main(["compare", "runs/first"]) == 2
    assert "nothing to be compared with" in capsys.readouterr().err


def test_runs_of_before_there_were_digests_are_compared_by_what_they_have(first):
    path = open_run(Path("runs/first")).path / "metrics.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    old = [{k: v for k, v in e.items() if k not in ("batch", "gradient")} for e in events]
    second = train(recipe_of(), Path("runs/second"))
    path.write_text("".join(json.dumps(event) + "\n" for event in old))
    assert compare(open_run(Path("runs/first")), second).same
