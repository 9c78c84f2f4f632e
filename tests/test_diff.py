from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from builder import load_recipe
from builder.__main__ import main
from builder.diff import Change, compare
from builder.laws.strategies import recipes, respellings, swaps
from builder.verbs.diff import share

ROOT = Path(__file__).parent.parent
LLAMA, MISTRAL, GPT, GPT2 = (
    ROOT / f"recipes/{name}.yaml" for name in ("llama", "mistral", "gpt", "gpt2")
)


def told(first, second, *overrides):
    """The changes of the model, as the sentence has them."""
    return [str(c) for c in compare(load_recipe(first), load_recipe(second, overrides)).model]


def changed(*overrides):
    return told(LLAMA, LLAMA, *overrides)


# Laws


@pytest.mark.slow
@given(recipes())
def test_a_recipe_does_not_differ_from_itself(recipe):
    difference = compare(recipe, recipe)
    assert difference.same and not difference.model and not difference.training


@pytest.mark.slow
@given(respellings())
def test_another_spelling_is_the_same_model(pair):
    assert compare(*pair).same and not compare(*pair).model


@pytest.mark.slow
@given(swaps())
def test_models_differ_if_and_only_if_a_change_is_told(pair):
    difference = compare(*pair)
    assert difference.same == (not difference.model)


@pytest.mark.slow
@given(swaps())
def test_every_change_is_told_once(pair):
    model = compare(*pair).model
    assert len(set(model)) == len(model)


@pytest.mark.slow
@given(swaps())
def test_the_way_back_tells_as_much(pair):
    assert bool(compare(*pair).model) == bool(compare(*reversed(pair)).model)


# What is told


def test_mistral_is_llama_with_two_changes():
    assert told(LLAMA, MISTRAL) == [
        "attention.kv_heads 4 → 2",
        "attention.mask causal → sliding_window 48",
    ]


def test_norms_that_move_are_told_by_both_spellings_of_the_layer():
    before, _, after = told(GPT2, GPT)[1].removeprefix("layer ").partition(" → ")
    assert before == (
        "[residual: [layernorm, attention, dropout], residual: [layernorm, mlp, dropout]]"
    )
    assert after == (
        "[residual: [attention, dropout], layernorm, residual: [mlp, dropout], layernorm]"
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.repeat=6", "layers 4 → 6"),
        ("dims.dim=320", "dim 160 → 320"),
        ("dims.vocab=4096", "vocab 2048 → 4096"),
        ("dims.context=64", "context 128 → 64"),
        ("dims.heads=8", "attention.heads 4 → 8"),
        ("dims.ff=512", "glu.ff 448 → 512"),
        ("blocks.decoder.glu.act=relu", "glu.act silu → relu"),
        ("blocks.decoder.attention.position.rope.theta=5e5",
         "attention.position.rope.theta 10000 → 500000"),
        ("blocks.decoder.attention=[it,rmsnorm]", "+ rmsnorm after attention"),
        ("blocks.decoder.attention=[{scale: 2},it]", "+ scale after rmsnorm"),
        ("blocks.decoder.rmsnorm.2=none", "− rmsnorm before glu"),
        ("blocks.decoder.rmsnorm.all=layernorm", "rmsnorm → layernorm in layers 0-3"),
        ("blocks.decoder.rmsnorm.1=layernorm", "rmsnorm_before_attention rmsnorm → layernorm"),
        ("blocks.decoder.rmsnorm.1.eps=1e-5", "rmsnorm_before_attention.eps 1e-6 → 1e-5"),
        ("blocks.decoder.rmsnorm.all.eps=1e-5", "rmsnorm.eps 1e-6 → 1e-5 in layers 0-3"),
        ("model.rmsnorm.eps=1e-5", "rmsnorm_after_layers.eps 1e-6 → 1e-5"),
        ("model.lm_head.tie=true", "lm_head.tie false → true"),
        ("blocks.decoder.glu={moe: {experts: 4}}",
         "glu (ff 448, silu) → moe (experts 4, softmax top_k 2)"),
        ("blocks.decoder.glu=[it, {residual: [mlp, rmsnorm]}]",
         "+ residual: [mlp, rmsnorm] after glu"),
    ],
)  # fmt: skip
def test_one_setting_is_one_change(override, expected):
    assert changed(override) == [expected]


def test_a_size_that_follows_from_another_is_not_told():
    assert changed("dims.heads=8") == ["attention.heads 4 → 8"]  # kv_heads and head_dim follow


