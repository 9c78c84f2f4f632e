"""The doctor tells what this machine has, and exits 1 where something is wrong with it."""

from __future__ import annotations

import re
from importlib import metadata

import pytest
import torch

from builder import doctor
from builder.__main__ import main
from builder.training import disk

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)


def test_this_environment_is_well(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "!" not in told
    for line in ("torch ", "threads ", "memory ", "disk ", "speed ", "attention ", "compiler "):
        assert f"\n{line}" in told


@pytest.mark.parametrize(("package", "mended", "what"), doctor.ADVISORIES)
def test_a_version_with_a_known_advisory_is_a_fault(package, mended, what, monkeypatch, capsys):
    real = metadata.version
    major, minor, patch = doctor.numbers(mended)
    old = f"{major}.{minor}.{patch - 1}" if patch else f"{major}.{minor - 1}.99+cpu"
    monkeypatch.setattr(metadata, "version", lambda name: old if name == package else real(name))
    assert main(["doctor"]) == 1
    assert what in capsys.readouterr().out.replace("\n", " ")


def test_what_this_project_asks_for_has_no_known_advisory():
    """The least versions that pyproject.toml takes are past what is told of."""
    asked = {}
    for text in metadata.requires("onepage-lm") or []:
        name, least = re.match(r"[\w-]+", text)[0], re.search(r">=([\d.]+)", text)
        asked.setdefault(name.lower(), least[1] if least else "0")
    for package, mended, what in doctor.ADVISORIES:
        assert doctor.numbers(asked[package]) >= doctor.numbers(mended), what


@pytest.mark.parametrize(
    ("version", "parts"), [("2.13.0+cpu", (2, 13, 0)), ("5.0rc3", (5, 3, 0)), ("6", (6, 0, 0))]
)
def test_versions_are_read_as_numbers(version, parts):
    assert doctor.numbers(version) == parts


def test_a_disk_that_cannot_be_written_is_a_fault(monkeypatch, tmp_path):
    def full(path, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "save", full)
    assert "No space left" in doctor.disk(tmp_path).fault


def test_little_room_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "LEAST_DISK", 1e18)
    assert "little room" in doctor.disk(tmp_path / "not/yet/there").fault


def test_more_threads_than_cores_are_a_fault(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert "wait for each other" in doctor.threads().fault
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not doctor.threads().fault


def test_attention_tells_what_works():
    assert "math" in doctor.attention(CPU).told
