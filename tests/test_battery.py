"""A plug-in's author gets every law by one import."""

from __future__ import annotations

import copy

import pytest

from blocks import registry
from builder.laws import LAWS, battery
from tests.broken_blocks import BROKEN, HEAD, write_plugin
from tests.commands import python

FEW = 10  # recipes: each has the word


@pytest.fixture(autouse=True)
def _as_it_was():
    """Whatever a battery registers is gone when it ends, be it broken or not."""
    registry.load()
    before = copy.copy(registry.REGISTRY)
    yield
    assert before == registry.REGISTRY


@pytest.mark.parametrize("word", BROKEN)
def test_a_battery_finds_a_broken_block(word, tmp_path):
    with pytest.raises(RuntimeError if word == "raising" else AssertionError) as caught:
        battery(write_plugin(tmp_path, word), max_examples=FEW)()
    if word == "idle":
        assert str(caught.value).startswith("no option is dead: twice of idle: ")
        return
    law, page = caught.value.__notes__[:2]
    assert law.split()[3].strip(",") in LAWS and " at seed " in law
    assert page.startswith("on this page:\nrecipe: 1\n") and word in page


def test_an_honest_block_passes_its_battery(tmp_path):
    battery(write_plugin(tmp_path, "squash"), max_examples=FEW)()


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


def test_a_battery_is_one_test_of_a_file_beside_the_plugin(tmp_path):
    write_plugin(tmp_path, "leaky")
    (tmp_path / "test_mine.py").write_text(
        "from builder.laws import battery\n\n"
        f'test_my_blocks_keep_every_law = battery("leaky_block.py", max_examples={FEW})\n'
    )
    done = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "test_my_blocks_keep_every_law" in done.stdout and "leaky" in done.stdout
