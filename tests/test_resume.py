"""A run that was killed goes on as if it had not been: every bit of it is that of the whole run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.training.loop import resume, train
from builder.training.runs import open_run
from tests.tiny_runs import Case, assert_same, recipe_of, text_of

CASES = int(os.environ.get("RESUMES", "12"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(CASES))
def test_killed_anywhere_a_run_goes_on_to_the_bit(number):
    Case.drawn(number).run(Path("runs/whole"), Path("runs/killed"))


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again():
    case = Case(0, {"checkpoint_every": 100}, step=5)
    assert case.run(Path("runs/whole"), Path("runs/killed")) == 1


def test_resuming_twice_does_nothing_more():
    run = train(recipe_of(), Path("runs/done"))
    before = run.metrics()
    assert resume(open_run(Path("runs/done"))).metrics() == before


@pytest.mark.parametrize(
    "setting", [{"workers": 2}, {"recompute": True}, {"batch": 4, "loss_chunk": 8}]
)
def test_how_a_run_is_computed_changes_no_bit_of_it(setting):
    """Reading ahead and computing again; a loss in chunks sums in another order, and only that."""
    plain, other = train(recipe_of(), Path("runs/a")), train(recipe_of(**setting), Path("runs/b"))
    if "loss_chunk" not in setting:
        assert_same(plain, other)
    batches = [[e["batch"] for e in r.metrics() if e["event"] == "step"] for r in (plain, other)]
    assert batches[0] == batches[1]
