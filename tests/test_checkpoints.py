"""A checkpoint is whole or not there, and is not read unless it is as it was written."""

import errno
import os
import random

import pytest
import torch

from builder.errors import DamagedError, InputError, ResourceError
from builder.training import checkpoints

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
    assert [child.name for child in tmp_path.iterdir()] == ["step_000600"]


def test_every_flipped_bit_is_noticed(tmp_path):
    path = write(tmp_path)
    files = sorted(file for file in path.iterdir())
    dice = random.Random(0)
    for _ in range(200):
        file = dice.choice(files)
        data = bytearray(file.read_bytes())
        clean = bytes(data)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=file.name):
            checkpoints.verify(path)
        file.write_bytes(clean)
    checkpoints.verify(path)


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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "rename", "save_file", "write_text", "mkdtemp"])
def test_a_disk_that_fails_anywhere_leaves_the_older_checkpoint(tmp_path, monkeypatch, call, code):
    old = write(tmp_path, 1)

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    owner = {
        "fsync": os,
        "rename": checkpoints.Path,
        "save_file": checkpoints,
        "write_text": checkpoints.Path,
        "mkdtemp": checkpoints.tempfile,
    }[call]
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail)
        with pytest.raises(ResourceError, match="step 2") as caught:
            write(tmp_path, 2)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == [old]
    checkpoints.verify(old)


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
    assert list(tmp_path.iterdir()) == [old]


def test_only_the_last_ones_are_kept(tmp_path):
    for step in (9, 10, 1_000_000):
        write(tmp_path, step)
    checkpoints.prune(tmp_path, 2)
    assert [checkpoints.step_of(path) for path in checkpoints.all_in(tmp_path)] == [10, 1_000_000]
