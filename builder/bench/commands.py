"""Whole commands, each in a fresh process, in interleaved rounds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from builder.bench.machine import ROOT, surroundings

MIXERS = ("attention", "linear_attention", "short_conv")
RESOLVE = "from builder.bench.commands import resolve_seconds; print(resolve_seconds())"
LAYERS = 200


@dataclass(frozen=True)
class Task:
    """What is measured: a command line after ``python``, which may print its own ``seconds``."""

    name: str
    words: tuple[str, ...]
    limit: float  # seconds, as we promise
    prints_seconds: bool = False


@dataclass(frozen=True)
class Timing:
    """A task's seconds, one for each round; or the ``reason`` why there are none."""

    task: Task
    seconds: tuple[float, ...]
    reason: str = ""


def language() -> list[Task]:
    """The recipe language: what answers before torch is loaded, and what counts a 7B model."""
    llama, seven = "recipes/llama.yaml", "recipes/published/llama-7b.yaml"
    return [
        _verb("--help", limit=0.3),
        _verb("validate", llama, limit=0.3),
        _verb("list", limit=0.3),
        _verb("schema", limit=0.3),
        _verb("explain", seven, limit=3.0),
        _verb("diff", seven, "recipes/published/mistral-7b.yaml", limit=3.0),
        Task(f"resolve {LAYERS} layers", ("-c", RESOLVE), 1.0, prints_seconds=True),
    ]


def _verb(*words: str, limit: float) -> Task:
    names = (Path(word).stem for word in words)
    return Task(" ".join(names), ("-m", "builder", *words), limit)


def measure(tasks: Sequence[Task], rounds: int) -> list[Timing]:
    """Every task once a round, so that a busy minute falls on all of them alike."""
    results = [[_once(task) for task in tasks] for _ in range(rounds)]
    return [_timing(task, [row[i] for row in results]) for i, task in enumerate(tasks)]


def _timing(task: Task, results: list[float | str]) -> Timing:
    reasons = [result for result in results if isinstance(result, str)]
    seconds = tuple(result for result in results if isinstance(result, float))
    return Timing(task, () if reasons else seconds, reasons[0] if reasons else "")


def _once(task: Task) -> float | str:
    """The seconds of one run; or why there is no number."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *task.words],
        cwd=ROOT,
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):  # 1: checked, and the answer is no
        return next(iter(done.stderr.splitlines()), "nothing said")
    return float(done.stdout) if task.prints_seconds else seconds


def resolve_seconds() -> float:
    """The seconds that the large recipe takes from its text to its graph, in this process."""
    from builder import load_recipe
    from builder.index import load_index

    load_index()
    start = time.perf_counter()
    load_recipe(heterogeneous(LAYERS))
    return time.perf_counter() - start


def heterogeneous(layers: int) -> str:
    """A recipe of which each layer has its own mixer, heads, window and feed-forward width."""
    blocks = "\n".join(f"  layer_{i}: {_layer(i)}" for i in range(layers))
    names = ", ".join(f"layer_{i}" for i in range(layers))
    return f"""\
recipe: 1
name: heterogeneous
dims: {{dim: 256, vocab: 4096, context: 2048}}
blocks:
{blocks}
model:
  - token_embedding
  - {{repeat: 1, pattern: [{names}]}}
  - rmsnorm
  - lm_head
"""


def _layer(i: int) -> str:
    word, heads = MIXERS[i % len(MIXERS)], 2 ** (i % 4 + 1)
    mixer = {
        "attention": f"{{heads: {heads}, position: rope, mask: {{sliding_window: {16 + 8 * i}}}}}",
        "linear_attention": f"{{heads: {heads}}}",
    }.get(word, "{}")
    ff = f"{{glu: {{ff: {256 + 8 * i}}}}}"
    return f"[{{residual: [rmsnorm, {{{word}: {mixer}}}]}}, {{residual: [rmsnorm, {ff}]}}]"


def table(timings: Sequence[Timing]) -> str:
    """Median, fastest and slowest of each task, beside what we promise."""
    rows: list[tuple[str, ...]] = [("", "median", "fastest", "slowest", "limit", "")]
    for timing in timings:
        limit = f"{timing.task.limit:.1f} s"
        if not timing.seconds:
            rows.append((timing.task.name, "-", "-", "-", limit, timing.reason))
            continue
        middle = median(timing.seconds)
        spread = (middle, min(timing.seconds), max(timing.seconds))
        verdict = "within" if middle <= timing.task.limit else "over"
        shown = (f"{seconds:.3f} s" for seconds in spread)
        rows.append((timing.task.name, *shown, limit, verdict))
    return in_rows(rows)


def in_rows(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)
