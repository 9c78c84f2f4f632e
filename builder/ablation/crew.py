"""Several processes on one ablation: they share its cells, and each trains what no other has."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder.devices import physical_cores

ENDING_S = 60.0  # that a helper may take to end, when all cells are there
GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR")
TORCHRUN = """\
#!/usr/bin/env bash
# Processes that share the cells of one ablation: each trains what no other has.  Run it again, and
# it goes on.
set -euo pipefail
cd {folder}
exec torchrun --standalone --nproc-per-node "${{WORKERS:-auto}}" -m -- builder {words}
"""
SLURM = """\
#!/usr/bin/env bash
#SBATCH --job-name=ablation
#SBATCH --array=0-3             # so many processes share the cells
#SBATCH --gpus-per-task=1
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120       # it saves, and goes on when it is queued again
#SBATCH --requeue
set -euo pipefail
cd {folder}
srun {python} -m builder {words}
"""


@contextmanager
def helped(jobs: int, words: Sequence[str]) -> Iterator[None]:
    """With ``jobs - 1`` further processes of the same command, and the cores shared out."""
    if jobs == 1:
        yield
        return
    threads = str(max(1, physical_cores() // jobs))
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    command = [sys.executable, "-m", "builder", *words, "--jobs", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    helpers = [subprocess.Popen(command, **quiet) for _ in range(jobs - 1)]  # type: ignore[call-overload]
    try:
        yield
        for helper in helpers:
            wait(helper)
    finally:
        for helper in helpers:
            helper.terminate()
            helper.wait()


def wait(helper: subprocess.Popen[bytes]) -> None:
    try:
        helper.wait(timeout=ENDING_S)
    except subprocess.TimeoutExpired:
        return  # it is ended


def out_of_group(device: str | None) -> tuple[bool, str | None]:
    """Whether this process speaks, and its device: of those that ``torchrun`` started each trains
    cells of its own, on a GPU of its own.
    """
    rank, local = os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK")
    for name in GROUP:
        os.environ.pop(name, None)
    import torch

    if device is None and local is not None and torch.cuda.is_available():
        device = f"cuda:{local}"
    return rank == "0", device


def script(kind: str, words: Sequence[str]) -> str:
    """A job that runs this command in many processes."""
    text = TORCHRUN if kind == "torchrun" else SLURM
    folder, python = shlex.quote(str(Path.cwd())), shlex.quote(sys.executable)
    return text.format(folder=folder, words=shlex.join(words), python=python)
