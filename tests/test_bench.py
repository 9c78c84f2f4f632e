"""The benchmark tells what it measured, on what, and never fails for being slow."""

from __future__ import annotations

import pytest

from builder import __main__ as program
from builder import bench, load_recipe
from builder.bench import CASES, Task, heterogeneous, machine, measure, table


def task(*words, limit=60.0, **more):
    return Task("a task", words, limit, **more)


def test_a_task_is_measured_once_a_round():
    (timing,) = measure([task("-c", "pass")], rounds=3)
    assert len(timing.seconds) == 3
    assert all(0 < seconds < 60 for seconds in timing.seconds)


def test_rounds_are_interleaved(monkeypatch):
    ran = []
    monkeypatch.setattr(bench, "_once", lambda task: ran.append(task.words[0]) or 1.0)
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
    timing = bench.Timing(task(limit=0.2), (0.3, 0.1, 0.25))
    head, row = table([timing]).splitlines()
    assert head.split() == ["median", "fastest", "slowest", "limit"]
    assert " ".join(row.split()) == "a task 0.250 s 0.100 s 0.300 s 0.2 s over"


def test_the_large_recipe_has_two_hundred_layers_and_no_two_alike():
    recipe = load_recipe(heterogeneous(200))
    assert not recipe.warnings
    assert len(recipe.graph.layers) == 200
    assert len({repr(layer.body) for layer in recipe.graph.layers}) == 200


def test_the_verb_says_what_it_measured_and_on_what(monkeypatch, capsys):
    monkeypatch.setitem(CASES, "language", lambda: [task("-c", "pass")])
    assert program.main(["bench", "language", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(machine().splitlines()[0])
    assert "cores, load" in shown
    assert "a task" in shown


@pytest.mark.parametrize(
    ("words", "help"),
    [(["langauge"], "did you mean 'language'?"), (["--rounds", "0"], "write 1 or more")],
)
def test_a_wrong_case_or_count_is_refused_with_a_help(capsys, words, help):
    assert program.main(["bench", *words]) == 2
    assert help in capsys.readouterr().err
