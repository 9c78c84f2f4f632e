"""The family language: what a file may say, and what it is told when it cannot be right."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hf_bridge
from builder import load_recipe
from builder.errors import BuilderError
from builder.index import load_index
from hf_bridge.check import check_family
from hf_bridge.errors import ConfigError
from hf_bridge.exporting import Fit, fit_family
from hf_bridge.family_files import FOLDER, family_names, load_family
from hf_bridge.fold import pattern
from hf_bridge.importing import import_config
from hf_bridge.normalise import normalise
from hf_bridge.template import place_below
from hf_bridge.weights import paired
from tests.hf_folders import ROOT, needs_tool, tool

INDEX = load_index()

# A family that is nobody's: layers differ on two axes, and a number has to be solved for.
TOY = """
model_type: toy
architecture: ToyForCausalLM
config:
  vocab: 13
  width: 16
  depth: 6
  heads: 4
  inner: 24
  length: 32
  softness: 4.0
  kinds: {each: {by: layer % 3, cases: {0|1: near, 2: far}}}
  span: 5
  plain_first: 1
  tied: false
recipe:
  dims: {dim: $width, heads: $heads, ff: $inner, vocab: $vocab, context: $length}
  blocks:
    decoder:
      - residual:
          - rmsnorm
          - attention:
              scale: 1 / $softness ** 2
              mask: {by: "$kinds[layer]", cases: {far: causal, near: {sliding_window: $span}}}
      - residual: [rmsnorm, {by: layer < $plain_first, cases: {true: {mlp: {bias: false}}, false:
      glu}}]
  model: [token_embedding, {repeat: $depth, block: decoder}, rmsnorm, {lm_head: {tie: $tied}}]
weights:
  embed: token_embedding.weight
