"""Whenever a signal comes, what was learnt is saved, and the exit code says what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from builder.errors import Stopped
from builder.training import checkpoints, disk, loop, prepare, watch
from builder.training.loop import resume, train
from builder.training.runs import open_run
from tests.commands import ROOT
from tests.tiny_runs import assert_same, recipe_of, text_of

PLACES = {  # where a signal comes, and the step that is then saved
    "in a step": (loop, "take_step", 2, 2),
    "in the first step": (loop, "take_step", 1, 1),
    "in an evaluation": (watch, "evaluate", 1, 4),
    "in a sample": (watch, "sample", 1, 4),
    "while a checkpoint is written": (disk, "save", 1, 3),
    "while the log is written": (disk, "append", 2, 2),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


def signalled(owner, name, at, number):
    """A function of a module that sends this process a signal, the ``at``-th time it is called."""
    real, calls = getattr(owner, name), [0]

    def function(*given, **named):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), number)
        return real(*given, **named)

    return patch.object(owner, name, function)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_anywhere_leaves_a_checkpoint_and_a_code(place, number):
    owner, name, at, step = PLACES[place]
    before = signal.getsignal(number)
    with signalled(owner, name, at, number), pytest.raises(Stopped) as caught:
        train(recipe_of(), Path("runs/stopped"))
    assert caught.value.exit_code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert "resume runs/stopped" in caught.value.help
    assert signal.getsignal(number) is before
    run = open_run(Path("runs/stopped"))
    assert checkpoints.step_of(run.latest()) == step
    assert_same(resume(run), train(recipe_of(), Path("runs/whole")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["digest", "fit", "tokenised", "assemble"])
def test_a_signal_before_the_first_step_ends_at_once_and_leaves_no_run(name, number):
    with signalled(prepare, name, 1, number), pytest.raises(Stopped) as caught:
        train(recipe_of(), Path("runs/stopped"))
    assert caught.value.exit_code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert "starts it again" in caught.value.help
    assert not Path("runs/stopped").exists()
    assert not [path for path in Path("runs").rglob(".tmp-*") if path.is_dir()]
    train(recipe_of(), Path("runs/stopped"))


def test_a_signal_in_the_preparation_of_a_resumed_run_changes_nothing():
    run = train(recipe_of(), Path("runs/whole"))
    before = run.metrics()
    with signalled(prepare, "tokenised", 1, signal.SIGTERM), pytest.raises(Stopped):
        resume(run)
    assert run.metrics() == before


def test_a_signal_while_the_folder_is_made_leaves_a_run_that_begins():
    with signalled(loop, "create_run", 1, signal.SIGTERM), pytest.raises(Stopped) as caught:
        train(recipe_of(), Path("runs/stopped"))
    assert "after step 0, which is saved" in caught.value.message
    run = open_run(Path("runs/stopped"))
    assert_same(resume(run), train(recipe_of(), Path("runs/whole")))


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_process_wherever_it_is():
    code = (
        "import os, signal, time\n"
        "from builder.training import loop\n"
        "def stuck(*given):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('once', flush=True)\n"
        "    time.sleep(60)\n"
        "loop.take_step = stuck\n"
        "from tests.tiny_runs import recipe_of\n"
        "loop.train(recipe_of())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"once\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == -signal.SIGINT
        assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("after", ["run:", "step 4: validation"])
def test_the_command_exits_with_the_code(after, number, code):
    """A signal to the process, workers and all, as a shell or a scheduler sends it."""
    page = recipe_of(steps=100_000, workers=2, eval_every=4, log_every=50).resolved
    Path("page.yaml").write_text(page)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "builder", "train", "page.yaml", "--run", "runs/stopped"],
        env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        assert any(after in line for line in process.stderr)
        os.killpg(process.pid, number)
        told = process.stderr.read()
        assert process.wait(timeout=60) == code
    assert f"{number.name}: stopped after step" in told and "resume runs/stopped" in told
    run = open_run(Path("runs/stopped"))
    steps = [event["step"] for event in run.metrics() if event["event"] == "step"]
    assert checkpoints.step_of(run.latest()) >= max(steps, default=0)
