"""What a page means, and what it is told when it means nothing."""

from __future__ import annotations

import pytest

from builder import load_recipe
from builder.errors import RecipeError
from builder.graph import Chain, Layer, Leaf, Parallel, Residual, leaves

DIMS = {"dim": 8, "heads": 2, "ff": 12, "vocab": 11, "context": 16}


def resolved(*model, blocks=None, **dims):
    page = {"recipe": 1, "dims": DIMS | dims, "blocks": blocks or {}, "model": list(model)}
    return load_recipe(page)


def refused(*model, blocks=None, **dims):
    with pytest.raises(RecipeError) as caught:
        resolved(*model, blocks=blocks, **dims)
    return caught.value


# Faults (each code's own: test_errors.py)


def test_a_misfit_of_layers_hides_no_fault_inside_them():
    pattern = [{"attention": {"bais": True}}, "glu"]
    error = refused("token_embedding", {"layers": 1, "pattern": pattern}, "lm_head")
    assert {finding.code for finding in error.findings} == {"unknown-option", "pattern-fit"}
    (misfit,) = (finding for finding in error.findings if finding.code == "pattern-fit")
    assert misfit.help == "2 layers do; or remainder: truncate"


def test_every_finding_is_told_at_once_in_file_order():
    error = refused(
        "token_embedding",
        {"residual": ["rmsnormm", {"glu": {"biass": True}}]},
        {"attention": {"kv_heads": 3, "heads": 4}},
        {"scale": "hidden"},
        "lm_head",
    )
    codes = [finding.code for finding in error.findings]
    assert codes == ["unknown-word", "unknown-option", "check-failed", "unknown-name"]
    assert "did you mean 'rmsnorm'?" in str(error) and "did you mean 'bias'?" in str(error)


@pytest.mark.parametrize("expert", ["none", ["none"], ["none", ["none"]]])
def test_nothing_at_all_is_not_an_expert(expert):
    (fault,) = refused(
        "token_embedding", {"moe": {"expert": expert}}, "lm_head", experts=2
    ).findings
    assert (fault.code, fault.message) == ("bad-value", "nothing at all is not an expert")


def test_a_fault_of_a_block_is_told_once_however_often_it_is_used():
    error = refused(
        "token_embedding",
        {"repeat": 5, "block": "b"},
        "lm_head",
        blocks={"b": {"attention": {"kv_heads": 3, "heads": 4}}},
    )
    assert len(error.findings) == 1


def test_a_block_that_nothing_uses_is_told_and_still_looked_through():
    warnings = resolved("token_embedding", "lm_head", blocks={"spare": "rmsnorm"}).warnings
    assert {warning.code for warning in warnings} == {"unused-block", "unread-dim"}
    faults = refused("token_embedding", "lm_head", blocks={"spare": "rmsnrom"}).findings
    assert "unknown-word" in [fault.code for fault in faults]


# The type rule


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (["token_embedding", "token_embedding", "lm_head"], "type-mismatch"),
        (["glu", "lm_head"], "type-mismatch"),
        ([{"scale": 2.0}, "token_embedding", "lm_head"], "type-mismatch"),
        (["token_embedding", "lm_head", "glu"], "type-mismatch"),
        (["token_embedding", "lm_head", "rmsnorm"], "type-mismatch"),
        (["token_embedding"], "not-a-model"),
        (["token_embedding", "lm_head", {"linear": 4}], "not-a-model"),
        ([{"residual": "token_embedding"}, "lm_head"], "branch-changes"),
        (["token_embedding", {"residual": "lm_head"}], "branch-changes"),
        (["token_embedding", {"parallel": ["lm_head", "glu"]}], "branches-differ"),
        (
            ["token_embedding", {"moe": {"experts": 2, "expert": {"linear": 4}}}, "lm_head"],
            "branch-changes",
        ),
        (
            ["token_embedding", {"moe": {"experts": 2, "expert": "learned_positions"}}, "lm_head"],
            "expert-mixes",
        ),
        (
            [
                "token_embedding",
                {"moe": {"experts": 2, "expert": {"moe": {"experts": 2}}}},
                "lm_head",
            ],
            "expert-mixes",
        ),
    ],
)
def test_a_sequence_that_does_not_compose_is_refused(model, code):
    assert refused(*model).code == code


