"""A report is one page that needs nothing else, and tells what a run logged."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.__main__ import main
from builder.drawing.chart import POINTS, Axis, Line, chart, short, thinned
from builder.training.loop import train
from builder.training.report import page, smoothed
from builder.training.runs import Run, open_run
from tests.browser import browse, needs_chromium, rows_of
from tests.tiny_runs import recipe_of, text_of

FINITE = st.floats(-1e12, 1e12)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(text_of(0), encoding="utf-8")
        Path("other.txt").write_text(text_of(1), encoding="utf-8")
        recipe = recipe_of(steps=40, eval_sets={"other <b>": {"text": "other.txt"}})
        made = train(recipe, Path("runs/made"))
        log = made.path / "metrics.jsonl"
        spike = {"event": "spike", "step": 31, "loss": 9.5, "usual": 5.1, "samples": [4, 7]}
        log.write_text(log.read_text() + json.dumps(spike) + "\n")
    return Run(folder / "runs/made")


class Reader(HTMLParser):
    """Which tags stay open, and what is fetched from elsewhere."""

    VOID = {"meta", "input", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.figures = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.fetched += [v for k, v in attrs if k in ("src", "href", "data", "srcset")]
        if tag == "figure":
            self.figures.append(given["class"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(run):
    text = page([run])
    read = Reader(text)
    assert read.open == [] and read.fetched == []
    assert not re.search(r"url\(|@import|<script|<link", text)
    assert len(text.encode()) < 2_000_000
    assert read.figures == ["by-steps", "by-tokens", "by-FLOPs", "by-time"] * 5


def test_the_page_tells_what_the_run_logged(run):
    text = page([run])
    last = run.last("validation")
    steps = [e for e in run.metrics() if e["event"] == "step"]
    for told in (f"{steps[-1]['loss']:.4f} nats", "40 of 40", f"{40 * 4 * 24:,}", run.recipe.hash):
        assert told in text, told
    assert f"{last['bits_per_byte']:.4f} bits per byte" in text
    assert "step 31: spike" in text and "samples [4, 7]" in text
    assert text.count("<summary>step ") == sum(e["event"] == "sample" for e in run.metrics())
    assert "other &lt;b&gt;" in text and "other <b>" not in text
    assert "rmsnorm" in text and "<svg" in text


def test_a_run_that_has_only_begun_has_a_report(run, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("recipe.yaml", "resolved.yaml", "environment.json"):
        (begun / name).write_bytes((run.path / name).read_bytes())
    text = page([open_run(begun)])
    assert Reader(text).open == [] and "none yet" in text


def test_several_runs_share_their_charts(run, capsys, tmp_path):
    assert main(["report", str(run.path), str(run.path), "--out", str(tmp_path / "two.html")]) == 0
    text = (tmp_path / "two.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "two.html")
    assert Reader(text).figures == ["by-steps", "by-tokens", "by-FLOPs", "by-time"] * 5
    assert text.count("<h1>") == 2 and 'class="s1"' in text


def test_it_is_written_into_the_run_and_replaced(run):
    for _ in range(2):
        assert main(["report", str(run.path)]) == 0
    assert (run.path / "report.html").stat().st_size > 10_000


# Charts


@given(st.lists(FINITE, min_size=1, max_size=900), st.data())
def test_thinning_keeps_the_ends_of_every_stretch_in_order(ys, data):
    points = [(float(n), y) for n, y in enumerate(ys)]
    kept = thinned(points)
    assert len(kept) <= max(POINTS, 1) and kept == sorted(kept)
    assert set(kept) <= set(points)
    assert min(ys) in {y for _, y in kept} and max(ys) in {y for _, y in kept}


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_every_point_lies_within_its_axis_and_ticks_are_round(values):
    axis = Axis.over(values, 0.0, 100.0)
    assert all(-1e-6 <= axis.at(value) <= 100 + 1e-6 for value in values)
    ticks = axis.ticks(5)
    assert len(ticks) <= 6
    assert all(a < b for a, b in pairwise(ticks))


def test_a_line_goes_through_its_points():
    drawn = chart([Line("loss", [0, 10], [1, 3], "s0")], "steps", "loss")
    ((x0, y0), (x1, y1)) = [
        tuple(map(float, pair.split(",")))
        for pair in re.search(r'points="([^"]+)"', drawn)[1].split()
    ]
    assert x0 < x1 and y0 > y1, "up is towards smaller y"


def test_nothing_to_draw_is_no_chart():
    assert chart([Line("loss", [], [], "s0")], "steps", "loss") == ""


@given(st.lists(FINITE, min_size=1, max_size=200))
def test_a_smooth_line_is_the_mean_of_as_many_to_each_side(values):
    found = smoothed(values)
    most = max(1, round(0.02 * len(values)))
    for n, value in enumerate(found):
        reach = min(most, n, len(values) - 1 - n)
        part = values[n - reach : n + reach + 1]
        assert value == pytest.approx(sum(part) / len(part), rel=1e-9, abs=1e-2)


@pytest.mark.parametrize(
    ("value", "text"), [(1_500_000, "1.5M"), (0, "0"), (2e-5, "2e-05"), (1e3, "1k"), (-2e9, "-2G")]
)
def test_numbers_of_an_axis_are_short(value, text):
    assert short(value) == text


# In a browser

SHOWN = """<script>
const text = [...document.querySelectorAll("figure")].filter(f => f.offsetParent !== null)
  .map(f => f.className);
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const colours = ["body", "h1"].map(s => getComputedStyle(document.querySelector(s)).color);
const paper = getComputedStyle(document.body).backgroundColor;
document.body.innerHTML = "<pre id=out></pre>";
document.getElementById("out").textContent = JSON.stringify({text, wide, colours, paper});
</script>"""


def measured(folder, run, *words, chosen="steps"):
    text = (
        page([run])
        .replace(" checked", "")
        .replace(f'id="by-{chosen}"', f'id="by-{chosen}" checked')
    )
    file = folder / "page.html"
    file.write_text(text.replace("</body>", f"{SHOWN}</body>"), "utf-8")
    dom = browse(folder, *words, "--dump-dom", f"file://{file}")
    return json.loads(re.search(r'<pre id="out">(.*?)</pre>', dom)[1])


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("axis", ["steps", "tokens", "FLOPs", "time"])
def test_a_browser_shows_the_charts_of_the_chosen_axis_and_nothing_overflows(run, tmp_path, axis):
    for size in ("1280,900", "400,900"):
        found = measured(tmp_path, run, f"--window-size={size}", chosen=axis)
        assert found["text"] == [f"by-{axis}"] * 5
        assert found["wide"] <= 0, f"at {size}"


@pytest.mark.slow
@needs_chromium
def test_a_browser_shows_it_light_and_dark(run, tmp_path):
    light = measured(tmp_path, run)
    dark = measured(tmp_path, run, "--blink-settings=preferredColorScheme=0")
    assert light["paper"] == "rgb(255, 255, 255)" and dark["paper"] == "rgb(21, 23, 26)"
    assert light["colours"] != dark["colours"]


@pytest.mark.slow
@needs_chromium
def test_a_browser_draws_it_and_it_is_not_blank(run, tmp_path):
    file, image = tmp_path / "page.html", tmp_path / "page.png"
    file.write_text(page([run]), "utf-8")
    browse(tmp_path, f"--screenshot={image}", "--window-size=1280,2400", f"file://{file}")
    assert len(set(rows_of(image.read_bytes()))) > 16
