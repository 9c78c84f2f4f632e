"""What an installed copy holds: every package, every recipe, every family file."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("blocks", "builder", "hf_bridge", "recipes")


def test_every_folder_of_code_or_recipes_is_a_package():
    files = [
        path for room in ROOMS for end in ("py", "yaml") for path in ROOT.glob(f"{room}/**/*.{end}")
    ]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert folders == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_folder_of_what_is_no_code_is_package_data():
    kinds = ("yaml", "css")
    files = [path for room in ROOMS for kind in kinds for path in ROOT.glob(f"{room}/**/*.{kind}")]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    assert folders == set(PROJECT["tool"]["setuptools"]["package-data"])


def test_every_dependency_carries_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0]
    for line in lines.strip().splitlines():
        assert "#" in line, line


def test_constraints_pin_what_the_project_asks_for():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in pins
    assert "transformers==5.24.0" in pins
    assert all("==" in line or line.startswith("#") for line in pins)
