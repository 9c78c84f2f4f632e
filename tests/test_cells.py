"""A cell is trained once, whoever asks for it, however often it is killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from builder import build
from builder.ablation import cells, queue
from builder.ablation.cells import SOLVED, Cell, code_version, digest_once
from builder.ablation.queue import ATTEMPTS, Queue, place
from builder.ablation.swaps import Variant, variants
from builder.errors import NumbersError, Stopped
from builder.training import loop
from builder.training.evaluate import held_out
from builder.training.runs import open_run
from builder.training.step import evaluate
from tests.ablations import settled
from tests.commands import ROOT
from tests.tiny_runs import in_child, kill, remembered


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digest_once.cache_clear()
    return settled(tmp_path)


def cell_of(path, *settings, seed=0, rate=0.01):
    return Cell(Variant("row", path, settings), seed, rate)


def quiet(**given):
    return Queue(tell=lambda text: None, **given)


# What it is known by


def test_a_key_is_of_recipe_data_seed_rate_and_code(path):
    """Names, spellings and what row it is in make no other cell."""
    first = cell_of(path)
    others = [
        cell_of(path, seed=1),
        cell_of(path, rate=0.02),
        cell_of(path, "dims.ff=48"),
        cell_of(path, "train.clip=0.5"),
        cell_of(path, "tokenizer=bytes"),
    ]
    keys = {one.key for one in (first, *others)}
    assert len(keys) == 6
    same = [Cell(Variant("x", path), 0, 0.01), cell_of(path, "dims.ff=32"), cell_of(path, "name=b")]
    assert {one.key for one in same} == {first.key}
    Path("text.txt").write_text("other words " * 500)
    digest_once.cache_clear()
    assert cell_of(path).key != first.key


def test_another_version_of_the_code_makes_another_cell(path):
    first = cell_of(path).key
    with patch.object(cells, "code_version", lambda: "other"):
        assert cell_of(path).key != first
    assert len(code_version()) == 64


def test_the_command_trains_the_same_cell_again(path):
    """Its weights are those of the cell, to the bit."""
    cell = cell_of(path, "blocks.decoder.attention=[it, {scale: 0.5}]", seed=3)
    quiet().run([cell])
    words = cell.command
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        words.replace("python", sys.executable, 1), shell=True, check=True, capture_output=True,
        env=env,
    )  # fmt: skip
    ours, again = (remembered(open_run(Path(p))) for p in (cell.path, f"runs/{cell.key}"))
    assert all(torch.equal(ours[name], again[name]) for name in ours)


# What is found


def test_the_reported_half_is_not_the_one_that_rates_are_chosen_by(path):
    cell = cell_of(path)
    result = quiet(lengths=(8, 24)).run([cell])[cell.key]
    run = open_run(cell.path)
    (whole,) = held_out(run, lambda text: None).values()
    first, second = cells.halves(whole, run.tokenizer)
    assert [*first.tokens.ids, *second.tokens.ids] == list(whole.tokens.ids)
    model = run.model()
    assert result.numbers["loss"] == pytest.approx(evaluate(model, second).loss, rel=1e-6)
    assert result.numbers["choosing"] == pytest.approx(evaluate(model, first).loss, rel=1e-6)
    assert result.numbers["bits_per_byte"] == pytest.approx(evaluate(model, second).bits_per_byte)
    assert result.numbers["loss"] != result.numbers["choosing"]
    assert {"loss@8", "loss@24"} <= result.numbers.keys()


def test_a_task_is_solved_near_its_ceiling(path):
    task = "data={mqar: {pairs: 4}}", "tokenizer=none", "dims.vocab=20", "train.eval_tokens=2400"
    cell = cell_of(path, *task)
    numbers = quiet(lengths=(16,)).run([cell])[cell.key].numbers
    assert {"loss", "accuracy", "solved", "choosing", "accuracy@16"} <= numbers.keys()
    assert numbers["solved"] == 0.0 and numbers["accuracy"] < 0.6
    run = open_run(cell.path)
    (exam,) = held_out(run, lambda text: None).values()
    first, second = cells.halves(exam, run.tokenizer)
    rows = [{row.numpy().tobytes() for row in half.parts(99)[0]().ids} for half in (first, second)]
    assert rows[0] and not rows[0] & rows[1]
    assert cells.solved_at(exam) == 0.25 + SOLVED * 0.75


def test_a_run_that_diverges_counts_as_guessing(path):
    cell = cell_of(path, "dims.vocab=300")
    message = "step 2: loss nan"

    def goes_bad(*given, **named):
        loop.train(*given, **named)
        raise NumbersError("not-finite", message)

    with patch.object(queue, "train", goes_bad):
        result = quiet(lengths=(8,)).run([cell])[cell.key]
    assert result.status == "diverged" and result.error == message
    assert result.numbers["loss"] == result.numbers["loss@8"] == math.log(300)
    assert quiet(lengths=(8,)).run([cell])[cell.key] == result  # and is not tried again
    wild = cell_of(path, seed=7)
    with patch.object(queue, "measured", lambda *given: {"loss": 2.0, "loss@8": math.inf}):
        result = quiet(lengths=(8,)).run([wild])[wild.key]
    assert result.status == "diverged" and result.numbers["loss@8"] == math.log(300)
    worse = cell_of(path, rate=30.0)
    found = quiet().run([worse])[worse.key]
    assert found.status == "diverged" and found.numbers["loss"] >= math.log(300)


# Once, and whatever happens


def test_what_is_there_is_not_trained_again(path):
    cell = cell_of(path)
    first = quiet().run([cell, cell_of(path)])[cell.key]
    with patch.object(queue, "train", lambda *given, **named: pytest.fail("it was trained")):
        assert quiet().run([cell_of(path)])[cell.key] == first
        more = quiet(lengths=(8,)).run([cell])[cell.key]  # measured, and no more
    assert more.numbers["loss"] == first.numbers["loss"] and "loss@8" in more.numbers


def test_lengths_are_measured_together_whoever_asked_before(path):
    """Which tokens a length is measured on depends on the longest: rows must be of the same."""
    cell = cell_of(path)
    together = quiet(lengths=(8, 24)).run([cell])[cell.key]
    found = quiet(lengths=(8,)).run([cell])[cell.key]
    shutil.rmtree(cell.path)
    place(cell, "json").unlink()
    assert quiet(lengths=(8,)).run([cell])[cell.key].numbers == found.numbers
    assert found.numbers["loss@8"] != together.numbers["loss@8"]


def test_a_bad_cell_stops_no_other(path):
    bad, good = cell_of(path, "data={text: gone.txt}"), cell_of(path)
    Path("gone.txt").write_text("to be or not " * 200)
    assert bad.key
    Path("gone.txt").unlink()
    told = []
    found = Queue(tell=told.append).run([bad, good])
    assert found[bad.key].status == "failed" and "no-such-data" in found[bad.key].error
    assert found[good.key].status == "done"
    assert "(failed)" in told[0] and "loss" in told[1]
    Path("gone.txt").write_text("to be or not " * 200)
    assert quiet().run([bad])[bad.key].status == "done"  # tried again, for it may have changed


def test_our_own_faults_stop_no_other_either(path):
    bad, good = cell_of(path, seed=1), cell_of(path)

    def fails(recipe, *given, **named):
        if recipe.train["seed"] == 1:
            raise AssertionError("our fault")
        return loop.train(recipe, *given, **named)

    with patch.object(queue, "train", fails):
        found = quiet().run([bad, good])
    assert "our fault" in found[bad.key].error and found[good.key].status == "done"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_killed_queue_goes_on_to_the_same_numbers(path, step):
    cells_of = [cell_of(path, "train.steps=4", "train.checkpoint_every=1", seed=n) for n in (0, 1)]
    take_step = loop.take_step

    def dies(training, index, batch):
        if training.settings.seed == 1 and index == step:
            kill()
        return take_step(training, index, batch)

    def killed():
        with patch.object(loop, "take_step", dies):
            quiet().run(cells_of)

    assert in_child(killed) < 0
    done = place(cells_of[0], "json")
    before = done.read_bytes()
    found = quiet().run(cells_of)
    assert done.read_bytes() == before
    for cell in cells_of:
        shutil.rmtree(cell.path)
        place(cell, "json").unlink()
    again = quiet().run(cells_of)
    assert {key: one.numbers for key, one in again.items()} == {
        key: one.numbers for key, one in found.items()
    }


def test_a_cell_that_ends_its_process_each_time_fails_at_last(path):
    cell = cell_of(path)

    def dies():
        with patch.object(queue, "train", lambda *given, **named: kill()):
            quiet().run([cell])

    for _ in range(ATTEMPTS):
        assert in_child(dies) < 0
    result = quiet().run([cell])[cell.key]
    assert result.status == "failed" and "dies" in result.error
    place(cell, "attempts").unlink()
    assert quiet().run([cell])[cell.key].status == "done"


def test_who_is_stopped_has_made_no_attempt(path):
    cell = cell_of(path)

    def stops(*given, **named):
        raise Stopped("stopped", "SIGTERM", "")

    with patch.object(queue, "train", stops), pytest.raises(Stopped):
        quiet().run([cell])
    assert not place(cell, "attempts").exists()
    assert quiet().run([cell])[cell.key].status == "done"


def test_two_processes_share_the_cells(path):
    """Each is trained by one of them; both know all."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from builder.ablation.cells import Cell\nfrom builder.ablation.queue import Queue\n"
        "from builder.ablation.swaps import Variant\nimport builder.ablation.queue as q\n"
        "real, mine = q.train, []\n"
        "def train(recipe, path, *given, **named):\n"
        "    mine.append(path.name)\n    return real(recipe, path, *given, **named)\n"
        "q.train = train\n"
        "cells = [Cell(Variant('row', Path('tiny.yaml')), seed, 0.01) for seed in range(8)]\n"
        "found = Queue(tell=lambda text: None).run(cells)\n"
        "import json\nprint(json.dumps([mine, {k: dict(r.numbers) for k, r in found.items()}]))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env)
        for _ in range(2)
    ]
    told = [json.loads(one.communicate(timeout=120)[0]) for one in both]
    (ours, found), (theirs, known) = told
    assert found == known and len(found) == 8
    assert sorted(ours + theirs) == sorted(found)


