"""What is compared with what, as it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.ablation.swaps import BASE, Swap, parted, variants
from builder.errors import InputError, RecipeError
from builder.read import dump
from tests.ablations import page, settled

POSITION = "blocks.decoder.attention.position"
PLAIN = st.recursive(
    st.sampled_from(["a", "b c", "1", "0.5", "x, y", "it's", "{", "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner, max_size=1),
)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return settled(tmp_path)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_values_are_cut_where_yaml_cuts_them(values):
    text = yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()
    inside = [item.strip() for item in parted(text[1:-1])]
    assert [yaml.safe_load(item) for item in inside] == values


def test_each_value_is_a_row_but_for_the_base_s_own(path):
    found = variants([path], (), [f"{POSITION}=rope,alibi,none"])
    assert [one.name for one in found] == [BASE, "position=alibi", "position=none"]
    assert found[1].recipe.hash != found[2].recipe.hash != found[0].recipe.hash
    assert found[1].words == [f"{POSITION}=alibi"]


def test_values_may_be_blocks_with_options_and_may_insert(path):
    swap = "blocks.decoder.attention=[it, rmsnorm],{attention: {kv_heads: 1, bias: true}}"
    found = variants([path], ("dims.ff=48",), [swap])
    assert len(found) == 3 and all(one.recipe.dims.ff == 48 for one in found)


def test_a_file_may_hold_the_value(path):
    Path("canon.yaml").write_text("- {residual: {short_conv: {kernel: 3}}}\n- it\n")
    (_, row) = variants([path], (), ["blocks.decoder.attention=canon.yaml"])
    assert row.name == "attention=canon"
    assert "short_conv" in repr(row.recipe.graph)
    assert row.words == ["blocks.decoder.attention=[{residual: {short_conv: {kernel: 3}}}, it]"]


def test_swaps_are_crossed_only_when_asked(path):
    swaps = [f"{POSITION}=rope,alibi", "dims.kv_heads=1,2"]
    assert len(variants([path], (), swaps)) == 3  # kv_heads is 2 already
    found = variants([path], (), swaps, cross=True)
    assert [one.parts for one in found] == [(), (), (), ("position=alibi", "kv_heads=1")]
    both = found[-1].recipe
    assert both.hash not in {one.recipe.hash for one in found[:-1]}


def test_whole_recipes_are_rows_too(path):
    Path("other.yaml").write_text(dump({**page(), "name": "other", "train": {"steps": 9}}))
    found = variants([path, Path("other.yaml")], ("dims.ff=48",))
    assert [one.name for one in found] == [BASE, "other"]
    assert found[1].recipe.dims.ff == 48


@pytest.mark.parametrize(
    ("swaps", "code"),
    [
        ([], "nothing-to-compare"),
        ([f"{POSITION}=rope"], "nothing-to-compare"),
        (["dims.ff"], "not-an-assignment"),
        ([f"{POSITION}=alibi,alibi"], "same-name"),
    ],
)
def test_nothing_to_compare_is_told(path, swaps, code):
    with pytest.raises(InputError) as caught:
        variants([path], (), swaps)
    assert caught.value.code == code


def test_a_wrong_value_is_told_at_its_place(path):
    with pytest.raises(RecipeError) as caught:
        variants([path], (), [f"{POSITION}=alibi,rop"])
    (finding,) = caught.value.findings
    assert finding.code == "unknown-word" and finding.mark.text == "rop"
    assert "rope" in finding.help
    assert Swap.read("a.b.norm.2=x").short == "norm.2"