@pytest.mark.parametrize(
    "model",
    [
        ["token_embedding", "lm_head", {"softcap": 30.0}, {"scale": 0.5}, {"dropout": 0.1}],
        ["token_embedding", {"linear": 12}, "rmsnorm", "lm_head"],
        ["token_embedding", {"residual": [{"linear": 4}, "mlp", {"linear": 8}]}, "lm_head"],
        ["token_embedding", {"parallel": ["lm_head", "lm_head"]}],
        [{"parallel": ["token_embedding", "token_embedding"]}, "lm_head"],
    ],
)
def test_a_sequence_that_composes_is_a_model(model):
    assert list(leaves(resolved(*model).graph))


def test_a_stream_carries_its_width():
    recipe = resolved("token_embedding", {"linear": 12}, "rmsnorm", "mlp", "lm_head")
    found = {leaf.word: (leaf.dim, leaf.out) for leaf in leaves(recipe.graph)}
    assert found["linear"] == (8, 12) and found["rmsnorm"] == (12, 12)
    assert (
        dict(next(leaf for leaf in leaves(recipe.graph) if leaf.word == "mlp").options)["ff"] == 12
    )


# Sizes, values, options


def test_a_size_is_what_the_leaf_says_else_the_dim_else_its_default():
    def heads(leaf, **dims):
        (found,) = (
            x
            for x in leaves(resolved("token_embedding", leaf, "lm_head", **dims).graph)
            if x.word == "attention"
        )
        return found["heads"], found["kv_heads"], found["head_dim"]

    assert heads("attention") == (2, 2, 4)
    assert heads("attention", kv_heads=1) == (2, 1, 4)
    assert heads({"attention": {"heads": 4}}) == (4, 4, 2)
    assert heads({"attention": {"kv_heads": 2, "head_dim": 3}}, kv_heads=1) == (2, 2, 3)


def test_a_list_of_numbers_is_read_at_the_reader_s_own_layer():
    recipe = resolved("token_embedding", {"repeat": 3, "block": "glu"}, "lm_head", ff=[4, 5, 6])
    assert [leaf["ff"] for leaf in leaves(recipe.graph) if leaf.word == "glu"] == [4, 5, 6]


def test_an_expression_knows_its_layer_and_their_number():
    scale = {"attention": {"scale": "1 / (layer + layers)"}}
    recipe = resolved("token_embedding", {"repeat": 3, "block": scale}, "lm_head")
    found = [leaf["scale"] for leaf in leaves(recipe.graph) if leaf.word == "attention"]
    assert found == [1 / 3, 1 / 4, 1 / 5]


def test_a_dim_that_nothing_reads_is_refused_or_a_warning_if_a_leaf_could_read_it():
    assert refused("token_embedding", "glu", "lm_head", wide=3).code == "unread-dim"
    (warning,) = resolved("token_embedding", "glu", "lm_head").warnings  # heads
    assert warning.code == "unread-dim" and warning.severity == "warning"


# Structure


def test_none_vanishes_and_a_branch_of_nothing_with_it():
    plain = resolved("token_embedding", "glu", "lm_head").graph
    assert (
        resolved("token_embedding", "none", "glu", {"residual": "none"}, "lm_head").graph == plain
    )
    assert resolved("token_embedding", {"parallel": ["glu", "none"]}, "lm_head").graph == plain
    assert (
        resolved("token_embedding", {"repeat": 0, "block": "mlp"}, "glu", "lm_head").graph == plain
    )


def test_a_list_is_spliced_in_a_sequence_and_is_one_branch_in_parallel():
    recipe = resolved(
        "token_embedding", [["glu"], [["mlp"]]], {"parallel": [["glu", "mlp"], "glu"]}, "lm_head"
    )
    (layer,) = recipe.graph.layers
    assert isinstance(layer.body, Chain) and isinstance(layer.body.items[2], Parallel)
    assert [type(branch) for branch in layer.body.items[2].branches] == [Chain, Leaf]


