"""A path names what is written: what it finds, looks through, and does there (DESIGN, Variants)."""

from __future__ import annotations

import pytest

from builder import load_recipe
from builder.errors import RecipeError
from builder.graph import leaves
from builder.read import to_python

DECODER = """\
recipe: 1
name: base
dims: {dim: 8, heads: 2, ff: 12, vocab: 11, context: 16}
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope, mask: {sliding_window: 4}}}]
    - residual: [rmsnorm, {glu: {act: silu}}]
  local: {like: decoder, set: {attention.bias: true}}
model:
  - token_embedding
  - {repeat: 2, block: decoder}
  - rmsnorm
  - lm_head
"""


def changed(*overrides, text=DECODER):
    """The page as Python, after these assignments."""
    return to_python(load_recipe(text, overrides).page)


def decoder(*overrides):
    return changed(*overrides)["blocks"]["decoder"]


def refused(*overrides, text=DECODER):
    with pytest.raises(RecipeError) as caught:
        load_recipe(text, overrides)
    return caught.value


# What a path finds


def test_a_path_finds_a_dim_and_may_add_one():
    assert changed("dims.ff=2 * dim")["dims"]["ff"] == "2 * dim"
    assert changed("dims.kv_heads=1")["dims"]["kv_heads"] == 1


def test_a_path_finds_an_option_of_the_only_such_word():
    assert decoder("blocks.decoder.attention.bias=true")[0] == {
        "residual": [
            "rmsnorm",
            {"attention": {"position": "rope", "mask": {"sliding_window": 4}, "bias": True}},
        ]
    }


def test_a_bare_word_gets_its_options():
    assert decoder("blocks.decoder.rmsnorm.1.eps=1e-5")[0]["residual"][0] == {
        "rmsnorm": {"eps": 1e-5}
    }


def test_of_several_words_a_number_picks_one_and_all_picks_all():
    assert decoder("blocks.decoder.rmsnorm.2=layernorm")[1]["residual"][0] == "layernorm"
    both = decoder("blocks.decoder.rmsnorm.all=layernorm")
    assert [branch["residual"][0] for branch in both] == ["layernorm", "layernorm"]
    error = refused("blocks.decoder.rmsnorm=layernorm")
    assert error.code == "path-ambiguous"
    assert "rmsnorm.1 (<text>:6:18), rmsnorm.2 (<text>:7:18); rmsnorm.all is every one" in str(
        error
    )
    assert refused("blocks.decoder.rmsnorm.3=layernorm").code == "path-not-found"


def test_a_path_that_finds_nothing_names_the_nearest_word():
    error = refused("blocks.decoder.atention.bias=true")
    assert error.code == "path-not-found" and "did you mean 'attention'?" in str(error)
    assert refused("blocks.decodr.attention.bias=true").code == "path-not-found"
    assert refused("blocks.decoder.attention.biass=true").code == "path-not-found"
    assert refused("mdel.repeat=3").code == "path-not-found"
    assert refused("dims.ff.x=3").code == "path-not-found"
    assert refused("blocks.decoder.attention.bias.x=3").code == "path-not-found"


# What it looks through


def test_a_path_looks_through_lists_and_branches_but_not_a_block_s_name():
    assert decoder("blocks.decoder.glu.bias=true")[1]["residual"][1] == {
        "glu": {"act": "silu", "bias": True}
    }
    assert refused("model.attention.bias=true").code == "path-not-found"


def test_the_inside_of_a_slot_is_reached_by_naming_the_slot():
    assert refused("blocks.decoder.sliding_window=3").code == "path-not-found"
    change = decoder("blocks.decoder.attention.mask.sliding_window=3")
    assert change[0]["residual"][1]["attention"]["mask"] == {"sliding_window": 3}


def test_a_path_looks_through_like_and_becomes_one_more_setting():
    page = changed("blocks.local.attention.mask.sliding_window=2")
    settings = {"attention.bias": True, "attention.mask.sliding_window": 2}
    assert page["blocks"]["local"] == {"like": "decoder", "set": settings}


# What assignment does


def test_at_a_node_the_value_replaces_it_whole_and_it_is_what_stood_there():
    assert decoder("blocks.decoder.glu=mlp")[1]["residual"] == ["rmsnorm", "mlp"]
    inserted = decoder("blocks.decoder.glu=[it,rmsnorm]")[1]["residual"]
    assert inserted == ["rmsnorm", [{"glu": {"act": "silu"}}, "rmsnorm"]]
    wrapped = changed("blocks.decoder={parallel: [it, glu]}")["blocks"]["decoder"]
    assert wrapped == {"parallel": [decoder(), "glu"]}


def test_none_deletes_a_node_and_empties_a_slot():
    assert decoder("blocks.decoder.rmsnorm.1=none")[0]["residual"][0] == "none"
    recipe = load_recipe(DECODER, ["blocks.decoder.rmsnorm.1=none"])
    assert [leaf.word for leaf in leaves(recipe.graph.layers[0])] == ["attention", "rmsnorm", "glu"]
    recipe = load_recipe(DECODER, ["blocks.decoder.attention.position=none"])
    assert all(
        leaf["position"] is None for leaf in leaves(recipe.graph) if leaf.word == "attention"
    )