"""


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(TOY, "utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", family_names())
def test_a_family_s_own_defaults_export_as_they_were_imported(name):
    family = load_family(name)
    imported = import_config({"model_type": family.model_type})
    graph = load_recipe(imported.text).graph
    fit, again = (fit_family(graph, family, INDEX) for _ in range(2))
    assert isinstance(fit, Fit), fit
    assert fit == again
    assert normalise(family, fit.config) == imported.fields
    assert fit.departures == (0, 0)


def test_layers_that_differ_become_named_blocks_and_the_shortest_pattern(toy):
    text = import_config({"model_type": "toy", "plain_first": 0}, toy).text
    assert "{repeat: 2, pattern: [near*2, far]}" in text


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=12))
def test_a_pattern_gives_the_layers_back_in_their_order(order):
    node = pattern(order)
    once = [n for entry in node["pattern"] for n in entry[0] * int(entry[2:] or 1)]
    if "repeat" in node:
        assert once * node["repeat"] == order
    else:
        assert node["remainder"] == "truncate"
        assert (once * node["layers"])[: node["layers"]] == order
        assert len(once) < len(order)


def test_layers_that_end_within_the_pattern_are_read_and_found_again(toy):
    told = {"model_type": "toy", "plain_first": 0, "depth": 5}
    text = import_config(told, toy).text
    assert "{layers: 5, pattern: [near*2, far], remainder: truncate}" in text
    fit = fit_family(load_recipe(text).graph, load_family(toy), INDEX)
    assert isinstance(fit, Fit), fit


def test_a_field_that_one_selection_has_settled_settles_the_next(tmp_path, toy):
    both = TOY.replace(
        "{mlp: {bias: false}}", "{mlp: {bias: {by: $tied, cases: {true: true, false: false}}}}"
    )
    toy.write_text(
        both.replace("{tie: $tied}", "{tie: {by: $tied, cases: {true: true, false: false}}}")
    )
    text = import_config({"model_type": "toy"}, toy).text
    graph = load_recipe(text.replace("- lm_head", "- lm_head: {tie: true}")).graph
    difference = fit_family(graph, load_family(toy), INDEX)
    assert "lm_head.tie: true, where the family has false" in str(difference)


def test_blocks_are_lettered_where_the_cases_do_not_name_them(toy):
    text = import_config({"model_type": "toy"}, toy).text
    assert "pattern: [decoder_a, decoder_b, decoder_c, decoder_b*2, decoder_c]" in text


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"plain_first": 0},
        {"plain_first": 6},
        {"kinds": ["far"] * 6},
        {"kinds": ["near"] * 6, "span": 2, "softness": 3.0},
        {"kinds": ["far", "near", "near", "far", "far", "near"], "plain_first": 3},
        {"depth": 1, "kinds": ["far"]},
        {"softness": 0.3},
    ],
)
def test_rules_over_layers_and_solved_numbers_survive_the_way_back(toy, config):
    family = load_family(toy)
    imported = import_config({"model_type": "toy"} | config, toy)
    fit = fit_family(load_recipe(imported.text).graph, family, INDEX)
    assert isinstance(fit, Fit), fit
    assert (
        load_recipe(import_config(fit.config, toy).text).graph == load_recipe(imported.text).graph
    )


def test_a_number_that_no_config_gives_is_told_with_its_place(toy):
    text = import_config({"model_type": "toy"}, toy).text
    graph = load_recipe(text.replace("scale: 0.0625", "scale: -0.5")).graph
    difference = fit_family(graph, load_family(toy), INDEX)
    assert "attention.scale" in str(difference)
    assert "-0.5" in str(difference)


def test_a_list_shorter_than_the_depth_is_refused(toy):
    with pytest.raises(ConfigError) as refused:
        import_config({"model_type": "toy", "kinds": ["far"]}, toy)
    assert refused.value.code == "config-list"


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("family-unbound-field", {"span: 5": "span: 5\n  unread: 3"}),
        ("family-unbound-field", {"{tie: $tied}": "{tie: $tide}"}),
        ("family-unbound-field", {"{tie: $tied}": "{tie: {by: $tied, cases: {_: true}}}"}),
        (
            "family-two-holes",
            {"$softness ** 2": "($softness * $hard)", "span: 5": "span: 5\n  hard: 1"},
        ),
        ("family-cycle", {"softness: 4.0": "softness: $span", "span: 5": "span: $softness"}),
        ("family-key", {"weights:": "wieghts:"}),
        ("family-key", {"architecture: ToyForCausalLM": ""}),
        ("family-key", {"softness: 4.0": "softness: {default: 4.0, otherwise: 3}"}),
        ("family-unknown", {"model_type: toy": "model_type: toy\nlike: nobody"}),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_when_it_is_loaded(tmp_path, code, changes):
    path = tmp_path / "spoilt.yaml"
    text = TOY
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, "utf-8")
    with pytest.raises(BuilderError) as refused:
        load_family(path)
    assert (refused.value.code, refused.value.exit_code) == (code, 2)


CHILD = """
like: toy
model_type: child
architecture: ChildForCausalLM
config: {softness: absent, cap: 30.0}
set:
  recipe.blocks.decoder.attention.softcap: $cap
  recipe.blocks.decoder.attention.scale: absent
