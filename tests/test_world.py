"""Several processes train what one alone does: whole in each (DDP), or sharded (FSDP2), by gloo."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from builder.errors import DamagedError, InputError
from builder.measure import measure_memory
from builder.training import checkpoints
from builder.training.loop import train
from builder.training.runs import open_run
from builder.training.world import joined
from tests.commands import ROOT
from tests.tiny_runs import recipe_of, remembered, text_of

pytestmark = pytest.mark.slow
STILL = {  # without dropout, which is drawn by part: there is one in each process
    "model": ["token_embedding", {"repeat": 2, "block": "decoder"}, "rmsnorm", "lm_head"],
    "blocks": {
        "decoder": [{"residual": ["rmsnorm", "attention"]}, {"residual": ["rmsnorm", "glu"]}]
    },
}
WORLDS = {"ddp-2": 2, "ddp-3": 3, "fsdp-3": 3}  # sharded in two: below, and in bf16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "text.txt").write_text(text_of(0), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    page = recipe_of(STILL, batch=5, ema=0.9, accumulate=2).resolved
    (folder / "page.yaml").write_text(page)
    train(recipe_of(STILL, batch=5, ema=0.9, accumulate=2), Path("runs/alone"))
    yield folder
    os.chdir(before)


def torchrun(count, *words):
    """The command, as many processes of it as are asked for."""
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}",
        "OMP_NUM_THREADS": "1",
    }
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*start, "--nproc-per-node", str(count), "-m", "--", "builder", *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(process):
    told = process.communicate(timeout=240)[0]
    assert process.returncode == 0, told
    return told


def sharding(name):
    return ["--shard", "fsdp"] if name.startswith("fsdp") else []


@pytest.fixture(scope="module", params=WORLDS)
def spread(request, folder):
    """A run in a world: its name, its folder, and all that its processes said."""
    name = request.param
    run = f"runs/{name}"
    words = ["train", "page.yaml", "--run", run, *sharding(name)]
    return name, open_run_at(run, finished(torchrun(WORLDS[name], *words)))


def open_run_at(path, told=""):
    run = open_run(Path(path))
    run.__dict__["told"] = told
    return run


def losses(run, event="step"):
    return torch.tensor([e["loss"] for e in run.metrics() if e["event"] == event])


def test_a_world_finds_the_losses_of_one_process(spread):
    _, run = spread
    alone = open_run(Path("runs/alone"))
    for event in ("step", "validation"):
        torch.testing.assert_close(losses(run, event), losses(alone, event), rtol=1e-6, atol=0)
    read = [[e["batch"] for e in r.metrics() if e["event"] == "step"] for r in (run, alone)]
    assert read[0] == read[1]


def test_a_world_comes_to_the_weights_of_one_process(spread):
    """Adam divides by the root of what may be rounding: 1e-4 of the rate's 0.01 a step."""
    _, run = spread
    ours, theirs = remembered(run), remembered(open_run(Path("runs/alone")))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_only_one_process_speaks_and_writes(spread):
    _, run = spread
    told = run.__dict__["told"]
    assert told.count("run: ") == 1 and told.count("Trained: ") == 1
    assert [e["step"] for e in run.metrics() if e["event"] == "step"] == list(range(1, 10))


def test_the_parts_of_a_sharded_checkpoint_are_verified_before_one_is_read(spread):
    name, run = spread
    last = run.latest()
    files = checkpoints.files_of(last, "model")
    assert len(files) == (WORLDS[name] if name.startswith("fsdp") else 1)
    clean = files[-1].read_bytes()
    files[-1].write_bytes(clean[:-1] + bytes([clean[-1] ^ 1]))
    try:
        with pytest.raises(
            DamagedError, match=f"{files[-1].name} is not as it was written: tensor"
        ):
            checkpoints.verify(last)
    finally:
        files[-1].write_bytes(clean)
    assert run.model()(torch.zeros(1, 3, dtype=torch.long)).isfinite().all()


def test_memory_is_counted_as_the_first_process_holds_it(spread):
    name, run = spread
    shards = WORLDS[name] if name.startswith("fsdp") else 1
    counted = measure_memory(run.recipe, 24, 1, "fp32", shards)
    found = {}
    for kind in ("model", "average", "training"):
        with safe_open(checkpoints.files_of(run.latest(), kind)[0], "pt") as file:
            found[kind] = sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
    assert found == {
        "model": counted.weights,
        "average": counted.average,
        "training": counted.optimizer,
    }


def started(path, count, *words):
    """A run of many steps, once it has a checkpoint and goes on."""
    process = torchrun(count, "train", "page.yaml", "train.steps=4000", "--run", path, *words)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        log = Path(path, "metrics.jsonl")
        if log.exists() and log.read_text().count('"event": "step"') > 5:
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate()[0])


@pytest.mark.parametrize("words", [[], ["--shard", "fsdp"]], ids=["ddp", "fsdp"])
def test_a_rank_that_is_killed_ends_the_world_and_another_world_goes_on(folder, words):
    run = f"runs/killed-{len(words)}"
    process = started(run, 3, *words)
    ranks = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    before = checkpoints.step_of(open_run(Path(run)).latest())
    assert before >= 3
    finished_to(run, before + 2, 2, words)


def finished_to(path, steps, count, words):
    page = Path(path, "resolved.yaml")
    page.write_text(page.read_text().replace("steps: 4000", f"steps: {steps}"))
    finished(torchrun(count, "resume", path, *words))
    run = open_run(Path(path))
    found = [e["step"] for e in run.metrics() if e["event"] == "step"]
    assert found == list(range(1, steps + 1)) and losses(run).isfinite().all()


def test_a_signal_to_the_world_saves_and_one_process_alone_goes_on(folder):
    process = started("runs/stopped", 2, "--shard", "fsdp")
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[0]
    assert "SIGTERM: stopped after step" in told, told
    run = open_run(Path("runs/stopped"))
    last = checkpoints.step_of(run.latest())
    assert last == run.metrics()[-1]["step"]
    finished_to("runs/stopped", last + 2, 1, [])


@pytest.mark.parametrize(("first", "second"), [(3, 2), (2, 1)])
def test_a_sharded_run_goes_on_in_another_world_with_the_same_losses(folder, first, second):
    """Of the whole run the last checkpoint is taken away, and what came after it: as if killed."""
    path = Path(f"runs/parts-{first}-{second}")
    words = ["--run", str(path), "--shard", "fsdp"]
    finished(torchrun(first, "train", "page.yaml", *words))
    shutil.rmtree(path / "checkpoints" / "step_000009")
    finished(torchrun(second, "resume", str(path), *(words[2:] if second > 1 else [])))
    ours, alone = open_run(path), open_run(Path("runs/alone"))
    torch.testing.assert_close(losses(ours), losses(alone), rtol=1e-6, atol=0)
    assert len(checkpoints.files_of(ours.latest(), "model")) == second


def test_bf16_trains_sharded(folder):
    words = ["train", "page.yaml", "train.dtype=bf16", "--run", "runs/half", "--shard", "fsdp"]
    finished(torchrun(2, *words))
    run = open_run(Path("runs/half"))
    assert {value.dtype for value in remembered(run).values()} == {torch.float32}
    torch.testing.assert_close(losses(run), losses(open_run(Path("runs/alone"))), rtol=0.02, atol=0)


def test_one_process_has_nothing_to_shard_over():
    with pytest.raises(InputError) as caught, joined(shard=True):
        pass
    assert caught.value.code == "nothing-to-shard"
