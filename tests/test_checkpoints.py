"""A checkpoint is whole or not there, and is not read unless it is as it was written."""

import errno
import random
import shutil
from contextlib import suppress

import pytest
import torch

from builder.errors import DamagedError, InputError, ResourceError
from builder.training import checkpoints
from tests.crashes import Recorder, failing, leftovers, recorded, restore

TENSORS = {
    "model": {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(4, dtype=torch.bfloat16),
    },
    "training": {"step/b": torch.tensor(3.0)},
}


def write(home, step=1):
    return checkpoints.write(home, step, TENSORS, {"step": step})


def test_what_is_read_is_what_was_written(tmp_path):
    path = write(tmp_path, 600)
    assert path.name == "step_000600"
    checkpoints.verify(path)
    for name, tensors in TENSORS.items():
        found = checkpoints.read(path, name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert checkpoints.read_state(path) == {"step": 600}
    assert {child.name for child in tmp_path.iterdir()} == {"step_000600", "latest"}
    assert (tmp_path / "latest").read_text() == "step_000600\n"


# Damage


def flip(data, dice):
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def truncate(data, dice):
    del data[dice.randrange(len(data)) :]


def swap(data, dice):
    """Two stretches of a file change places."""
    size = dice.randint(1, len(data) // 3)
    first, second = dice.sample(range(0, len(data) - size, size), 2)
    one, two = data[first : first + size], data[second : second + size]
    data[first : first + size], data[second : second + size] = two, one


def damages(count, seed=0):
    """So many kinds of damage, drawn."""
    dice = random.Random(seed)
    return [(dice.choice([flip, truncate, swap]), random.Random(n)) for n in range(count)]


def test_every_damage_is_noticed_and_names_the_file(tmp_path):
    path = write(tmp_path)
    files = sorted(path.iterdir())
    for harm, dice in damages(500):
        file = dice.choice(files)
        clean = file.read_bytes()
        data = bytearray(clean)
        while data == clean:  # two equal stretches may have changed places
            harm(data, dice)
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=file.name):
            checkpoints.verify(path)
        file.write_bytes(clean)
    checkpoints.verify(path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_file_of_another_checkpoint_is_noticed(tmp_path, name):
    path, other = write(tmp_path, 1), tmp_path / "elsewhere"
    changed = {"model": {key: value + 1 for key, value in TENSORS["model"].items()}}
    checkpoints.write(other, 2, TENSORS | changed, {})
    (path / name).write_bytes((other / "step_000002" / name).read_bytes())
    with pytest.raises(DamagedError, match="is not as it was written"):
        checkpoints.verify(path)


def test_a_checkpoint_under_the_name_of_another_step_is_noticed(tmp_path):
    write(tmp_path, 1).rename(tmp_path / "step_000007")
    with pytest.raises(DamagedError, match=r"state\.json is of step 1: the folder"):
        checkpoints.verify(tmp_path / "step_000007")


def test_damage_names_the_file_and_the_tensor(tmp_path):
    path = write(tmp_path)
    file = path / "model.safetensors"
    data = file.read_bytes()
    at = data.index(torch.tensor([3.0, 4.0]).numpy().tobytes())
    file.write_bytes(data[:at] + b"\x01" + data[at + 1 :])
    with pytest.raises(DamagedError, match=r"model\.safetensors .* tensor 'a\.weight'"):
        checkpoints.verify(path)
    file.write_bytes(b"\x09" + data[1:])
    with pytest.raises(DamagedError, match="its header"):
        checkpoints.verify(path)
    file.write_bytes(data[:-1])
    with pytest.raises(DamagedError, match=r"bytes, and was written with"):
        checkpoints.verify(path)
    file.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        checkpoints.verify(path)


def test_the_newest_good_one_is_taken_and_the_damaged_one_said(tmp_path):
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    (bad / "state.json").write_text("{}")
    said = []
    assert checkpoints.newest_good(tmp_path, said.append) == good
    assert "step_000002" in said[0] and "state.json" in said[0]
    (good / "manifest.json").unlink()
    with pytest.raises(DamagedError):
        checkpoints.newest_good(tmp_path, said.append)


def test_no_checkpoint_is_an_input_error(tmp_path):
    with pytest.raises(InputError) as caught:
        checkpoints.newest_good(tmp_path / "checkpoints", print)
    assert caught.value.code == "no-checkpoint"


# Disks that fail, and machines that stop


def next_one(home):
    """The checkpoint of step 3, after those of 1 and 2, of which one then goes."""
    path = write(home, 3)
    checkpoints.prune(home, 2)
    return path


def operations(tmp_path):
    for step in (1, 2):
        write(tmp_path / "whole", step)
    with failing(10**6, errno.EIO) as tried:
        next_one(tmp_path / "whole")
    return len(tried)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_disk_that_fails_at_any_operation_leaves_the_older_checkpoint(tmp_path, code):
    for at in range(operations(tmp_path)):
        home = tmp_path / str(at)
        old = [write(home, step) for step in (1, 2)]
        with failing(at, code), suppress(ResourceError):  # where it only takes room, it is let be
            next_one(home)
        assert not list(home.glob(".tmp-*"))
        checkpoints.verify(checkpoints.newest_good(home, print))
        checkpoints.verify(old[1])


def after_a_crash(tmp_path, before, act):
    """Each state that a crash in the middle of ``act`` may leave, as a folder."""
    home = tmp_path / "home"
    home.mkdir()
    before(home)
    with recorded(home) as recorder:
        start = len(recorder.log)
        act(home)
    seen = set()
    for number, held in enumerate(leftovers(recorder.log, start)):
        if (key := repr(sorted(held.items()))) not in seen:
            seen.add(key)
            restore(held, set(recorder.folders), found := tmp_path / str(number))
            yield found
            shutil.rmtree(found)


def two_before(home):
    write(home, 1)
    write(home, 2)


def one_damaged_before(home):
    write(home, 2)
    (write(home, 3) / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize("before", [two_before, one_damaged_before])
def test_a_crash_at_any_operation_leaves_the_older_checkpoint_or_the_new(tmp_path, before):
    tried = []
    for home in after_a_crash(tmp_path, before, next_one):
        found = checkpoints.newest_good(home, lambda text: None)
        assert checkpoints.step_of(found) in (2, 3)
        for name, tensors in TENSORS.items():
            read = checkpoints.read(found, name)
            assert all(torch.equal(read[key], tensors[key]) for key in tensors)
        tried.append(home)
    assert len(tried) > 50


def test_a_crash_would_be_seen_if_nothing_waited_for_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "sync", lambda self, path: None)

    def act(home):
        write(home, 3)
        for step in (1, 2):
            checkpoints.disk.remove(home / f"step_{step:06d}")

    def survives(home):
        with suppress(DamagedError, InputError):
            return checkpoints.newest_good(home, lambda text: None)

    assert not all(survives(home) for home in after_a_crash(tmp_path, two_before, act))


def test_a_real_limit_on_file_size_is_a_resource_error(tmp_path):
    resource = pytest.importorskip("resource")
    old = write(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(ResourceError, match="step 2"):
            checkpoints.write(tmp_path, 2, {"model": {"big": torch.zeros(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert set(tmp_path.iterdir()) == {old, tmp_path / "latest"}


def test_only_the_last_ones_are_kept(tmp_path):
    for step in (9, 10, 1_000_000):
        write(tmp_path, step)
    checkpoints.prune(tmp_path, 2)
    assert [checkpoints.step_of(path) for path in checkpoints.all_in(tmp_path)] == [10, 1_000_000]


def test_none_goes_before_the_newest_is_found_to_be_good(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "step_000003" / "model.safetensors").write_bytes(b"")
    with pytest.raises(DamagedError):
        checkpoints.prune(tmp_path, 1)
    assert len(checkpoints.all_in(tmp_path)) == 3


def test_the_one_that_was_finished_last_is_tried_first(tmp_path):
    for step in (9, 3):  # as after a rollback
        write(tmp_path, step)
    assert checkpoints.newest_good(tmp_path, print) == tmp_path / "step_000003"
    (tmp_path / "latest").write_bytes(b"\xff")
    assert checkpoints.newest_good(tmp_path, print) == tmp_path / "step_000009"