"""


def test_like_takes_the_tables_and_set_reaches_into_the_recipe(tmp_path, toy):
    child = toy.with_name("child.yaml")
    child.write_text(CHILD, "utf-8")
    text = import_config({"model_type": "child", "plain_first": 0}, child).text
    assert "{attention: {mask: {sliding_window: 5}, softcap: 30}}" in text


def test_a_field_that_only_the_base_had_is_missed(tmp_path, toy):
    child = toy.with_name("child.yaml")
    child.write_text(
        CHILD.replace("  recipe.blocks.decoder.attention.scale: absent\n", ""), "utf-8"
    )
    with pytest.raises(BuilderError, match=r"\$softness has no row"):
        load_family(child)


def test_a_path_of_set_that_finds_nothing_is_refused(tmp_path, toy):
    child = tmp_path / "child.yaml"
    child.write_text(
        "like: toy\nmodel_type: c\narchitecture: C\nset: {recipe.blocks.decoder.moe.top_k: 3}\n"
    )
    with pytest.raises(BuilderError) as refused:
        load_family(child)
    assert refused.value.code == "family-path"


def test_a_fragment_s_fields_are_read_below_the_place_of_use():
    raw = {"$.a": "$.b / 2", "c": ["$.", "plain"]}
    assert place_below(raw, "x.y") == {"x.y.a": "$x.y.b / 2", "c": ["$x.y", "plain"]}


def test_groups_of_a_row_pair_off():
    assert list(paired("p.{a,b}.{w,v}", "q({c,d}.{w,v})")) == [
        ("p.a.w", "q(c.w)"),
        ("p.a.v", "q(c.v)"),
        ("p.b.w", "q(d.w)"),
        ("p.b.v", "q(d.v)"),
    ]
    with pytest.raises(ValueError, match="pair off"):
        list(paired("{a,b}", "{c}"))


PAGE = (ROOT / "docs" / "families.md").read_text("utf-8")
OLMO2 = PAGE.partition("<!-- example -->\n```yaml\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def olmo2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("olmo2") / "folder"
    tool().make("olmo2", folder, families={"olmo2": [{}]})
    return folder


def wrong_in(text, folder, tmp_path):
    """What is told of a family file, by subject, but for what is as it should be."""
    (tmp_path / "olmo2.yaml").write_text(text, "utf-8")
    return {o.subject: o.found for o in check_family(tmp_path / "olmo2.yaml", folder) if not o.ok}


@needs_tool
def test_the_family_of_the_page_is_as_it_says(olmo2, tmp_path):
    """The example of docs/families.md, which is none of ours, carried over and back."""
    assert "olmo2" not in family_names()
    assert wrong_in(OLMO2, olmo2, tmp_path) == {}
    model, _ = hf_bridge.from_hf(olmo2, family=tmp_path / "olmo2.yaml")
    written = hf_bridge.to_hf(model, tmp_path / "out", family=tmp_path / "olmo2.yaml")
    assert written == "Olmo2ForCausalLM"


FORGOTTEN = {
    "a row's name": ("{q,k}_norm.weight: a", "{q,k}_morn.weight: a", "rows", "q_morn"),
    "a tensor": ("{q,k}_norm.weight: a", "{q,k}_morn.weight: a", "their tensors", "k_norm"),
    "a norm": ("rmsnorm_after_glu", "rmsnorm_before_glu", "our tensors", "rmsnorm_after_glu"),
    "a hole": (
        "config: {",
        "config: {attention_bias: absent, ",
        "family-unbound-field",
        "attention_bias",
    ),
    "an option": ("qk_norm_over: all", "qk_norm_over: head", "weights-shape", "q_norm"),
    "a field": ("{use: act, at: $hidden_act}", "relu2", "family-unbound-field", "hidden_act"),
    "the class": ("model_type: olmo2", "model_type: olmo3", "config-required", "olmo3"),
}


@needs_tool
@pytest.mark.parametrize(("old", "new", "subject", "told"), FORGOTTEN.values(), ids=FORGOTTEN)
def test_what_a_family_s_author_has_forgotten_is_told(old, new, subject, told, olmo2, tmp_path):
    assert old in OLMO2
    assert told in wrong_in(OLMO2.replace(old, new), olmo2, tmp_path)[subject]


@needs_tool
def test_a_field_that_nothing_reads_is_told_and_the_rest_is_looked_at(olmo2, tmp_path):
    wrong_norm = OLMO2.replace("eps: $rms_norm_eps}}", "eps: 1.0e-6}}").replace(
        "rms_norm_eps: 1.0e-5", "rms_norm_eps: absent"
    )
    text = wrong_norm + "  recipe.blocks.norm: {rmsnorm: {eps: 1.0e-6}}\n"
    found = wrong_in(text, olmo2, tmp_path)
    assert found.keys() == {"config", "logits"}
    assert "rms_norm_eps: read by nothing" in found["config"]


def test_the_table_of_the_page_is_of_the_files_that_are_there():
    rows = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \|", PAGE, re.MULTILINE)
    lines = {n: len((FOLDER / f"{n}.yaml").read_text("utf-8").splitlines()) for n in family_names()}
    assert {name: int(count) for name, _, count in rows} == lines


def test_no_python_names_a_family():
    names = {load_family(name).model_type for name in family_names()}
    for path in (
        p for room in ("blocks", "builder", "hf_bridge") for p in (ROOT / room).rglob("*.py")
    ):
        literals = set(re.findall(r"[\"']([^\"'\n]*)[\"']", path.read_text("utf-8")))
        assert not literals & names, path