def layered(*pattern):
    """Two rounds of a pattern of layers, each attention alone with a mask."""
    dims = {"dim": 16, "heads": 2, "vocab": 11, "context": 16}
    layers = [{"residual": {"attention": {"mask": mask}}} for mask in pattern]
    model = ["token_embedding", {"repeat": 2, "pattern": layers}, "lm_head"]
    return {"recipe": 1, "dims": dims, "model": model}


def test_an_option_of_some_layers_says_which():
    other = layered("causal", {"sliding_window": 4})
    assert told(layered("causal", "causal"), other) == [
        "attention.mask causal → sliding_window 4 in layers 1, 3"
    ]


def test_layers_between_layers_leave_the_others_alone():
    window = {"sliding_window": 4}
    assert told(layered("causal"), layered("causal", window)) == [
        "layers 2 → 4",
        "+ layer [residual: attention]",
    ]


def test_a_change_reads_as_a_phrase():
    assert str(Change("glu.ff", "1", "2", "layer 3")) == "glu.ff 1 → 2 in layer 3"
    assert str(Change("gain after glu", "", "there")) == "+ gain after glu"
    assert str(Change("gain after glu", "there", "")) == "− gain after glu"


def test_training_is_told_apart_from_the_model():
    other = load_recipe(
        LLAMA, ["train.lr=3e-4", "train.optimizer.adamw.beta2=0.99", "data={text: a.txt}"]
    )
    difference = compare(load_recipe(LLAMA), other)
    assert difference.same
    assert [str(change) for change in difference.training] == [
        "lr 0.001 → 0.0003",
        "optimizer.adamw.beta2 0.95 → 0.99",
        "data python_docs → text a.txt",
    ]


def test_shared_weights_are_told_once_for_all_that_share_them():
    page = layered("causal")
    shared = {**page, "model": [page["model"][0], {**page["model"][1], "share": True}, "lm_head"]}
    assert told(page, shared) == ["weights own → those of layer 0 in layer 1"]


def wired(option):
    """Three layers, the last of which reads what an earlier one gave."""
    layers = [{"attention": {}, "as": "a"}, {"attention": {}, "as": "b"}, {"attention": option}]
    page = layered()
    return {**page, "model": ["token_embedding", {"repeat": 1, "pattern": layers}, "lm_head"]}


def test_what_is_read_across_depth_is_told_by_its_layer():
    assert told(wired({"kv_from": "a"}), wired({"kv_from": "b"})) == [
        "attention.kv_from layer 0 → layer 1 in layer 2"
    ]


def test_a_label_that_moves_with_its_node_changes_nothing():
    assert "attention.kv_from" not in str(
        told(wired({"kv_from": "a"}), wired({"kv_from": "a", "softcap": 2.0}))
    )


# The verb


def test_the_first_line_says_it_all(capsys):
    assert main(["diff", str(LLAMA), str(MISTRAL)]) == 0
    sentence = capsys.readouterr().out.partition("\n")[0]
    assert sentence == (
        "mistral is llama with attention.kv_heads 4 → 2, attention.mask causal → sliding_window 48;"
        " parameters −5.3 %, cache −50 %"
    )


def test_an_equal_model_costs_nothing_to_compare(capsys):
    assert main(["diff", str(LLAMA), str(LLAMA), "train.lr=3e-4"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "the first and the second are the same model\n\ntrained otherwise: lr 0.001 → 0.0003\n"
    )


def test_json_holds_the_changes_and_both_costs(capsys):
    assert main(["diff", str(LLAMA), str(LLAMA), "dims.kv_heads=1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == [
        {"what": "attention.kv_heads", "before": "4", "after": "1", "where": ""}
    ]
    ours, theirs = told["costs"]["cache_bytes_per_token"]
    assert (told["same"], ours) == (False, 4 * theirs)


def test_costs_are_taken_at_the_shorter_context(capsys):
    main(["diff", str(LLAMA), str(LLAMA), "dims.context=64", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["length"] == 64
    assert told["costs"]["flops_per_token"][0] == told["costs"]["flops_per_token"][1]


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ((100, 92), "−8.0 %"),
        ((6, 2), "−67 %"),
        ((2, 6), "+200 %"),
        ((7, 7), "unchanged"),
        ((0, 3), "new"),
        ((None, 3), "unknown"),
        ((100_000, 100_001), "+0.001 %"),
    ],
)
def test_a_share_is_told_in_per_cent(pair, expected):
    assert share(*pair) == expected
