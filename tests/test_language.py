"""Every rule of docs/language.md holds: its examples resolve, or are refused, as they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder import build, load_recipe
from builder.errors import RecipeError

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXT = (ROOT / "docs/language.md").read_text("utf-8")


@dataclass(frozen=True)
class Example:
    """A fenced text of the page; ``before`` is the page that it speaks of, with its settings."""

    line: int
    kind: str
    says: str
    text: str
    before: str = ""
    settings: tuple[str, ...] = ()


def examples():
    before, settings = "", ()
    for fence in FENCE.finditer(TEXT):
        kind, says, text = fence.groups()
        line = TEXT.count("\n", 0, fence.start()) + 1
        yield Example(line, kind, says, text, before, settings)
        if kind == "set":
            settings = tuple(text.splitlines())
        elif kind == "yaml":
            before, settings = text, ()


EXAMPLES = list(examples())
DIMS = next(example.text for example in EXAMPLES if example.kind == "dims")


def page(text):
    """A whole page, of what an example says."""
    dims = "" if "dims:" in text or "extends:" in text else f"dims: {DIMS}"
    return text if text.startswith("recipe:") else f"recipe: 1\n{dims}{text}"


def load(text, settings=()):
    return load_recipe(page(text), settings)


def named(kind, says=""):
    chosen = [e for e in EXAMPLES if e.kind == kind and e.says.startswith(says)]
    return pytest.mark.parametrize("example", chosen, ids=lambda example: f"line {example.line}")


@named("yaml")
def test_an_example_resolves_unless_it_says_otherwise(example):
    if example.says.startswith("error") or example.says == "extends":
        return
    errors = [warning for warning in load(example.text).warnings if warning.code != "unread-dim"]
    assert not errors


@named("yaml", "same")
def test_two_spellings_are_one_model(example):
    ours, theirs = load(example.before, example.settings), load(example.text)
    assert ours.graph == theirs.graph and ours.hash == theirs.hash


@named("yaml", "error")
def test_a_mistake_is_refused_with_its_code(example):
    with pytest.raises(RecipeError) as caught:
        load(example.text)
    codes = {finding.code for finding in caught.value.findings if finding.severity == "error"}
    assert codes == {example.says.removeprefix("error[").removesuffix("]")}


@named("yaml", "extends")
def test_a_variant_changes_its_base(example, tmp_path):
    (tmp_path / "variant.yaml").write_text(
        example.text.replace("llama.yaml", str(ROOT / "recipes/llama.yaml"))
    )
    variant = load_recipe(tmp_path / "variant.yaml")
    attention = variant.graph.layers[0].body.items[0].body.items[1]
    assert attention["kv_heads"] == 2 and attention["mask"]["window"] == 32


@named("names")
def test_parameters_are_named_as_told(example):
    model = build(load(example.before), device="meta")
    assert set(example.text.split()) <= {name for name, _ in model.named_parameters()}


def test_every_structural_word_and_every_mark_of_an_example_is_known():
    from builder.expand import STRUCTURE

    for word in STRUCTURE:
        assert re.search(rf"\b{word}: ", TEXT), f"no example of {word}"
    says = {example.says.partition("[")[0] for example in EXAMPLES if example.kind == "yaml"}
    assert says == {"", "same", "error", "extends"}
