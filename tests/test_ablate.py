"""``ablate`` as a user runs it: its tables, its page, in company, stopped, and once more."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builder.__main__ import main
from builder.ablation.experiment import ablate
from builder.ablation.folder import home_of
from builder.ablation.outcome import Ask
from builder.ablation.report import page
from builder.ablation.tables import (
    COSTS,
    EFFECTS,
    costs,
    effects,
    jsonl,
    latex,
    markdown,
    plain,
    protected,
    sentences,
)
from builder.drawing.forest import Bar, forest
from builder.measure import measure
from builder.training.runs import open_run
from tests.ablations import settled
from tests.browser import browse, needs_chromium, rows_of
from tests.commands import ROOT
from tests.test_report import SHOWN, Reader

SWAP = "blocks.decoder.attention.position=rope,alibi,none"
GLU = "blocks.decoder.glu={mlp: {act: gelu}}"


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return settled(tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """An ablation of two crossed swaps with a sweep, whole; the folder it was made in is left."""
    folder = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        recipe = settled(folder, steps=4)
        swaps = ("blocks.decoder.attention.position=alibi", GLU)
        given = {"match": "params", "absorb": "dims.ff", "tolerance": 0.05, "lr_sweep": 3}
        ask = Ask((recipe,), (), swaps, True, seeds=(2,), **given)
        outcome = ablate(ask, tell=lambda text: None)
        PAGES[outcome.ask] = page(outcome)  # where its cells are
        return outcome


PAGES = {}


# What is told


def test_every_row_has_a_sentence_and_a_line_in_both_tables(found):
    names = ["position=alibi", "glu={mlp: {act: gelu}}", "position=alibi, glu={mlp: {act: gelu}}"]
    assert [row.name for row in found.rows] == names
    told = list(sentences(found))
    for name in names:
        assert sum(line.startswith((f"{name} is", f"{name}: ")) for line in told) >= 1
    assert any("sum of its parts" in line for line in told)
    assert any(line.startswith("The base against itself") for line in told)
    assert [line[0] for line in effects(found)] == names
    assert [line[0] for line in costs(found)] == ["base", *names]
    for heads, lines in ((EFFECTS, effects(found)), (COSTS, costs(found))):
        assert {len(line) for line in lines} == {len(heads)}
        assert len(plain(heads, lines).splitlines()) == len(lines) + 1


def test_costs_are_those_of_the_models_that_were_trained(found):
    for line, row in zip(costs(found)[1:], found.rows, strict=True):
        counted = measure(row.matched.variant.recipe)
        assert line[1] == f"{counted.parameters:,}"
        assert line[4] == f"{counted.per_token(counted.train):,}"
        assert line[6] == f"{4 * 4 * 24:,}"
        assert abs(row.matched.residual) <= 0.05


def test_tables_are_written_for_papers_and_machines(found):
    text = markdown(found)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows[: len(found.rows) + 2]} == {len(EFFECTS) + 1}
    tex = latex(found)
    assert tex.count("\\begin{tabular}") == tex.count("\\bottomrule") == 2
    assert "glu=\\{mlp: \\{act: gelu\\}\\}" in tex
    assert protected("a_b & 3 % ~^\\") == (
        r"a\_b \& 3 \% \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    lines = [json.loads(line) for line in jsonl(found).splitlines()]
    assert len(lines) == len(found.records)
    assert {line["use"] for line in lines} == {"report", "noise", "rate"}
    for line in lines:
        assert {"row", "seed", "lr", "status", "loss", "run", "command"} <= line.keys()
        assert shlex.split(line["command"])[:4] == ["python", "-m", "builder", "train"]


def test_a_notebook_shows_the_table(found):
    shown = found._repr_html_()
    assert Reader(shown).open == [] and shown.count("<tr>") == len(found.rows) + 1


def test_the_page_is_whole_and_fetches_nothing(found, tmp_path):
    text = PAGES[found.ask]
    read = Reader(text)
    assert read.open == [] and read.fetched == [] and read.figures == ["shown", "shown"]
    assert not re.search(r"url\(|@import|<script|<link", text)
    for part in (*sentences(found), found.base.variant.recipe.hash, "glu (ff 32, silu) → mlp"):
        assert part in text, part
    assert text.count('class="mean"') == 2 * len(found.rows)  # at both rates
    assert text.count('class="dot"') == 2 * 2 * len(found.rows)
    assert text.count("<polyline") == 2 * (1 + len(found.rows))  # losses, and rates
    assert 'class="band"' in text and all(row.name in text for row in found.rows)


def test_a_forest_plot_puts_each_seed_and_interval_in_its_place():
    drawn = forest([Bar("a", [-1.0, 1.0], 0.0, -2.0, 2.0, "s0")], "loss", (-0.5, 0.5), 0.1)
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', drawn)]
    (mean,) = (float(x) for x in re.findall(r'class="mean" x="([\d.]+)"', drawn))
    low, high = map(float, re.search(r'class="bar" d="M([\d.]+) \d+H([\d.]+)"', drawn).groups())
    assert low < dots[0] < mean + 4 < dots[1] < high
    assert dots[1] - dots[0] == pytest.approx((high - low) / 2, abs=0.2)
    assert forest([], "loss", (0, 0), 0) == ""
    endless = forest([Bar("a", [1.0], 1.0, float("-inf"), float("inf"), "s0")], "x", (0, 0), 0)
    assert "inf" not in re.sub(r"<title>.*?</title>", "", endless)


@pytest.mark.slow
@needs_chromium
def test_a_browser_draws_it_and_nothing_overflows(found, tmp_path):
    file, image = tmp_path / "page.html", tmp_path / "page.png"
    for size in ("1280,900", "400,900"):
        file.write_text(PAGES[found.ask].replace("</body>", f"{SHOWN}</body>"), "utf-8")
        dom = browse(tmp_path, f"--window-size={size}", "--dump-dom", f"file://{file}")
        told = json.loads(re.search(r'<pre id="out">(.*?)</pre>', dom)[1])
        assert told["text"] == ["shown", "shown"] and told["wide"] <= 0, size
    file.write_text(PAGES[found.ask], "utf-8")
    browse(tmp_path, f"--screenshot={image}", "--window-size=1280,2400", f"file://{file}")
    assert len(set(rows_of(image.read_bytes()))) > 16


# From the command line


def started(*words, **more):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_the_command_answers_and_writes_and_answers_again(path, capsys):
    words = ["ablate", "tiny.yaml", "--swap", SWAP, "--seeds", "2", "--lengths", "8,24"]
    assert main(words) == 0
    first = capsys.readouterr()
    home = Path(first.out.splitlines()[-1])
    assert {file.name for file in home.iterdir()} == {
        "report.html", "results.jsonl", "tables.md", "tables.tex",
    }  # fmt: skip
    assert "position=none" in first.out and "[1/6] base, seed 0, lr 0.01: loss" in first.err
    assert "loss@8" in (home / "results.jsonl").read_text()
    assert main(words) == 0  # all of it is there
    again = capsys.readouterr()
    assert again.out == first.out


def test_a_folder_of_one_s_own_and_whole_recipes(path, capsys):
    Path("other.yaml").write_text(path.read_text().replace("name: tiny", "name: other"))
    assert (
        main(["ablate", "tiny.yaml", "other.yaml", "dims.ff=40", "--run", "mine", "--seeds", "1"])
        == 0
    )
    assert "other: +0.0000 from one seed" in capsys.readouterr().out
    assert Path("mine/report.html").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error[usage]"),
        (["tiny.yaml"], "error[nothing-to-compare]"),
        (["tiny.yaml", "--swap", "dims.ff"], "error[not-an-assignment]"),
        (["tiny.yaml", "--swap", "dims.ff=48", "--match", "params"], "error[no-match]"),
        (["tiny.yaml", "--swap", "dims.ff=48", "--metric", "los"], "error[unknown-metric]"),
        (["tiny.yaml", "--swap", "dims.ff=48", "--budget", "soon"], "'soon' is no time"),
        (["tiny.yaml", "--swap", "dims.ff=48", "--budget", "0.01s"], "error[over-budget]"),
        (["tiny.yaml", "--swap", "dims.ff=48", "--lr-sweep", "1"], "1 is not 2 or more"),
        (["tiny.yaml", "--swap", "dims.ff=48", "train.eval_tokens=0"], "nothing-to-measure"),
        (["--claims", "none.yaml"], "error[cannot-read]"),
    ],
)
def test_what_cannot_be_asked_is_told(path, capsys, words, message):
    assert main(["ablate", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_ablation_goes_on_by_the_same_command(path):
    words = ["ablate", "tiny.yaml", "--swap", "dims.ff=40", "--seeds", "1", "train.steps=200"]
    process = started("builder", *words)
    while not list(Path("runs/cells").glob("*/metrics.jsonl")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "the same command goes on" in err
    left = next(Path("runs/cells").glob("*/metrics.jsonl")).parent
    saved = open_run(left).last("step")["step"]
    assert 0 < saved < 200
    process = started("builder", *words)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and "ff=40" in out, err
    steps = [e["step"] for e in open_run(left).metrics() if e["event"] == "step"]
    assert steps == list(range(1, 201))


@pytest.mark.slow
@pytest.mark.parametrize("company", ["jobs", "torchrun"])
def test_several_processes_share_an_ablation(path, company):
    words = ["ablate", "tiny.yaml", "--swap", SWAP, "--seeds", "3"]
    if company == "jobs":
        process = started("builder", *words, "--jobs", "2")
    else:
        given = ["--standalone", "--nproc-per-node", "2", "-m", "--"]
        process = started("torch.distributed.run", *given, "builder", *words)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.count("runs/tiny_ablation_") == 1
    results = list(Path("runs/cells").glob("*.json"))
    folders = [folder for folder in Path("runs/cells").iterdir() if folder.is_dir()]
    assert len(results) == len(folders) == 12  # three rows and the twins, three seeds


def test_a_job_script_holds_the_same_command(path, capsys, monkeypatch):
    words = ["ablate", "tiny.yaml", "--swap", GLU, "--launch"]
    for kind, line in (("torchrun", "exec torchrun"), ("slurm", "srun ")):
        monkeypatch.setattr(sys, "argv", ["builder", *words, kind])
        assert main([*words, kind]) == 0
        script = capsys.readouterr().out
        (command,) = [text for text in script.splitlines() if text.startswith(line)]
        assert shlex.split(command)[-4:] == ["ablate", "tiny.yaml", "--swap", GLU]
        assert f"cd {Path.cwd()}" in script
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_the_folder_is_of_the_question(found):
    other = Ask(found.ask.recipes, (), found.ask.swaps, seeds=(3,))
    assert found.ask.hash in str(home_of(found)) and other.hash != found.ask.hash
