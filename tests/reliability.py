"""Kill, stop, damage and fail runs by the hundred: ``python -m tests.reliability [CASES]``.

Writes what was tried, and how long it took, into the table of ``docs/reliability.md``.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from builder.errors import DamagedError, ResourceError, Stopped
from builder.training import checkpoints, loop
from builder.training.loop import resume, train
from builder.training.runs import create_run, open_run
from tests.crashes import failing
from tests.test_checkpoints import (
    after_a_crash,
    damages,
    next_one,
    one_damaged_before,
    two_before,
    write,
)
from tests.tiny_runs import Case, assert_same, in_child, recipe_of, text_of

PAGE = Path(__file__).resolve().parent.parent / "docs/reliability.md"
BEGIN, END = "<!-- what was tried -->\n", "<!-- until here -->\n"
CODES = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)
DAMAGES, STOPS, STARTS = 500, 60, 50


def kills(home: Path, cases: int) -> str:
    """Cases are drawn by number: options, and where they are killed."""
    killed = sum(Case.drawn(n).run(home / f"{n}/whole", home / f"{n}/killed") for n in range(cases))
    return f"{cases:,} runs, killed {killed:,} times by SIGKILL"


def stops(home: Path) -> str:
    """A signal comes in a drawn step; the run is resumed until it is done."""
    recipe = recipe_of(steps=12, workers=0)
    whole = train(recipe, home / "whole")
    take_step, count = loop.take_step, 0
    for number in range(STOPS):
        dice, path = random.Random(number), home / str(number)
        at = {dice.randrange(12) for _ in range(3)}

        def stepping(training, index, batch, at=at):
            if index in at:
                at.discard(index)
                os.kill(os.getpid(), dice.choice([signal.SIGTERM, signal.SIGINT]))  # noqa: B023
            return take_step(training, index, batch)

        loop.take_step = stepping
        try:
            run = None
            while run is None:
                try:
                    run = resume(open_run(path)) if path.exists() else train(recipe, path)
                except Stopped:
                    count += 1
        finally:
            loop.take_step = take_step
        assert_same(run, whole)
    return f"{STOPS} runs, stopped {count} times by SIGTERM or SIGINT"


def harms(home: Path) -> str:
    path = write(home)
    files = sorted(path.iterdir())
    for harm, dice in damages(DAMAGES, seed=1):
        file = dice.choice(files)
        clean = file.read_bytes()
        data = bytearray(clean)
        while data == clean:
            harm(data, dice)
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=file.name):
            checkpoints.verify(path)
        file.write_bytes(clean)
    return f"{DAMAGES} flipped bits, truncations and swaps"


def crashes(home: Path) -> str:
    count = 0
    for before in (two_before, one_damaged_before):
        (inside := home / before.__name__).mkdir(parents=True)
        for state in after_a_crash(inside, before, next_one):
            found = checkpoints.newest_good(state, lambda text: None)
            assert checkpoints.step_of(found) in (2, 3)
            count += 1
    return f"{count:,} states that a disk may be left in"


def faults(home: Path) -> str:
    recipe, count, stopped = recipe_of(), 0, 0
    with failing(10**6, 0) as tried:
        whole = train(recipe, home / "whole")
    for code in CODES:
        for at in range(len(tried)):
            path = home / f"{code}-{at}"
            with failing(at, code), contextlib.suppress(ResourceError):
                train(recipe, path)
                stopped -= 1
            stopped += 1
            count += 1
            if path.exists():
                assert_same(resume(open_run(path)), whole)
    names = ", ".join(errno.errorcode[code] for code in CODES)
    return f"{count:,} failing operations ({names}), of which {stopped:,} stopped the run"


def starts(home: Path) -> str:
    recipe = recipe_of()

    def many() -> None:
        children = []
        for _ in range(STARTS):
            if (child := os.fork()) == 0:
                create_run(recipe, None, [], root=home)
                os._exit(0)
            children.append(child)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)

    assert in_child(many) == 0
    assert sum(not path.name.startswith(".") for path in home.iterdir()) == STARTS
    return f"{STARTS} simultaneous starts"


def main(cases: int) -> None:
    equal = "resumed, each equals the whole run to the bit"
    proofs: dict[str, tuple[Callable[[Path], str], str]] = {
        "killed": (lambda home: kills(home, cases), equal),
        "stopped": (stops, equal),
        "damaged": (harms, "each noticed before a weight is read, by the name of its file"),
        "crashed": (crashes, "each holds the checkpoint before, or the new one, whole"),
        "disk fails": (faults, f"exit code 3 or none; {equal}"),
        "started": (starts, "as many folders"),
    }
    rows = ["| what happens | how often | what is left | seconds |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("text.txt").write_text(text_of(0), encoding="utf-8")
        for name, (prove, left) in proofs.items():
            home, began = Path("runs", name.replace(" ", "-")), time.monotonic()
            home.mkdir(parents=True)
            with contextlib.redirect_stderr(io.StringIO()):
                counted = prove(home)
            rows.append(f"| {name} | {counted} | {left} | {time.monotonic() - began:.0f} |")
            print(rows[-1], flush=True)
    made = f"Python {platform.python_version()}, torch {torch.__version__}, "
    made += time.strftime("%Y-%m-%d")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    table = "\n".join([*rows, "", f"{made}.", ""])
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
