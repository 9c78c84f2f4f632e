"""A foreign folder is data: whatever it holds, nothing of it runs, and nothing is fetched."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.hf_folders import ROOT
from tests.hostile_folders import CORPUS, watched

READ = {"code beside", "pickles beside", "a tokenizer of code"}  # of which only the data is read


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """All in one process, which is watched."""
    command = [sys.executable, "-m", "tests.hostile_folders", str(tmp_path_factory.mktemp("bad"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (ended, counted) for name, ended, counted in lines}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_folder_is_refused_in_words_or_read_as_data(name, outcomes):
    ended, counted = outcomes[name]
    assert counted == []
    assert (ended == "read") == (name in READ)
    assert " " not in ended, "it ends in an error that nobody meant"


def test_the_watch_sees_what_it_should(tmp_path):
    (tmp_path / "code.py").write_text("x = 1")

    def act():
        subprocess.run(["true"], check=True)
        exec(compile("x = 1", str(tmp_path / "code.py"), "exec"), {})
        (tmp_path / "written").write_text("")
        raise KeyError("a fault")

    ended, counted = watched(tmp_path, act)
    assert ended.startswith("KeyError")
    assert {"subprocess.Popen", "compile", "exec"} <= set(counted)
    assert any("written to write" in one for one in counted)