def test_a_slot_takes_a_filler_and_it_too():
    slot = decoder("blocks.decoder.attention.mask=causal")[0]["residual"][1]["attention"]
    assert slot == {"position": "rope", "mask": "causal"}
    same = decoder("blocks.decoder.attention.mask=it")[0]["residual"][1]["attention"]["mask"]
    assert same == {"sliding_window": 4}


def test_a_word_after_a_slot_picks_its_filler_and_the_same_one_keeps_its_options():
    twice = (
        "blocks.decoder.attention.position.rope.theta=500",
        "blocks.decoder.attention.position.rope.fraction=0.5",
    )
    attention = decoder(*twice)[0]["residual"][1]["attention"]
    assert attention["position"] == {"rope": {"theta": 500, "fraction": 0.5}}
    other = decoder(*twice, "blocks.decoder.attention.position=alibi")[0]["residual"][1][
        "attention"
    ]
    assert other["position"] == "alibi"
    norm = decoder("blocks.decoder.attention.qk_norm.rmsnorm.eps=1e-5")[0]["residual"][1][
        "attention"
    ]
    assert norm["qk_norm"] == {"rmsnorm": {"eps": 1e-5}}


def test_repeat_pattern_block_and_share_name_the_value_written_there():
    assert changed("model.repeat=5")["model"][1] == {"repeat": 5, "block": "decoder"}
    assert changed("model.block=local")["model"][1] == {"repeat": 2, "block": "local"}
    text = DECODER.replace("block: decoder", "pattern: [decoder, local], share: local")
    assert changed("model.share=true", text=text)["model"][1]["share"] is True
    assert changed("model.pattern=[decoder]", "model.share=false", text=text)["model"][1][
        "pattern"
    ] == ["decoder"]


def test_a_block_s_settings_reach_every_like_of_it():
    text = DECODER.replace("block: decoder", "pattern: [decoder, local]")
    recipe = load_recipe(text, ["blocks.decoder.attention.mask.sliding_window=2"])
    found = [leaf for leaf in leaves(recipe.graph) if leaf.word == "attention"]
    assert [leaf["mask"]["window"] for leaf in found] == [2] * 4
    assert [leaf["bias"] for leaf in found] == [False, True, False, True]


def test_a_path_may_add_a_block():
    page = changed("blocks.extra=[rmsnorm, glu]")
    assert page["blocks"]["extra"] == ["rmsnorm", "glu"]


def test_a_value_remembers_where_it_was_written_and_what_it_overrode():
    recipe = load_recipe(DECODER, ["dims.ff=16"])
    value = recipe.page["dims"]["ff"]
    assert str(value.mark).startswith("<command line>") and str(value.was) == "<text>:3:30"


@pytest.mark.parametrize("override", ["dims.ff", "=3", "  =3"])
def test_what_is_no_assignment_says_so(override):
    from builder.errors import InputError

    with pytest.raises(InputError) as caught:
        load_recipe(DECODER, [override])
    assert caught.value.code == "not-an-assignment"


def test_a_flow_map_without_its_space_is_refused_with_that_help():
    error = refused("blocks.decoder.attention.mask={sliding_window:4}")
    assert error.code == "missing-space" and "{sliding_window: 4}" in str(error)


# Chains of extends


def test_settings_apply_base_first_then_in_written_order(tmp_path):
    (tmp_path / "base.yaml").write_text(DECODER)
    (tmp_path / "mid.yaml").write_text(
        "recipe: 1\nname: mid\nextends: base.yaml\n"
        "set: {blocks.decoder.glu: mlp, blocks.decoder.mlp.act: relu, dims.ff: 6}\n"
    )
    (tmp_path / "top.yaml").write_text(
        "recipe: 1\nextends: mid.yaml\nset: {dims.ff: 5, blocks.decoder.mlp.bias: false}\n"
    )
    recipe = load_recipe(tmp_path / "top.yaml", ["dims.vocab=7"])
    assert recipe.name == "mid" and recipe.dims.ff == 5 and recipe.dims.vocab == 7
    found = next(leaf for leaf in leaves(recipe.graph) if leaf.word == "mlp")
    assert (found["bias"], found["act"].word, found["ff"]) == (False, "relu", 5)
    mark = found.mark
    assert mark.source.name.endswith("mid.yaml") or mark.source.name.endswith("top.yaml")


def test_a_set_recipe_is_written_out_as_extends_and_set(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(DECODER)
    recipe = load_recipe(path).set("blocks.decoder.glu", "mlp").set("dims.ff", 6)
    again = load_recipe(recipe.text)
    assert again.graph == recipe.graph
    assert "extends" in recipe.text and "blocks.decoder.glu: mlp" in recipe.text
    assert path.read_text() == DECODER
