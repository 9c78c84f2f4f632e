"""A plug-in's author gets every law by one import."""

from __future__ import annotations

import re
import shlex

import pytest

from blocks import registry
from builder.laws import LAWS, battery
from tests.broken_blocks import HEAD, write_plugin
from tests.commands import ROOT, python
from tests.test_language import FENCE

FEW = 10  # recipes: each has the word


@pytest.fixture(autouse=True)
def _as_it_was():
    """Whatever a battery registers is gone when it ends, be it broken or not."""
    before = plugged_in()
    yield
    assert plugged_in() == before


def plugged_in():
    return {key for key, cls in registry.REGISTRY.items() if cls.__module__.startswith("plugin_")}


@pytest.mark.slow
@pytest.mark.parametrize("word", ["leaky", "forgetful", "idle", "casting"])
def test_a_battery_finds_a_broken_block(word, tmp_path):
    with pytest.raises((AssertionError, RuntimeError)) as caught:
        battery(write_plugin(tmp_path, word), max_examples=FEW)()
    if word == "idle":
        assert str(caught.value).startswith("no option is dead: twice of idle: ")
        return
    notes = caught.value.__notes__
    assert any(note.startswith("on this page:\nrecipe: 1\n") and word in note for note in notes)
    if word not in ("raising", "casting"):  # whose models cannot be made
        law = notes[0].removeprefix("of the law ").partition(",")[0]
        assert law in LAWS and " at seed " in notes[0]


@pytest.mark.slow
def test_an_honest_block_passes_its_battery(tmp_path):
    battery(write_plugin(tmp_path, "squash"), max_examples=FEW)()


@pytest.mark.slow
def test_a_word_that_nothing_may_hold_is_told_of(tmp_path):
    path = tmp_path / "lonely.py"
    path.write_text(
        HEAD + '\n@register("lonely", kind="router")\nclass Lonely(nn.Module):\n'
        "    checks = {'1 == 2': 'it may stand nowhere'}\n"
        "    def forward(self, x: Tensor) -> Tensor:\n        return x\n"
    )
    with pytest.raises(AssertionError, match=r"lonely of lonely\.py was never drawn"):
        battery(path, max_examples=FEW)()


def test_a_plugin_without_a_word_is_told_of(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(AssertionError, match=r"empty\.py registers no word that a model may hold"):
        battery(path)()


@pytest.mark.slow
def test_a_battery_is_one_test_of_a_file_beside_the_plugin(tmp_path):
    write_plugin(tmp_path, "leaky")
    (tmp_path / "test_mine.py").write_text(
        "from builder.laws import battery\n\n"
        f'test_my_blocks_keep_every_law = battery("leaky_block.py", max_examples={FEW})\n'
    )
    done = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "test_my_blocks_keep_every_law" in done.stdout and "leaky" in done.stdout


@pytest.mark.slow
def test_every_example_of_the_page_on_blocks_is_so(tmp_path):
    printed = ""
    for kind, says, text in FENCE.findall((ROOT / "docs/blocks.md").read_text("utf-8")):
        if kind in ("python", "yaml"):
            (tmp_path / says).write_text(text, encoding="utf-8")
        elif kind == "sh":
            done = python(tmp_path, *shlex.split(text)[1:])
            assert done.returncode == int(says or 0), done.stdout + done.stderr
            printed = done.stdout
        else:
            assert kind == "text"
            lines = [*without_rounding(printed), "..."]
            assert set(without_rounding(text)) <= set(lines), printed
    battery(tmp_path / "my_blocks.py", max_examples=FEW)()


def without_rounding(text):
    """The lines, without the last digits, which are another machine's."""
    return re.sub(r"[\d.]+e-\d\d", "tiny", text).splitlines()
