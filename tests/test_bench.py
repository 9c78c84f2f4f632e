"""The benchmark tells what it measured, on what, and never fails for being slow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder import __main__ as program
from builder import build, load_recipe
from builder.bench import commands, match, scaling, tables
from builder.bench.cases import CASES, Case
from builder.bench.commands import Task, heterogeneous, measure, table
from builder.bench.machine import described
from builder.bench.match import Limits, Result, play

TINY = Case("tiny", "decode", "rotary", 2, 16, 2, 50, length=6, new=4, ff=24, batch=2)


# Whole commands


def task(*words, limit=60.0, **more):
    return Task("a task", words, limit, **more)


def test_a_task_is_measured_once_a_round():
    (timing,) = measure([task("-c", "pass")], rounds=3)
    assert len(timing.seconds) == 3
    assert all(0 < seconds < 60 for seconds in timing.seconds)


def test_rounds_are_interleaved(monkeypatch):
    ran = []
    monkeypatch.setattr(commands, "_once", lambda task: ran.append(task.words[0]) or 1.0)
    measure([task("a"), task("b")], rounds=2)
    assert ran == ["a", "b", "a", "b"]


def test_a_task_may_tell_its_own_seconds():
    (timing,) = measure([task("-c", "print(0.25)", prints_seconds=True)], rounds=1)
    assert timing.seconds == (0.25,)


def test_a_failure_is_told_and_fails_nothing():
    failed = task("-c", "import sys; print('oh', file=sys.stderr); sys.exit(5)")
    (timing,) = measure([failed], rounds=1)
    assert timing.reason == "oh" and not timing.seconds
    assert "oh" in table([timing])


def test_the_table_shows_median_spread_and_limit():
    timing = commands.Timing(task(limit=0.2), (0.3, 0.1, 0.25))
    head, _, row = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table([timing]).splitlines()
    )
    assert head == ["", "median", "fastest", "slowest", "limit", ""]
    assert row == ["a task", "0.250 s", "0.100 s", "0.300 s", "0.2 s", "over"]


def cells(page):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]


def test_the_large_recipe_has_two_hundred_layers_and_no_two_alike():
    recipe = load_recipe(heterogeneous(200))
    assert not recipe.warnings
    assert len(recipe.graph.layers) == 200
    assert len({repr(layer.body) for layer in recipe.graph.layers}) == 200


# Contenders


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_a_model(name):
    case = CASES[name]
    recipe = load_recipe(case.page)
    assert not recipe.warnings
    model = build(recipe, device="meta")
    assert len(model.layers) == case.layers
    assert model.lm_head.weight.shape == (case.vocab, case.dim)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        TINY,
        replace(TINY, work="train"),
        replace(TINY, work="train", kind="gpt", ff=None),
        replace(TINY, work="prefill", window=3),
    ],
    ids=["decode", "train", "train gpt2", "prefill"],
)
def test_contenders_take_turns_and_those_that_are_absent_say_so(case, monkeypatch):
    monkeypatch.setattr(match, "ENVIRONMENTS", Path("/nowhere"))
    monkeypatch.setattr(match, "LAP", 0.0)
    results, limits = play(case, 2, 1, ["transformers", "ours", "litgpt"])
    *measured, absent = results
    assert [one.contender for one in results] == ["transformers", "ours", "litgpt"]
    assert absent.reason == "not installed: make bench-env" and not absent.seconds
    for one in measured:
        assert len(one.seconds) == 2 and not one.reason, one.reason
        assert one.first > max(one.seconds) > 0 and one.peak > 1e8
    assert limits.operations > 1e8 and limits.bytes > 1e7


@pytest.mark.slow
def test_a_start_is_a_new_process_each_round():
    results, _ = play(replace(TINY, work="start", new=0), 2, 1, ["import torch", "ours"])
    assert all(len(one.seconds) == 2 for one in results)
    assert min(results[1].seconds) > min(results[0].seconds)


@pytest.mark.slow
def test_a_contender_that_fails_says_its_last_words():
    (failed,), _ = play(replace(TINY, heads=3), 1, 1, ["ours"])
    assert "heads" in failed.reason or "dim" in failed.reason
    assert f"- ours: {failed.reason}" in tables.table(TINY, [failed], Limits(1.0, 1.0))


# Tables


def test_a_ratio_is_the_median_of_rounds_and_a_share_is_of_what_is_counted():
    seconds = {"transformers": [1.0, 2.0, 4.0], "ours": [0.5, 0.5, 1.0], "ours, int8": [0.5] * 3}
    results = [Result(name, found, 3.0, 10**9) for name, found in seconds.items()]
    shown = tables.table(TINY, results, Limits(1e9, 1e6))
    rows = cells(shown)[2:]
    weights = 2 * (4 * 16 * 16 + 3 * 16 * 24 + 2 * 16) + 16 + 50 * 16
    cache = 2 * 2 * 16 * 4 * (6 + 2) * 2  # of layers, keys and values, at 8 places of 2 rows
    shares = [4 * (n * weights + cache) / 1e6 / s for n, s in ((4, 2.0), (4, 0.5), (1, 0.5))]
    assert [row[4] for row in rows[:3]] == [f"{share:.0%}" for share in shares]
    assert rows[0][:4] == ["transformers", "4", "2 to 8", "1.00"]
    assert rows[1][:4] == ["ours", "16", "8 to 16", "4.00"]
    assert rows[1][5:] == ["3.0 s", "1.00 GB"]
    assert shown.endswith("The limit: 0.0 GB/s, as rows of a matrix are read.")


def test_a_page_keeps_what_stands_around_and_takes_a_case_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Numbers\n\n<!-- bench T1 -->\nold\n<!-- end -->\n\nAnd more.\n")
    tables.write(page, "T1", "new")
    tables.write(page, "G1", "first")
    tables.write(page, "G1", r"again \1")
    assert page.read_text() == (
        "# Numbers\n\n<!-- bench T1 -->\nnew\n<!-- end -->\n\nAnd more.\n\n"
        "<!-- bench G1 -->\nagain \\1\n<!-- end -->\n"
    )


# Sizes


def test_sizes_stand_beside_what_is_counted(monkeypatch):
    small = replace(TINY, work="train", new=0)
    sizes = {"one layer": replace(small, layers=1), "two layers": small}
    monkeypatch.setattr(scaling, "SIZES", sizes)
    monkeypatch.setattr(scaling, "READ", replace(TINY, work="prefill", new=0))
    monkeypatch.setattr(scaling, "LENGTHS", (4, 16))
    monkeypatch.setattr(scaling, "WINDOW", 2)
    points, readings = scaling.trained(1), scaling.read(1)
    one, two = (point.counted for point in points)
    head = 6 * 16 * 50  # forward, and twice as much back
    assert two - head == 2 * (one - head)
    (short, whole), (windowed, longer) = readings
    assert windowed.cache == short.cache < whole.cache == longer.cache / 4
    page = scaling.pages(points, readings)
    assert "| one layer " in page and "| 16 tokens " in page
    assert scaling.plot(points).count("<circle") == 2


# The verb


def test_the_verb_says_what_it_measured_and_on_what(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(commands, "language", lambda: [task("-c", "pass")])
    page = tmp_path / "page.md"
    assert program.main(["bench", "language", "--rounds", "1", "--write", str(page)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(described().splitlines()[0])
    assert "cores, load" in shown
    assert "a task" in shown and "a task" in page.read_text()


@pytest.mark.parametrize(
    ("words", "help"),
    [
        (["langauge"], "did you mean 'language'?"),
        (["--rounds", "0"], "write 1 or more"),
        (["--threads", "0"], "write 1 or more"),
    ],
)
def test_a_wrong_case_or_count_is_refused_with_a_help(capsys, words, help):
    assert program.main(["bench", *words]) == 2
    assert help in capsys.readouterr().err
