"""Contenders at one case, in turn: a busy minute falls on all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from builder.bench.cases import PEERS, Case
from builder.bench.machine import ROOT, surroundings

ENVIRONMENTS = ROOT / "build" / "bench"  # as `make bench-env` makes them
LAP = 3.0  # seconds that the first contender takes for its steps in a round
OWN = ("litgpt", "x-transformers")  # those that need an environment of their own


@dataclass
class Result:
    """What was measured of a contender: seconds a step, round by round, until its first step was
    done, and bytes that its process took at most; or the ``reason`` why there is nothing.
    """

    contender: str
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    peak: int = 0
    reason: str = ""


@dataclass
class Limits:
    """What the machine did in the same rounds: operations and bytes a second."""

    operations: float
    bytes: float


class Gone(Exception):
    """A contender that ended before it was asked to, and its last words."""


class Contender:
    """A process that takes steps when it is told to."""

    def __init__(self, name: str, case: Case, threads: int) -> None:
        self.result = Result(name)
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        script = Path(__file__).with_name("contest.py")
        environment = surroundings(
            OMP_NUM_THREADS=str(threads),
            PYTHONPATH=str(ROOT),
            TOKENIZERS_PARALLELISM="false",
            HF_HUB_OFFLINE="1",
        )
        command = [python_of(name), "-P", script, name, json.dumps(case.given), str(time.time())]
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            env=environment,
            text=True,
        )

    def first(self) -> None:
        """Wait for its first step."""
        self.result.first = self.answer()["first"]

    def lap(self, steps: int) -> Any:
        """So many steps; what the last of them gave."""
        answer = self.ask(str(steps))
        self.result.seconds.append(answer["seconds"] / steps)
        return answer["given"]

    def end(self) -> None:
        """Let it go, and note what memory it took."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(Gone):
            self.result.peak = self.answer()["peak"]
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.words.close()

    def ask(self, words: str) -> Any:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            print(words, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.words.seek(0)
        said = [words.strip() for words in self.words if words.strip()]
        raise Gone(said[-1] if said else "it ended without a word")


def python_of(name: str) -> Path:
    """The interpreter that has a contender."""
    return ENVIRONMENTS / name / "bin" / "python" if name in OWN else Path(sys.executable)


def play(
    case: Case, rounds: int, threads: int, names: Sequence[str] | None = None
) -> tuple[list[Result], Limits]:
    """All contenders at a case, ``rounds`` times in turn, and the machine's limits meanwhile."""
    chosen = [*PEERS, *case.ours] if names is None else list(names)
    if case.work == "start":
        return started(case, rounds, threads, chosen), Limits(0.0, 0.0)
    results, limits = [], []
    with playing(case, threads, [*chosen, "machine"]) as (contenders, absent):
        *others, machine = contenders
        steps = steps_of(others[0]) if others else 1
        for _ in range(rounds):
            for one in others:
                if not one.result.reason:
                    attempt(one, steps)
            limits.append(machine.lap(1))
        results = [one.result for one in others] + absent
    found = [median(limit[what] for limit in limits) for what in ("operations", "bytes")]
    return sorted(results, key=lambda result: chosen.index(result.contender)), Limits(*found)


def steps_of(one: Contender) -> int:
    """As many as it takes in a lap."""
    attempt(one, 1)
    return max(1, round(LAP / one.result.seconds.pop())) if one.result.seconds else 1


def attempt(one: Contender, steps: int) -> None:
    try:
        one.lap(steps)
    except Gone as last:
        one.result.reason = str(last)


@contextmanager
def playing(
    case: Case, threads: int, names: Sequence[str]
) -> Iterator[tuple[list[Contender], list[Result]]]:
    """Those that came to their first step, one after another, and why the others did not."""
    ready: list[Contender] = []
    absent: list[Result] = []
    try:
        for name in names:
            if not python_of(name).exists():
                absent.append(Result(name, reason="not installed: make bench-env"))
                continue
            one = Contender(name, case, threads)
            try:
                one.first()
                ready.append(one)
            except Gone as last:
                one.end()
                absent.append(Result(name, reason=str(last)))
        yield ready, absent
    finally:
        for one in ready:
            one.end()


def started(case: Case, rounds: int, threads: int, names: Sequence[str]) -> list[Result]:
    """New processes in each round, each until its first step is done."""
    results = {name: Result(name) for name in names}
    for number in range(rounds + 1):  # the first is to get warm: files are read, and compiled
        for name, result in results.items():
            with playing(case, threads, [name]) as (ready, absent):
                result.reason = absent[0].reason if absent else ""
            for one in ready if number else ():
                result.seconds.append(one.result.first)
                result.first, result.peak = median(result.seconds), one.result.peak
    return list(results.values())
