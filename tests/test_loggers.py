"""Numbers go to a run's own files first, and elsewhere by name alone; none leaves the machine."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from builder.__main__ import main
from builder.errors import InputError
from builder.training import loggers
from builder.training.loop import resume, train
from builder.training.runs import open_run
from tests.commands import python
from tests.tiny_runs import recipe_of, text_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")
    return tmp_path


class Listener:
    """A logger that only listens."""

    def __init__(self, run, after):
        self.events, self.after, self.closed = [], after, False
        LISTENING.append(self)

    def log(self, event):
        self.events.append(dict(event))

    def close(self):
        self.closed = True


LISTENING: list[Listener] = []


@pytest.fixture
def listening(monkeypatch):
    LISTENING.clear()
    monkeypatch.setitem(loggers.LOGGERS, "listener", Listener)
    return LISTENING


def test_a_logger_is_told_every_event_that_the_run_keeps(listening):
    run = train(recipe_of(), loggers=["listener"])
    (one,) = listening
    assert one.events == run.metrics() and one.after == 0 and one.closed


def test_a_run_that_is_resumed_goes_on_with_its_loggers(listening):
    train(recipe_of(), Path("runs/one"), loggers=["listener"])
    resume(open_run(Path("runs/one")))
    assert [one.after for one in listening] == [0, 9]


def test_nothing_is_logged_elsewhere_unless_it_is_named(monkeypatch):
    used = []
    monkeypatch.setattr(loggers, "library", lambda *given: used.append(given))
    train(recipe_of())
    assert used == []


def test_a_logger_that_nobody_has_is_refused_before_a_run_is_made(capsys):
    Path("page.yaml").write_text(recipe_of().resolved)
    assert main(["train", "page.yaml", "--log", "clearml"]) == 2
    assert "--log: tensorboard, wandb, trackio, mlflow" in capsys.readouterr().err
    assert not list(Path("runs").glob("2*"))


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_logger_whose_library_is_missing_says_how_to_get_it(name, monkeypatch):
    for module in ("tensorboard", "torch.utils.tensorboard", "wandb", "trackio", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"--log {name} takes") as caught:
        loggers.LOGGERS[name](train(recipe_of(steps=1)), 0)
    assert caught.value.code == "missing-library" and name in caught.value.help


def test_the_numbers_of_an_event_are_named_by_its_kind_and_set():
    event = {"event": "validation", "set": "wiki", "step": 4, "loss": 2.5, "bits_per_byte": 1.5}
    found = dict(loggers.scalars(event))
    assert found == {"validation/wiki/loss": 2.5, "validation/wiki/bits_per_byte": 1.5}
    assert dict(loggers.scalars({"event": "not-finite", "step": 1, "loss": "nan"})) == {}


# With the real libraries, in a process of their own: some leave threads behind


def logged(folder, name):
    Path("page.yaml").write_text(recipe_of().resolved)
    words = ["-m", "builder", "train", "page.yaml", "--log", name, "--run", "runs/logged"]
    done = python(folder, *words)
    assert done.returncode == 0, done.stderr
    return folder / "runs/logged"


def needs(module):
    found = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not found, reason=f"{module} is not installed")


@pytest.mark.slow
@needs("tensorboard")
def test_tensorboard_reads_what_was_logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = logged(folder, "tensorboard")
    read = EventAccumulator(str(run / "tensorboard")).Reload()
    losses = [(e.step, e.value) for e in read.Scalars("step/loss")]
    kept = [(e["step"], e["loss"]) for e in open_run(run).metrics() if e["event"] == "step"]
    assert np.array(losses) == pytest.approx(np.array(kept))


@pytest.mark.slow
@needs("wandb")
def test_wandb_keeps_an_offline_run(folder):
    run = logged(folder, "wandb")
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_reads_what_was_logged(folder):
    run = logged(folder, "mlflow")
    code = (
        "import mlflow, json\n"
        f"mlflow.set_tracking_uri('{loggers.MLflow.place(open_run(run))}')\n"
        "client = mlflow.MlflowClient()\n"
        "(e,) = [e for e in client.search_experiments() if e.name == 'tiny']\n"
        "(r,) = client.search_runs([e.experiment_id])\n"
        "found = client.get_metric_history(r.info.run_id, 'step/loss')\n"
        "print(json.dumps([[m.step, m.value] for m in found]))\n"
    )
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    kept = [[e["step"], e["loss"]] for e in open_run(run).metrics() if e["event"] == "step"]
    assert json.loads(done.stdout.splitlines()[-1]) == kept


@pytest.mark.slow
@needs("trackio")
def test_trackio_keeps_a_local_run(folder, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logged(folder, "trackio")
    assert list((folder / "trackio").rglob("*.db"))


# The network


def test_no_test_reaches_beyond_this_machine():
    with pytest.raises(OSError, match="no test reaches the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()):
        pass


def test_no_process_that_a_test_starts_does(folder):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = python(folder, "-c", code)
    assert done.returncode == 1 and "no test reaches the network" in done.stderr
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no test reaches the network" in plain.stderr
