from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given

from builder import load_recipe
from builder.__main__ import main
from builder.drawing.layout import MARGIN, SMALL, WORD, picture, text_width
from builder.drawing.mermaid import mermaid
from builder.drawing.svg import svg
from builder.drawing.view import view
from builder.graph import leaves
from builder.laws.strategies import recipes
from tests.browser import browse, needs_chromium, rows_of
from tests.commands import python

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"
DIMS = {"dim": 16, "heads": 2, "ff": 24, "vocab": 11, "context": 16, "experts": 4}
ATTENTION = {"residual": ["rmsnorm", {"attention": {"position": "rope"}}]}
GLU = {"residual": ["rmsnorm", "glu"]}


def page(*layers, times=1, name="toy"):
    model = ["token_embedding", {"repeat": times, "pattern": list(layers)}, "rmsnorm", "lm_head"]
    return {"recipe": 1, "name": name, "dims": DIMS, "model": model}


PAGES = {
    "pre-norm": page([ATTENTION, GLU], times=12),
    "post-norm": page([{"residual": "attention"}, "rmsnorm", {"residual": "glu"}, "rmsnorm"]),
    "sandwich": page([{"residual": ["rmsnorm", "attention", "rmsnorm"]}, GLU], times=2),
    "parallel": page({"residual": {"parallel": [["rmsnorm", "attention"], ["rmsnorm", "mlp"]]}}),
    "three": page({"parallel": ["attention", "glu", {"scale": 0.5}]}, times=3),
    "moe": page([ATTENTION, {"residual": ["rmsnorm", {"parallel": ["moe", "glu"]}]}], GLU, times=4),
    "joined": page([{"lerp": ["attention", "rmsnorm"]}, {"hyper": ["rmsnorm", "glu"]}], times=2),
    "borrowed": page(
        {"residual": {"attention": {}, "as": "m"}},
        {"residual": {"attention": {"kv_from": "m"}}},
        times=3,
    ),
    "walled": page(
        {"residual": {"parallel": [{"attention": {}, "as": "m"}, "glu"]}},
        {"residual": {"attention": {"value_from": "m"}}},
        times=3,
    ),
    "mixed": page(
        *({"residual": {"glu": {"ff": 8 * n}}, "as": "depth"} for n in (1, 2, 3, 4)),
        [{"mix": "depth"}, GLU],
    ),
}  # fmt: skip


def shown(given):
    return view(load_recipe(given))


def every(boxes):
    for box in boxes:
        yield box
        yield from every(box.children)


def words_of(recipe):
    return {leaf.word for leaf in leaves(recipe.graph)}


# The layout


def overlap(a, b):
    return a.x < b.right and b.x < a.right and a.y < b.top and b.y < a.top


def within(inner, outer):
    slack = 1e-6  # sums of halves, rounded
    return (
        outer.x - slack <= inner.x
        and inner.right <= outer.right + slack
        and outer.y - slack <= inner.y
        and inner.top <= outer.top + slack
    )


def assert_well_laid(drawn):
    levels = [drawn.boxes, *(box.children for box in every(drawn.boxes))]
    for level in levels:
        assert not [(a, b) for a, b in combinations(level, 2) if overlap(a, b)]
    for box in every(drawn.boxes):
        assert all(within(child, box) for child in box.children)
        room = box.width - (0 if box.look == "text" else 2 * MARGIN) + 1e-6
        assert not box.word or text_width(box.word, WORD) <= room
        assert all(text_width(line, SMALL) <= room for line in box.details)
        assert box.x >= 0 and box.right <= drawn.width and box.y >= 0 and box.top <= drawn.height
    for wire in drawn.wires:
        for (x, y), (next_x, next_y) in pairwise(wire.points):
            assert x == pytest.approx(next_x) or y == pytest.approx(next_y)
            assert 0 <= x <= drawn.width and 0 <= y <= drawn.height


@pytest.mark.slow
@given(recipes())
def test_boxes_lie_apart_in_their_frames_and_hold_their_text(recipe):
    assert_well_laid(picture(view(recipe)))


@pytest.mark.parametrize("given", PAGES.values(), ids=PAGES)
def test_each_topology_is_well_laid_and_its_lines_avoid_the_boxes(given):
    drawn = picture(shown(given))
    assert_well_laid(drawn)
    solid = [box for box in every(drawn.boxes) if not box.children and box.look != "tap"]
    for wire in drawn.wires:
        for ends in pairwise(wire.points):
            assert not [box for box in solid if crosses(*ends, box)], (ends, wire)


def crosses(start, end, box):
    """Whether a line runs through a box, and not only up to it."""
    inset = 0.01
    xs, ys = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return (
        xs[0] < box.right - inset
        and xs[1] > box.x + inset
        and ys[0] < box.top - inset
        and ys[1] > box.y + inset
    )


def test_the_stream_runs_from_the_tokens_up():
    boxes = {box.word: box for box in every(picture(shown(PAGES["pre-norm"])).boxes) if box.word}
    order = ["tokens", "token_embedding", "attention", "glu", "lm_head", "logits"]
    assert [boxes[word].y for word in order] == sorted(boxes[word].y for word in order)


