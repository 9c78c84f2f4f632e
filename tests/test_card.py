"""The model card of an exported folder: what it says, and that what it says is so."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

import hf_bridge
from builder import load_recipe
from hf_bridge.card import Story
from hf_bridge.exporting import to_hf
from tests.commands import ROOT, python
from tests.hf_folders import GPT2, LLAMA, built, read

ALIBI = LLAMA.replace("position: rope", "position: alibi")


def parts(folder):
    """A card's front matter, its text, and the pages in it by language."""
    text = (folder / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body, dict(re.findall(r"```(\w+)\n(.*?)```", body, re.DOTALL))


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    out = tmp_path_factory.mktemp("native") / "out"
    hf_bridge.to_hf(built(LLAMA), out)
    return out


def test_a_card_names_the_class_and_holds_the_recipe(native):
    head, body, pages = parts(native)
    assert head == {"library_name": "transformers", "pipeline_tag": "text-generation"}
    assert "`LlamaForCausalLM`" in body and "Training" not in body
    assert load_recipe(pages["yaml"]).graph == load_recipe(LLAMA).graph
    count = sum(parameter.numel() for parameter in built(LLAMA).parameters())
    assert f"{count:,} parameters" in body


@pytest.mark.slow
def test_the_lines_that_load_it_load_it(native):
    code = parts(native)[2]["python"].replace("path/to/this/folder", str(native))
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(type(model).__name__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.strip() == "LlamaForCausalLM", done.stderr


def test_a_card_says_why_no_class_of_the_library_fits(tmp_path):
    written = to_hf(built(ALIBI), tmp_path / "out")
    _, body, pages = parts(tmp_path / "out")
    assert written.architecture == "RecipeForCausalLM" and "import hf_bridge" in pages["python"]
    assert "LlamaForCausalLM but for layer 0 residual.attention.position: alibi" in body
    assert written.why is not None and written.why.findings[0].message in body


def test_a_card_tells_of_the_training(tmp_path):
    to_hf(built(LLAMA), tmp_path / "out", story=Story(LLAMA, {"steps": "3, each of 2 × 8 tokens"}))
    assert "| steps | 3, each of 2 × 8 tokens |" in parts(tmp_path / "out")[1]


def test_the_sums_of_a_folder_hold_its_card(native):
    assert "README.md" in (native / "SHA256SUMS").read_text("utf-8")


def test_gpt2_says_its_context_as_converters_ask_for_it(tmp_path):
    hf_bridge.to_hf(built(GPT2), tmp_path / "out")
    config = read(tmp_path / "out/config.json")
    assert config["n_ctx"] == config["n_positions"] == 32


@pytest.mark.slow
def test_a_run_that_fits_no_class_is_exported_and_told_why(tmp_path):
    page = tmp_path / "page.yaml"
    page.write_text(
        ALIBI.replace("vocab: 31", "vocab: 300") + "tokenizer: bpe\ndata: {text: corpus.txt}\n"
    )
    (tmp_path / "corpus.txt").write_text((ROOT / "docs/language.md").read_text("utf-8"), "utf-8")
    python(tmp_path, "-m", "builder", "train", "page.yaml", "train.steps=2", "train.batch=2")
    (run,) = (tmp_path / "runs").glob("*_small_*")
    done = python(tmp_path, "-m", "builder", "export", str(run), "out")
    assert done.stdout.startswith("RecipeForCausalLM in out")
    assert "warning[not-exportable]: LlamaForCausalLM but for" in done.stderr
    assert "Writing" not in done.stderr  # no bars of the library's
    assert "| data | `text` |" in parts(tmp_path / "out")[1]
