"""The page that ``explain`` prints, and the same as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given

from builder import load_recipe
from builder.__main__ import main
from builder.explain import PAGE, as_json, page
from builder.graph import leaves
from builder.index import load_index
from builder.laws import recipes
from builder.measure import measure
from tests.commands import python

ROOT = Path(__file__).resolve().parent.parent
DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 24}
FULL = {"residual": ["rmsnorm", "attention"]}
LOCAL = {"like": "full", "set": {"attention.mask": {"sliding_window": 4}}}


def recipe_of(*model, **blocks):
    page = {"recipe": 1, "name": "ours", "dims": DIMS, "blocks": blocks, "model": list(model)}
    return load_recipe(page)


def page_of(recipe, **given):
    return page(recipe, measure(recipe, **given))


def row(text, name):
    """The cells of the first line that begins with a name."""
    line = next(line for line in text.splitlines() if line.strip(" +").startswith(name))
    return re.split(r"\s{2,}", line.strip())


def tree(text):
    """The left of the table, above the totals."""
    lines = text.partition("\nin all")[0].splitlines()[4:]
    return [line[:36].rstrip() for line in lines]


@pytest.fixture(scope="module")
def llama():
    return page_of(load_recipe(ROOT / "recipes/llama.yaml"))


# The page


def test_page_of_llama_reads_top_to_bottom(llama):
    assert [line for line in tree(llama) if ":" not in line] == [
        "token_embedding",
        "layers 0-3, 4 ×",
        "  residual",
        "    rmsnorm_before_attention",
        "    attention",
        "  residual",
        "    rmsnorm_before_glu",
        "    glu",
        "rmsnorm_after_layers",
        "lm_head",
    ]
    assert llama.startswith("llama: 4 layers, vocab 2048, context 128, hash a629054836bb\n")


def test_rows_tell_widths_parameters_flops_and_cache(llama):
    attention = ["160 → 160", "102,400", "286.7 k", "286.7 k", "860.2 k", "1.28 k"]
    assert row(llama, "attention")[1:] == attention
    assert row(llama, "token_embedding")[1:] == ["ids → 160", "327,680", "–", "–", "–", "–"]
    assert row(llama, "lm_head")[1] == "160 → 2048"


def test_a_row_of_layers_sums_them_up(llama):
    assert row(llama, "layers 0-3")[1:4] == ["1,271,040", "2.867 M", "2.867 M"]
    assert row(llama, "in all")[1] == "1,926,560"


def test_options_stand_below_their_leaf_unless_they_are_defaults(llama):
    assert "      heads: 4, position: rope\n" in llama
    assert "act" not in llama.partition("in all")[0]  # silu, which is the default


def test_totals_are_told_in_full_and_say_what_they_are_of(llama):
    for line in (
        "3,522,560  prefill: a forward over 128 tokens",
        "10,567,680  train: forward and backward over 128",
        "5,120  a token in fp32, before any window is full",
        "655,360  a sequence of 128",
        "655,360  embedding: of what reads tokens and gives logits",
        "15,412,636  optimizer: adamw",
        "8,865,288  activations of 1 × 128 tokens, computed in fp32",
    ):
        assert line in llama


def test_each_block_stands_once_with_its_formula_source_and_line(llama):
    assert llama.count("\nrmsnorm, blocks/rmsnorm.py:") == 1
    entry = load_index().node("glu")
    assert (
        f"glu, blocks/glu.py:{entry.line}\n"
        "  Gated feed-forward: down(act(gate(x)) * up(x)).\n"
        "  Shazeer 2020, arXiv:2002.05202, section 2." in llama
    )
    assert "\nsilu, blocks/act.py:" in llama and "\nrope, blocks/rope.py:" in llama


def test_folded_layers_nest():
    model = ["token_embedding", {"layers": 8, "pattern": ["local*2", "full"],
             "remainder": "truncate"}, "lm_head"]  # fmt: skip
    text = page_of(recipe_of(*model, full=FULL, local=LOCAL))
    heads = [line for line in tree(text) if line.strip().startswith("layer")]
    assert heads == [
        "layers 0-5, 2 × 3 layers",
        "  layers 0-1, 2 ×",
        "  layer 2",
        "layers 6-7, 2 ×",
    ]
    assert [row(text, head.strip())[1] for head in heads] == ["1,584", "528", "264", "528"]


def test_branches_stand_side_by_side_and_a_joiner_above_its_body():
    parallel = {"residual": {"parallel": [["rmsnorm", "attention"], "mlp"]}}
    joined = {"lerp": ["glu", "rmsnorm"]}
    text = page_of(recipe_of("token_embedding", parallel, joined, "lm_head"))
    assert [line for line in tree(text) if ":" not in line] == [
        "token_embedding",
        "layer 0",
        "  residual",
        "    parallel",
        "    + rmsnorm_before_attention",
        "      attention",
        "    + mlp",
        "  lerp_around_glu",
        "    glu",
        "    rmsnorm_after_glu",
        "lm_head",
    ]


def test_references_name_what_they_read():
    text = page_of(
        recipe_of(
            {"token_embedding": {}, "as": "start"},
            {"attention": {}, "as": "memory"},
            {"attention": {"kv_from": "memory"}},
            {"add": "start"},
            "lm_head",
        )
    )
    assert "tap 0, read further on\n" in text
    assert "  source: tap 0\n" in text
    assert "kv_from: layers.0.attention\n" in text


def test_an_expert_is_an_option_of_its_mixture():
    moe = {"moe": {"experts": 4, "expert": ["rmsnorm", {"glu": {"bias": True}}]}}
    text = page_of(recipe_of("token_embedding", moe, "lm_head"))
    assert "  experts: 4, expert: [rmsnorm, {glu: {ff: 6, bias: true}}]\n" in text


def test_shared_weights_and_memories_that_do_not_grow_are_said():
    shared = {"repeat": 3, "block": {"residual": "gated_delta"}, "share": True}
    text = page_of(recipe_of("token_embedding", shared, "lm_head"))
    assert "one set of weights in 3 places\n" in text
    assert re.search(r"remembers [\d,]+ B a sequence, however long\n", text)


# Any page, and JSON


@pytest.mark.slow
@given(recipe=recipes())
def test_page_and_json_of_every_recipe_name_each_leaf(recipe):
    """The page in its width, the nodes of JSON so that they sum up to the totals."""
    costs = measure(recipe, 5)
    text, data = page(recipe, costs), json.loads(json.dumps(as_json(recipe, costs)))
    assert all(len(line) <= PAGE for line in text.splitlines())
    assert f"{costs.parameters:,}  in all" in text
    shown = {line.strip(" +").partition(" ")[0] for line in text.splitlines()}
    assert {re.sub(r"^layers\.\d+\.", "", node["name"]) for node in data["nodes"]} <= shown
    held = {inner.name for leaf in leaves(recipe.graph) for inner in inside(leaf)}
    names = [leaf.name for leaf in leaves(recipe.graph) if leaf.name not in held]
    assert [node["name"] for node in data["nodes"]] == names
    for name in ("parameters", "active_parameters", "cache_bytes_per_token"):
        assert sum(node[name] for node in data["nodes"]) == data["totals"][name]
    flops = sum(node["flops_per_token"] for node in data["nodes"])
    assert flops == pytest.approx(data["totals"]["flops_per_token"])


def inside(leaf):
    """What a leaf holds, experts, but not the leaf itself."""
    found = iter(leaves(leaf))
    next(found)
    return found


def test_json_says_what_it_is_of():
    recipe = load_recipe(ROOT / "recipes/llama.yaml")
    data = as_json(recipe, measure(recipe, 64, 3, "bf16"))
    assert (data["length"], data["batch"], data["dtype"]) == (64, 3, "bf16")
    attention = next(node for node in data["nodes"] if node["word"] == "attention")
    assert attention["name"] == "layers.0.attention" and attention["layer"] == 0
    assert attention["options"] == {"heads": 4, "position": "rope"}
    assert attention["shape"] == {"reads": ["B", "T", 160], "gives": ["B", "T", 160]}
    assert attention["file"].startswith("blocks/attention.py:")
    assert data["totals"]["memory"]["weights"] == 4 * data["totals"]["parameters"]


def test_what_reads_the_length_of_a_text_says_so():
    text = (ROOT / "recipes/llama.yaml").read_text("utf-8")
    scaled = "{rope: {scaling: {dynamic: {factor: 2.0, original: 64}}}}"
    recipe = load_recipe(text.replace("position: rope", f"position: {scaled}"))
    costs = measure(recipe, 16)
    whole = " ".join(page(recipe, costs).split())
    assert "reads how long a text is: past 64 tokens, in parts and at once differ" in whole
    limits = {node["word"]: node["reads_length"] for node in as_json(recipe, costs)["nodes"]}
    assert limits["attention"] == 64 and limits["glu"] is None


# The verb


def test_command_prints_the_page_or_json(capsys, llama):
    assert main(["explain", str(ROOT / "recipes/llama.yaml")]) == 0
    assert capsys.readouterr().out == llama + "\n"
    arguments = ["--json", "--length", "32", "--dtype", "bf16", "dims.kv_heads=1"]
    assert main(["explain", str(ROOT / "recipes/llama.yaml"), *arguments]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert totals["cache_bytes_per_token"] == 4 * 2 * 40 * 2


@pytest.mark.parametrize(
    "arguments", [["--length", "0"], ["--batch", "0"], ["--dtype", "fp8"], ["dims.heads=3"]]
)
def test_command_refuses_what_no_model_can_have(arguments, capsys):
    assert main(["explain", str(ROOT / "recipes/llama.yaml"), *arguments]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_warnings_go_to_stderr(tmp_path):
    path = tmp_path / "page.yaml"
    text = (ROOT / "recipes/llama.yaml").read_text()
    path.write_text(text.replace("dims: {", "dims: {experts: 4, "))
    done = python(tmp_path, "-m", "builder", "explain", str(path))
    assert done.returncode == 0 and "warning[" in done.stderr and "warning" not in done.stdout
