"""Parameters are named by words in order of execution, never by YAML nesting."""

from __future__ import annotations

import pytest

from builder import build, load_recipe

DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 16, "experts": 2}


def names(*model, blocks=None):
    page = {"recipe": 1, "dims": DIMS, "blocks": blocks or {}, "model": list(model)}
    model = build(load_recipe(page), device="meta")
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))


def layer(*nodes):
    """The names of one layer's modules."""
    found = names("token_embedding", {"repeat": 1, "block": list(nodes)}, "lm_head")
    return [name.removeprefix("layers.0.") for name in found[1:-1]]


def test_a_llama_bears_the_names_of_the_design():
    decoder = [
        {"residual": ["rmsnorm", {"attention": {"qk_norm": "rmsnorm"}}]},
        {"residual": ["rmsnorm", "glu"]},
    ]
    assert names("token_embedding", {"repeat": 1, "block": decoder}, "rmsnorm", "lm_head") == [
        "token_embedding",
        "layers.0.rmsnorm_before_attention",
        "layers.0.attention.q",
        "layers.0.attention.k",
        "layers.0.attention.v",
        "layers.0.attention.o",
        "layers.0.attention.q_norm",
        "layers.0.attention.k_norm",
        "layers.0.rmsnorm_before_glu",
        "layers.0.glu.gate",
        "layers.0.glu.up",
        "layers.0.glu.down",
        "rmsnorm_after_layers",
        "lm_head",
    ]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["rmsnorm", "glu"], ["rmsnorm_before_glu"]),
        (["glu", "rmsnorm"], ["rmsnorm_after_glu"]),
        ([{"residual": "glu"}, "rmsnorm"], ["rmsnorm_after_glu"]),
        (["rmsnorm", {"residual": "glu"}], ["rmsnorm_before_glu"]),
        (
            [{"residual": ["rmsnorm", "glu", "rmsnorm"]}],
            ["rmsnorm_before_glu", "rmsnorm_after_glu"],
        ),
        (["glu", "rmsnorm", "mlp"], ["rmsnorm_after_glu"]),  # the nearest before, not after
        (["glu", {"residual": ["rmsnorm", "mlp"]}], ["rmsnorm_before_mlp"]),  # in its own list
        (["glu", {"residual": "rmsnorm"}], ["rmsnorm_after_glu"]),  # its enclosing list's
        (["rmsnorm", {"parallel": ["attention", "glu"]}], ["rmsnorm_before_attention"]),
        ([{"parallel": ["attention", "glu"]}, "rmsnorm"], ["rmsnorm_after_glu"]),
        (
            [{"parallel": [["rmsnorm", "attention"], ["rmsnorm", "glu"]]}],
            ["rmsnorm_before_attention", "rmsnorm_before_glu"],
        ),
        (["glu", "rmsnorm", "rmsnorm"], ["rmsnorm_after_glu", "rmsnorm_2_after_glu"]),
        (
            ["mlp", "rmsnorm", "rmsnorm", "mlp", "rmsnorm"],
            ["rmsnorm_after_mlp", "rmsnorm_2_after_mlp", "rmsnorm_after_mlp_2"],
        ),
    ],
)
def test_a_leaf_is_named_by_its_anchor(nodes, expected):
    assert [name for name in layer(*nodes) if "norm" in name] == expected


def test_anchors_and_positions_bear_their_own_word_and_are_counted_within_the_layer():
    found = names(
        "token_embedding",
        "learned_positions",
        {"repeat": 2, "block": ["glu", "attention", "glu"]},
        "lm_head",
    )
    heads = list(
        dict.fromkeys(
            name.removesuffix(".gate") for name in found if "glu" in name and "gate" in name
        )
    )
    assert heads == ["layers.0.glu", "layers.0.glu_2", "layers.1.glu", "layers.1.glu_2"]
    assert found[:2] == ["token_embedding", "learned_positions"]


def test_leaves_beside_the_layers_are_named_by_them():
    found = names(
        "token_embedding", "rmsnorm", {"repeat": 1, "block": "glu"}, {"linear": 8}, "lm_head"
    )
    assert found[1] == "rmsnorm_before_layers" and found[-2] == "linear_after_layers"
    assert names("token_embedding", "rmsnorm", "lm_head")[1] == "rmsnorm"


def test_an_expert_is_named_within_its_mixture_and_a_lone_one_needs_no_name():
    assert layer("moe") == [
        "moe.router.score",
        "moe.experts.gate",
        "moe.experts.up",
        "moe.experts.down",
    ]
    found = layer({"moe": {"expert": ["rmsnorm", "mlp"]}})
    assert found[1:] == [
        "moe.experts.rmsnorm_before_mlp",
        "moe.experts.mlp.up",
        "moe.experts.mlp.down",
    ]


def test_a_shared_weight_is_named_by_its_first_occurrence():
    found = names("token_embedding", {"repeat": 3, "block": "mlp", "share": True}, "lm_head")
    assert found == ["token_embedding", "layers.0.mlp.up", "layers.0.mlp.down", "lm_head"]


def test_what_is_added_round_one_anchor_moves_no_name_round_another():
    before = layer({"residual": ["rmsnorm", "attention"]}, {"residual": ["rmsnorm", "glu"]})
    after = layer(
        {"residual": ["rmsnorm", "attention", "rmsnorm"]}, {"residual": ["rmsnorm", "glu"]}
    )
    assert set(before) <= set(after)


def test_names_of_blocks_and_nesting_leave_no_trace():
    plain = names("token_embedding", {"repeat": 2, "block": ["rmsnorm", "glu"]}, "lm_head")
    named = names(
        "token_embedding",
        [[{"repeat": 2, "pattern": ["outer"]}]],
        "lm_head",
        blocks={"inner": ["rmsnorm", ["glu"]], "outer": [["none", "inner"]]},
    )
    assert plain == named
