"""Each recipe of the gallery is checked, explained, built, trained a little, and read out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import build, load_recipe
from builder.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
GALLERY = sorted(ROOT.glob("recipes/gallery/*.yaml"))
WANTED = """
    sandwich parallel macaron albert universal local_global nope_hybrid mqa attention_only
    kv_sharing value_residual unet moe_every_fourth deepnorm qk_norm soft_capped tied untied
    mixed_heads shortcut_moe canon
"""
TEXT = "To be, or not to be, that is the question. Быть или не быть, вот в чём вопрос.\n" * 40
SHORT = ["tokenizer=bytes", "data={text: text.txt}", "dims.vocab=257", "dims.context=64"]
FEW = "train={steps: 4, batch: 2, log_every: 1, eval_tokens: 64, sample_tokens: 0}"


def test_the_gallery_holds_what_it_promises():
    assert set(WANTED.split()) <= {path.stem for path in GALLERY}


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_recipe_says_its_paper_and_fits_a_page(path):
    lines = path.read_text().splitlines()
    comment = " ".join(line for line in lines if line.startswith("#"))
    assert "arXiv:" in comment or "20" in comment, comment
    assert len(lines) <= 25


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_recipe_is_of_laptop_size(path):
    model = build(load_recipe(path), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) < 4_000_000


@pytest.mark.slow
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_recipe_is_explained_trained_and_read_out(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    assert main(["validate", str(path)]) == 0
    assert main(["explain", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.partition("ok\n")[2])
    real = sum(parameter.numel() for parameter in build(load_recipe(path)).parameters())
    assert told["totals"]["parameters"] == real
    assert main(["train", str(path), *SHORT, FEW, "--run", "run"]) == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) >= 4 and losses[-1] < losses[0]
    assert main(["generate", "run", "To be", "--max-new-tokens", "4", "--greedy"]) == 0
