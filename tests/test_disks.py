"""A disk that fails at any operation of a run stops it with code 3, or lets it go on: never with
less than the checkpoint before.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from builder.errors import InputError, ResourceError
from builder.training import checkpoints
from builder.training.loop import resume, train
from builder.training.runs import create_run, open_run
from tests.crashes import failing
from tests.tiny_runs import assert_same, in_child, recipe_of, text_of

STARTS = 50
EVERY = int(os.environ.get("EVERY_FAULT", "7"))  # of the operations of a run, those that fail


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_run_on_a_failing_disk_stops_with_code_3_and_goes_on_to_the_bit(code):
    recipe = recipe_of()
    with failing(10**6, code) as tried:
        whole = train(recipe, Path("runs/whole"))
    stopped = 0
    for at in range(code % EVERY, len(tried), EVERY):
        path = Path(f"runs/{at}")
        good = -1
        with failing(at, code), suppress(ResourceError):
            train(recipe, path)
            stopped -= 1
        stopped += 1
        if not path.exists():
            continue  # it failed before there was a run
        run = open_run(path)
        if run.begun:
            good = checkpoints.step_of(run.latest())
        assert good in (-1, 3, 6, 9)
        assert_same(resume(run), whole)
    assert stopped > len(tried) // EVERY / 2


def test_a_read_only_folder_is_told_with_code_3(monkeypatch):
    with failing(0, errno.EROFS), pytest.raises(ResourceError, match="cannot make a run") as caught:
        create_run(recipe_of(), None, [])
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("named", [False, True], ids=["by time", "by one name"])
def test_fifty_simultaneous_starts_make_fifty_folders_or_one(named):
    """Of one name, given, one start gets it, and all others are told that it is taken."""
    recipe, path = recipe_of(), Path("runs/one") if named else None
    recipe.graph  # noqa: B018  # resolved before, so that all come at once
    gate, made = os.pipe()

    def start():
        os.read(gate, 1)
        try:
            create_run(recipe, None, [], path)
        except InputError as error:
            os._exit(2 if error.code == "run-exists" else 1)

    children = []
    for _ in range(STARTS):
        child = os.fork()
        if child == 0:
            os.close(made)
            try:
                start()
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(child)
    os.close(made)  # now all of them run
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(gate)
    folders = [path for path in Path("runs").iterdir() if not path.name.startswith(".")]
    assert sorted(codes) == ([0, *[2] * (STARTS - 1)] if named else [0] * STARTS)
    assert len(folders) == (1 if named else STARTS)
    assert all((folder / "resolved.yaml").exists() for folder in folders)
    assert not list(Path("runs").glob(".tmp-*"))


def test_a_run_is_locked_while_it_is_written():
    run = train(recipe_of(), Path("runs/one"))

    def busy():
        try:
            resume(open_run(Path("runs/one")))
        except InputError as error:
            os._exit(7 if error.code == "run-busy" else 1)

    with run.locked():
        assert in_child(busy) == 7
    assert in_child(busy) == 0
