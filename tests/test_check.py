"""``check`` names the law that a recipe breaks, the leaf, its place, and the smallest input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import load_recipe
from builder.__main__ import main
from builder.laws import LAWS
from builder.laws.authors import registered_meanwhile
from builder.laws.examine import Examination
from builder.laws.report import as_json
from builder.laws.twin import twin
from tests.broken_blocks import BROKEN, LAW, write_page, write_plugin
from tests.commands import ROOT, python

SHIPPED = sorted(ROOT.glob("recipes/*.yaml"))
OTHERS = sorted([*ROOT.glob("recipes/gallery/*.yaml"), *ROOT.glob("recipes/published/*.yaml")])
LARGE = ROOT / "recipes/published/llama2-70b.yaml"


def check(capsys, page: Path, *words: str, plugin: Path | None = None) -> tuple[int, str]:
    """The exit code of ``check``, and what it prints."""
    given = ["--plugin", str(plugin)] if plugin else []
    with registered_meanwhile([plugin] if plugin else []):
        code = main(["check", str(page), *given, *words])
    return code, capsys.readouterr().out


def rows(out: str) -> dict[str, dict]:
    return {row["law"]: row for row in json.loads(out)["laws"]}


@pytest.mark.slow
@pytest.mark.parametrize("word", BROKEN)
def test_a_broken_block_is_named_with_its_law_its_place_and_its_input(word, tmp_path, capsys):
    page, plugin = write_page(tmp_path, word), write_plugin(tmp_path, word)
    code, out = check(capsys, page, "--json", plugin=plugin)
    row = rows(out)[LAW[word]]
    assert code == 1 and not json.loads(out)["holds"] and not row["holds"]
    assert (row["file"], row["line"], row["column"]) == (str(page), 8, 27)
    if word != "idle":  # an option is of the word, and not of one leaf
        assert row["leaf"] == f"layers.0.{word}"
    else:
        assert row["says"].startswith("twice of idle: no legal change alters")
    if word == "rooted":  # whatever a law names, what is no number began there
        failed = [row for row in rows(out).values() if not row["holds"]]
        assert {row["leaf"] for row in failed} == {"layers.0.rooted"}
    fewest = {"leaky": 2, "forgetful": 2, "idle": 0, "raising": 0, "unlearnt": 2}.get(word, 1)
    # Alone, a token scores only itself: to queries flows nothing, or what a processor rounds it to.
    assert row["tokens"] == fewest or (word, row["tokens"]) == ("unlearnt", 1)


def test_what_is_told_is_a_line_a_law_and_the_place_of_what_is_broken(tmp_path, capsys):
    page, plugin = write_page(tmp_path, "raising"), write_plugin(tmp_path, "raising")
    code, out = check(capsys, page, plugin=plugin)
    head, *lines = out.splitlines()
    assert code == 1
    assert head == "raising as a twin: 64 of 100 words, 40 of 64 positions; seeds 0, 1, 2, 3, 4"
    titles = [name.replace("_", " ") for name in LAWS]
    told = [line for line in lines if any(line.startswith(f"{title}  ") for title in titles)]
    assert len(told) == len(LAWS)
    at = 1 + plugin.read_text().splitlines().index("        return x @ torch.zeros(3, 3)")
    assert lines[1].startswith(f"{page}:8:27: error[has_right_shapes]: RuntimeError: ")
    assert lines[1].endswith(f", raised at {plugin}:{at}")
    assert lines[2:5] == [
        "   8 |     - residual: [rmsnorm, raising]",
        "     |                           ^^^^^^^",
        "   in layers.0.raising",
    ]
    assert lines[5].split("  ")[-1].strip() == "broken, as 'has right shapes' is"
    assert sum("error[" in line for line in lines) == 1  # one fault is told once


@pytest.mark.slow
def test_the_layer_that_is_named_is_the_recipes_own_and_not_the_twins(tmp_path, capsys):
    page, plugin = write_page(tmp_path, "leaky"), write_plugin(tmp_path, "leaky")
    text = page.read_text().replace("{repeat: 2, block: decoder}", "{repeat: 1, pattern: PATTERN}")
    page.write_text(
        text.replace("    - residual: [rmsnorm, leaky]\n", "  last: leaky\n").replace(
            "PATTERN", '["decoder*9", last]'
        )
    )
    code, out = check(capsys, page, "--json", plugin=plugin)
    row = rows(out)["is_causal_by_value"]
    assert code == 1 and "3 of 10 layers" in json.loads(out)["twin"]
    assert row["leaf"] == "layers.9.leaky" and "layers.9.leaky" in row["says"]
    assert row["line"] == 8


@pytest.mark.slow
def test_an_honest_block_breaks_nothing(tmp_path, capsys):
    page, plugin = write_page(tmp_path, "squash"), write_plugin(tmp_path, "squash")
    code, out = check(capsys, page, "--json", plugin=plugin)
    assert code == 0 and json.loads(out)["holds"]
    assert list(rows(out)) == list(LAWS)
    assert all(row["holds"] and 0 <= row["error"] < 1 for row in rows(out).values())


@pytest.mark.slow
@pytest.mark.parametrize("page", [*SHIPPED, LARGE], ids=lambda path: path.stem)
def test_a_shipped_recipe_keeps_every_law(page, capsys):
    code, out = check(capsys, page)
    assert code == 0 and out.count("  ok  ") == len(LAWS) - (page == LARGE)
    assert ("not asked: it would draw all 68,976,648,192 weights" in out) == (page == LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=lambda path: path.stem)
def test_every_other_recipe_keeps_every_law(page):
    """By the first of the seeds of `check`, which asks with five of them what these pages take."""
    one = Examination(twin(load_recipe(page)), seeds=[0])
    assert not [answer for answer in one.answers() if answer.failure]


@pytest.mark.slow
def test_the_seed_draws_other_weights(capsys):
    first, other = (check(capsys, SHIPPED[0], "--json", "--seed", n)[1] for n in ("0", "7"))
    assert json.loads(other)["seeds"] == [7, 8, 9, 10, 11]
    errors = [[row["error"] for row in rows(out).values()] for out in (first, other)]
    assert errors[0] != errors[1]


def test_a_page_that_is_no_recipe_is_refused_as_by_other_verbs(tmp_path, capsys):
    page = write_page(tmp_path, "glue")
    assert main(["check", str(page)]) == 2
    assert "glue.yaml:8:27: error[unknown-word]: 'glue'" in capsys.readouterr().err


def test_help_of_check_imports_no_torch(tmp_path):
    probe = (
        "import sys; from builder.__main__ import main; code = main(['check', '--help']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = python(tmp_path, "-c", probe)
    assert done.returncode == 0, done.stderr
    assert "--plugin FILE" in done.stdout


def test_what_reads_the_length_of_a_text_says_up_to_where_laws_of_caches_hold():
    text = (ROOT / "recipes/llama.yaml").read_text("utf-8")
    assert Examination.of(load_recipe(text)).limits == ""
    scaled = "{rope: {scaling: {dynamic: {factor: 2.0, original: 64}}}}"
    one = Examination.of(load_recipe(text.replace("position: rope", f"position: {scaled}")))
    assert "past 64 tokens, in parts and at once differ" in one.limits
    assert as_json(Path("page.yaml"), one, [])["reads_length"] == 64
