"""The bug zoo keeps up with the code: each bug can be put into it, and some are, for real."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from builder.laws import LAWS
from tests.zoo.copies import ROOT
from tests.zoo.mutants import MUTANTS, UNCHANGED

BUGS = [mutant for mutant in MUTANTS if mutant is not UNCHANGED]


@pytest.mark.parametrize("mutant", BUGS, ids=lambda mutant: mutant.name)
def test_bug_can_be_put_into_the_code_of_today(mutant):
    text = (ROOT / mutant.file).read_text("utf-8")
    changed = mutant.applied(text)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


def test_each_bug_has_a_name_and_a_change_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.edits) for mutant in MUTANTS}) == len(MUTANTS)


def test_what_should_see_a_bug_is_a_law_or_a_test():
    for mutant in BUGS:
        file, _, function = mutant.seen_by.partition("::")
        if function:
            assert f"\ndef {function}(" in (ROOT / "tests" / file).read_text("utf-8"), mutant.name
        else:
            assert mutant.seen_by in LAWS, mutant.name


def test_nothing_complains_of_the_code_as_it_is():
    text = (ROOT / UNCHANGED.file).read_text("utf-8")
    assert UNCHANGED.applied(text) == text
    assert UNCHANGED.seen_by == ""


CHILDREN = """
import os, time
from tests.zoo.children import in_children

def work(task):
    if task == "dies":
        os._exit(1)
    time.sleep(60 * (task == "lingers"))
    return task.upper()

tasks = ["lives", "dies", "lingers", "lives on"]
print(sorted((task, answer) for task, answer, _ in in_children(tasks, work, 2, 1.0)))
"""


def test_a_process_that_dies_or_lingers_is_told_and_keeps_none_waiting():
    command = [sys.executable, "-c", CHILDREN]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    answers = {"lives": "LIVES", "dies": None, "lingers": None, "lives on": "LIVES ON"}
    assert run.stdout.strip() == str(sorted(answers.items()))


@pytest.mark.slow
def test_bugs_are_seen_and_the_code_as_it_is_survives():
    """By a law, by a test, and by nothing."""
    program = "import sys; from tests.zoo.__main__ import main; sys.exit(main(sys.argv[1:], 1, 0))"
    command = [sys.executable, "-c", program, "future-leak", "alibi-sign", "unchanged"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [[cell.strip() for cell in line.split("|")] for line in run.stdout.splitlines()[2:]]
    assert {row[1]: row[3] for row in rows} == {
        "future-leak": "is_causal_by_value",
        "alibi-sign": "test_blocks.py::test_block_is_its_formula",
        "unchanged": "NONE",
    }
