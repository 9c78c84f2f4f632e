"""The published sizes: counted without allocating anything, and equal to what was published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builder import build, load_recipe

FOLDER = Path(__file__).parent.parent / "recipes" / "published"
PUBLISHED = {
    "gpt-117m": 116_534_784,
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
}


def test_every_published_recipe_has_its_count_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_as_many_parameters_as_the_paper_says(name):
    model = build(load_recipe(FOLDER / f"{name}.yaml"), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_comment_of_a_published_recipe_states_its_count(name):
    (stated,) = re.findall(r": ([\d,]+) parameters", (FOLDER / f"{name}.yaml").read_text())
    assert int(stated.replace(",", "")) == PUBLISHED[name]