def test_a_cell_that_another_has_in_hand_is_waited_for(path):
    cell = cell_of(path)
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        slow = loop.take_step

        def dawdles(*given):
            time.sleep(0.4)
            return slow(*given)

        with patch.object(loop, "take_step", dawdles):
            quiet().run([cell])
        os._exit(0)
    while not place(cell, "attempts").exists():
        time.sleep(0.01)
    with patch.object(queue, "train", lambda *given, **named: pytest.fail("it was trained")):
        found = quiet().run([cell])
    os.waitpid(child, 0)
    assert found[cell.key].status == "done" and time.monotonic() - began > 1.0


def test_rows_begin_alike_but_for_what_is_swapped(path):
    """Weights of one name are the same, and so is every batch: that is what pairs them."""
    rows = variants([path], (), ["blocks.decoder.glu={mlp: {bias: false}}"])
    first, other = (Cell(row, 5, 0.01) for row in rows)
    found = []
    for cell in (first, other):
        quiet().run([cell])
        run = open_run(cell.path)
        batches = [e["batch"] for e in run.metrics() if e["event"] == "step"]
        found.append((batches, dict(build(run.recipe).named_parameters())))
    (batches, weights), (others, theirs) = found
    assert batches == others and len(batches) == 3
    common = weights.keys() & theirs.keys()
    assert any("attention.q" in name for name in common) and "layers.0.glu.gate.weight" in weights
    assert all(torch.equal(weights[name], theirs[name]) for name in common)
