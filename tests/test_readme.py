"""The README, run: every command, training at toy length on a toy text, and its Python."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.commands import ROOT, python

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOY = (
    "train.steps=4",
    "train.eval_every=4",
    "train.checkpoint_every=4",
    "train.sample_tokens=4",
    "model.repeat=1",
    "data={text: corpus.txt}",
)
pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("sh")).splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]


def run(command: list[str], folder: Path) -> str:
    done = python(folder, *command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = "the quick brown fox jumps over the lazy dog and runs away from it\n"
    (tmp_path / "corpus.txt").write_text(words * 800, encoding="utf-8")
    return tmp_path


def test_every_command_of_the_readme_runs(folder):
    assert len(commands()) >= 10
    for name, *command in commands():
        assert name == "python"
        toy = {"train", "ablate"} & set(command) and "--claims" not in command
        run([*command, *TOY] if toy else command, folder)


def test_every_make_target_of_the_readme_is_there():
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert named
    assert set(named) <= set(targets)


def test_the_recipe_of_the_readme_is_the_shipped_one():
    assert blocks("yaml")[0] == (ROOT / "recipes/llama.yaml").read_text(encoding="utf-8")


def test_the_message_of_the_readme_is_the_real_one(folder):
    page = (ROOT / "recipes/llama.yaml").read_text().replace("position: rope", "position: rop")
    (folder / "recipe.yaml").write_text(page)
    done = python(folder, "-m", "builder", "validate", "recipe.yaml")
    shown = re.search(r"```\n(recipe.yaml:.*?)```", README, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() in done.stdout + done.stderr
    assert done.returncode == 2


def test_the_python_of_the_readme_runs(folder):
    (program,) = blocks("python")
    run(["-c", program], folder)