def test_each_entry_of_a_pattern_is_a_layer_and_what_stands_beside_forms_one():
    recipe = resolved(
        "token_embedding",
        "attention",
        {"residual": "glu"},
        {"repeat": 2, "pattern": ["attention*2", ["attention", "glu"]]},
        "rmsnorm",
        "lm_head",
    )
    words = [[leaf.word for leaf in leaves(layer)] for layer in recipe.graph.layers]
    assert words == [
        ["attention", "glu"],
        *[["attention"], ["attention"], ["attention", "glu"]] * 2,
    ]
    assert [layer.index for layer in recipe.graph.layers] == list(range(7))


def test_only_the_innermost_of_nested_repeats_count_as_layers():
    inner = {"repeat": 2, "block": "glu"}
    recipe = resolved("token_embedding", {"repeat": 2, "block": [inner, "attention"]}, "lm_head")
    words = [leaf.word for layer in recipe.graph.layers for leaf in leaves(layer)]
    assert words == ["glu", "glu", "attention"] * 2 and len(recipe.graph.layers) == 6


def test_a_repeat_inside_a_branch_makes_copies_and_no_layers():
    recipe = resolved("token_embedding", {"residual": {"repeat": 3, "block": "glu"}}, "lm_head")
    (layer,) = recipe.graph.layers
    assert isinstance(layer.body, Residual) and len(list(leaves(layer))) == 3


def test_truncated_layers_stop_inside_the_pattern():
    node = {"layers": 5, "pattern": ["attention", "glu"], "remainder": "truncate"}
    recipe = resolved("token_embedding", node, "lm_head")
    assert [leaf.word for leaf in leaves(recipe.graph)][1:-1] == ["attention", "glu"] * 2 + [
        "attention"
    ]


def test_a_copy_of_a_block_is_changed_where_set_says():
    blocks = {"a": ["rmsnorm", "attention"], "b": {"like": "a", "set": {"attention.bias": True}}}
    recipe = resolved(
        "token_embedding", {"repeat": 1, "pattern": ["a", "b"]}, "lm_head", blocks=blocks
    )
    assert [leaf["bias"] for leaf in leaves(recipe.graph) if leaf.word == "attention"] == [
        False,
        True,
    ]


def test_shared_names_share_one_set_of_weights_and_others_do_not():
    blocks = {"a": "attention", "b": "glu"}
    node = {"repeat": 2, "pattern": ["a", "b"], "share": "a"}
    recipe = resolved("token_embedding", node, "lm_head", blocks=blocks)
    weights = [leaf.weights for leaf in leaves(recipe.graph) if leaf.kind in ("mixer", "ffn")]
    assert weights == ["layers.0.attention", "layers.1.glu", "layers.0.attention", "layers.3.glu"]


def test_the_experts_of_a_shared_mixture_are_the_first_one_s():
    recipe = resolved(
        "token_embedding", {"repeat": 2, "block": "moe", "share": True}, "lm_head", experts=2
    )
    experts = [leaf for leaf in leaves(recipe.graph) if leaf.word == "glu"]
    assert [leaf.weights for leaf in experts] == ["layers.0.moe.glu"] * 2


def test_weights_are_shared_by_what_is_written_and_not_by_chance():
    """Leaves that live for a moment only must never be taken for one another."""
    expert = {"moe": {"experts": 2, "expert": ["rmsnorm", "glu"]}}
    for _ in range(20):
        recipe = resolved("token_embedding", {"repeat": 8, "block": expert}, "lm_head")
        assert all(leaf.name == leaf.weights for leaf in leaves(recipe.graph))


def test_a_graph_can_be_hashed_and_compared():
    one, other = (
        resolved("token_embedding", {"repeat": 2, "block": "glu"}, "lm_head") for _ in "ab"
    )
    assert one.graph == other.graph and hash(one.graph) == hash(other.graph)
    assert one.hash == other.hash and isinstance(one.graph.items[1], Layer)
    assert one.hash != one.set("dims.ff", 13).hash
