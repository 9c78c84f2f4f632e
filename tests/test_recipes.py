"""Every recipe that ships loads without a warning, and its resolved page is the same model."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import build, load_recipe
from tests.shipped import RECIPES

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(ROOT.glob("recipes/*.yaml"))
EARLY = {  # a change is a new version of the language, or a recipe that its readers must be told of
    "gpt": "b2a6b2eb4cd6",
    "gpt2": "e52c065eb61d",
    "llama": "a629054836bb",
    "mistral": "922878a53df5",
}


def name_of(path):
    return str(path.relative_to(ROOT / "recipes")).removesuffix(".yaml")


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipe_resolves_without_a_warning(path):
    assert load_recipe(path).warnings == ()


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_resolved_page_of_a_recipe_is_the_same_model(path):
    recipe = load_recipe(path)
    again = load_recipe(recipe.resolved)
    assert again.graph == recipe.graph and again.hash == recipe.hash
    assert (again.train, again.data, again.tokenizer) == (
        recipe.train,
        recipe.data,
        recipe.tokenizer,
    )
    assert again.resolved == recipe.resolved


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_hash_of_a_recipe_is_what_it_was(path):
    assert load_recipe(path).hash == EARLY[path.stem]


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_recipe_says_its_source_and_fits_a_page(path):
    text = path.read_text()
    assert text.startswith("# ") and "20" in text.partition("\n")[0]  # the paper and its year
    assert len(text.splitlines()) <= 25


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_recipe_builds_and_is_of_laptop_size(path):
    model = build(load_recipe(path), device="meta")
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