def test_branches_stand_side_by_side():
    boxes = {box.word: box for box in every(picture(shown(PAGES["three"])).boxes)}
    first, second, third = boxes["attention"], boxes["glu"], boxes["scale 0.5"]
    assert first.right < second.x and second.right < third.x
    assert overlap(first, move(second, first)) and overlap(first, move(third, first))


def move(box, onto):
    return type(box)(onto.x, box.y, box.width, box.height, box.look)


def test_alike_layers_stand_once_with_how_often():
    drawn = picture(shown(PAGES["pre-norm"]))
    assert sum(box.word == "attention" for box in every(drawn.boxes)) == 1
    assert sum(box.word == "× 12" for box in every(drawn.boxes)) == 1


def test_each_addition_is_one_circle():
    looks = [box.look for box in every(picture(shown(PAGES["pre-norm"])).boxes)]
    assert looks.count("sum") == 2
    looks = [box.look for box in every(picture(shown(PAGES["parallel"])).boxes)]
    assert looks.count("sum") == 1  # what goes round comes to the same one


# What is read across depth


def dashed(drawn):
    return [wire for wire in drawn.wires if wire.dashed]


def texts(drawn):
    return [line for box in every(drawn.boxes) for line in (box.word, *box.details)]


def test_what_is_read_has_a_dashed_line_to_its_reader():
    drawn = picture(shown(PAGES["borrowed"]))
    (line,) = dashed(drawn)
    source, reader = [box for box in every(drawn.boxes) if box.word == "attention"]
    assert source.right == line.points[0][0] and source.y < line.points[0][1] < source.top
    assert reader.right == line.points[-1][0] and reader.y < line.points[-1][1] < reader.top
    assert any("kv_from" in text for text in texts(drawn))


def test_where_a_line_would_cross_a_box_both_ends_have_a_number():
    drawn = picture(shown(PAGES["walled"]))
    assert not dashed(drawn)
    assert any("as 1" in text for text in texts(drawn))
    assert any("value_from 1" in text for text in texts(drawn))


def test_a_leaf_that_reads_many_names_them_by_numbers():
    drawn = picture(shown(PAGES["mixed"]))
    assert not dashed(drawn)
    assert "mix 1-3" in texts(drawn)


def test_a_picture_without_references_has_no_dashed_line():
    assert not dashed(picture(shown(PAGES["moe"])))


# Captions


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        ({"attention": {}}, "heads 2 · causal"),
        ({"attention": {"kv_heads": 1}}, "heads 2 · kv_heads 1 · causal"),
        ({"attention": {"mask": {"sliding_window": 4}}}, "heads 2 · sliding_window 4"),
        ({"attention": {"qk_norm": "rmsnorm"}}, "heads 2 · causal · qk_norm rmsnorm"),
        ({"attention": {"bias": True}}, "heads 2 · causal · bias"),
        ({"glu": {"act": "relu"}}, "ff 24 · relu"),
        ({"mlp": {"bias": False, "ff": 64}}, "ff 64 · gelu · no bias"),  # though 4 * dim is 64
        ({"layernorm": {"eps": 1e-6}}, "eps 1e-6"),
    ],
)
def test_a_caption_tells_what_matters(leaf, expected):
    drawn = picture(shown(page({"residual": leaf})))
    (word,) = leaf
    box = next(box for box in every(drawn.boxes) if box.word == word)
    assert " · ".join(box.details) == expected


def test_shared_weights_are_said_once_for_the_frame():
    given = page([ATTENTION, GLU], times=4)
    given["model"][1]["share"] = True
    assert texts(picture(shown(given))).count("shared weights") == 1


def test_a_block_shared_among_others_says_so_itself():
    given = page(["glu"], "attention", times=3)
    given["blocks"] = {"whole": ["rmsnorm", "attention"]}
    given["model"][1] |= {"pattern": ["glu", "whole"], "share": "whole"}
    drawn = picture(shown(given))
    box = next(box for box in every(drawn.boxes) if box.word == "attention")
    assert "shared weights" in " · ".join(box.details)
    assert texts(drawn).count("shared weights") <= 1


def test_a_layer_that_stands_alone_says_which_it_is():
    given = page("glu", "glu", "attention")
    assert {"layers 0-1", "layer 2"} <= set(texts(picture(shown(given))))


# SVG


@pytest.mark.slow
@given(recipes())
def test_svg_is_well_formed_and_has_every_word(recipe):
    root = ElementTree.fromstring(svg(view(recipe)).encode())
    told = " ".join(element.text or "" for element in root.iter(f"{SVG}text"))
    assert words_of(recipe) <= set(re.findall(r"[\w]+", told))
    assert root.find(f"{SVG}title").text == recipe.name


def test_svg_is_shapes_and_text_alone():
    root = ElementTree.fromstring(svg(shown(PAGES["moe"])).encode())
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "rect", "circle", "path", "text"}
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"


@pytest.mark.parametrize("name", ["<b> & \"c\" 'd'", "a\x07b\ttab", "模型 é", "x" * 300])
def test_any_name_gives_a_well_formed_picture(name):
    given = page("glu", name=name)
    ElementTree.fromstring(svg(shown(given)).encode())
    assert_well_laid(picture(shown(given)))


# Mermaid

LINES = re.compile(
    r"""(?: %%.* | flowchart\ BT | subgraph\ n\d+\ \["[^"]*"\] | end
    | n\d+(?: \["[^"]+"\]:::\w+ | \(\["\w+"\]\) | \(\("\+"\)\))
    | n\d+\ (?: --> | -\.-> (?: \|\w+\| )? )\ n\d+
    | classDef\ \w+\ [\w:#,]+ )$""",
    re.VERBOSE,
)


@pytest.mark.slow
@given(recipes())
def test_mermaid_is_well_formed_and_has_every_word(recipe):
    assert_flowchart(mermaid(view(recipe)))
    assert words_of(recipe) <= set(re.findall(r"\w+", mermaid(view(recipe))))


@pytest.mark.parametrize("given", PAGES.values(), ids=PAGES)
def test_each_topology_is_a_flowchart(given):
    assert_flowchart(mermaid(shown(given)))


def assert_flowchart(text):
    lines = [line.strip() for line in text.splitlines()]
    assert not [line for line in lines if not LINES.match(line)]
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end")
    declared = {line.partition("[")[0].partition("(")[0] for line in lines if line[:1] == "n"}
    arrows = [re.split(r" -\S+ ", line) for line in lines if re.match(r"n\d+ -", line)]
    assert {end for arrow in arrows for end in arrow} <= declared
    reached = {after for _, after in arrows}
    nodes = {
        line.partition("[")[0].partition("(")[0] for line in lines if re.match(r"n\d+[\[(]", line)
    }
    assert nodes - reached == {"n1"}, "every node but the tokens is reached"


def test_a_quoted_label_holds_no_quotes():
    assert '"' not in mermaid(shown(page("glu", name='a "b"'))).partition("\n")[0]


# The verb


def test_diagram_writes_what_it_prints(capsys, tmp_path):
    recipe, out = str(ROOT / "recipes/llama.yaml"), tmp_path / "llama.svg"
    assert main(["diagram", recipe]) == 0
    printed = capsys.readouterr().out
    assert main(["diagram", recipe, "--out", str(out)]) == 0
    assert out.read_text("utf-8") == printed and printed.startswith("<?xml")


def test_an_override_is_drawn(capsys):
    main(["diagram", str(ROOT / "recipes/llama.yaml"), "model.repeat=7", "--format", "mermaid"])
    assert "× 7" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_a_named_error(capsys, tmp_path):
    recipe = str(ROOT / "recipes/llama.yaml")
    assert main(["diagram", recipe, "--out", str(tmp_path / "no" / "x.svg")]) == 2
    assert "error[cannot-write]" in capsys.readouterr().err


def test_drawing_loads_no_torch():
    code = "import sys; from builder.__main__ import main; main(sys.argv[1:])"
    code += "; assert 'torch' not in sys.modules"
    done = python(ROOT, "-c", code, "diagram", "recipes/llama.yaml")
    assert done.returncode == 0, done.stderr


# In a browser

MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body>SVG<pre id="out"></pre><script>
const rects = [...document.querySelectorAll("rect")].map(r => r.getBBox());
const holds = (r, x, y) => r.x <= x && x <= r.x + r.width && r.y <= y && y <= r.y + r.height;
const rows = [...document.querySelectorAll("text")].map(t => {
  const b = t.getBBox(), x = b.x + b.width / 2, y = b.y + b.height / 2;
  const box = rects.filter(r => holds(r, x, y)).sort((p, q) => p.width - q.width)[0];
  return {text: t.textContent, over: Math.max(box.x - b.x, b.x + b.width - box.x - box.width),
          above: Math.max(box.y - b.y, b.y + b.height - box.y - box.height)};
});
document.getElementById("out").textContent = JSON.stringify(rows);
</script>"""


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("name", ["pre-norm", "moe", "joined", "walled"])
def test_a_browser_sets_every_text_inside_its_box(name, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(MEASURE.replace("SVG", svg(shown(PAGES[name])).partition("\n")[2]), "utf-8")
    dom = browse(tmp_path, "--dump-dom", f"file://{file}")
    rows = json.loads(re.search(r'<pre id="out">(.*?)</pre>', dom)[1].replace("&amp;", "&"))
    assert len(rows) > 10
    assert not [row for row in rows if row["over"] > 0 or row["above"] > 1]


@pytest.mark.slow
@needs_chromium
def test_a_browser_draws_the_file_and_it_is_not_blank(tmp_path):
    file, image = tmp_path / "moe.svg", tmp_path / "moe.png"
    file.write_text(svg(shown(PAGES["moe"])), "utf-8")
    browse(tmp_path, f"--screenshot={image}", "--window-size=400,900", f"file://{file}")
    assert len(set(rows_of(image.read_bytes()))) > 16
