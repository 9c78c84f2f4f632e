"""Labels, references and joiners: what is read across depth, and what may not be."""

from __future__ import annotations

import pytest
import torch

from builder import build, load_recipe
from builder.errors import RecipeError
from builder.graph import Edge, Tap, leaves, walk
from builder.index import load_index
from builder.laws import perturb
from builder.laws.probe import traced

DIMS = {"dim": 8, "heads": 2, "kv_heads": 1, "ff": 6, "vocab": 11, "context": 24}
HALVES = {"repeat": 2, "block": {"residual": ["rmsnorm", "glu"], "as": "skip"}}
IDS = torch.tensor([[1, 5, 2, 9, 3, 3, 7]])


def recipe_of(*model, blocks=None, **dims):
    page = {"recipe": 1, "dims": DIMS | dims, "blocks": blocks or {}, "model": list(model)}
    return load_recipe(page)


def graph_of(*nodes, **more):
    return recipe_of("token_embedding", *nodes, "lm_head", **more).graph


def built(*nodes, **more):
    recipe = recipe_of("token_embedding", *nodes, "lm_head", **more)
    return perturb(build(recipe, dtype=torch.float64).eval(), 1)


def edges(graph, option):
    """What each leaf that has the option reads, in order of execution."""
    return [dict(leaf.options)[option] for leaf in leaves(graph) if option in dict(leaf.options)]


def fault(*nodes, **more):
    with pytest.raises(RecipeError) as caught:
        graph_of(*nodes, **more)
    return caught.value


def outputs(model, ids=IDS):
    """Every leaf's output in one reading, by name."""
    with traced(model) as seen, torch.no_grad():
        model(ids)
    return {name: tensors[0] for (name, _), tensors in seen.items()}


# What a label means


def test_a_label_means_its_nearest_earlier_place():
    body = [{"residual": "glu", "as": "a"}, {"residual": "mlp", "as": "a"}, {"add": "a"}]
    graph = graph_of({"repeat": 2, "block": body})
    assert edges(graph, "source") == [Edge("stream", 0), Edge("stream", 1)]


def test_only_the_place_that_is_meant_must_be_alike():
    wide = [{"linear": 4}, {"glu": {}, "as": "a"}, {"linear": 8}]
    graph = graph_of(*wide, {"glu": {}, "as": "a"}, {"add": "a"})
    assert edges(graph, "source") == [Edge("stream", 0)]


def test_a_number_means_that_place_counted_from_the_first():
    second = {"repeat": 2, "block": [{"add": "skip(layers - 1 - layer)"}, {"residual": "mlp"}]}
    graph = graph_of(HALVES, second)
    assert edges(graph, "source") == [Edge("stream", 1), Edge("stream", 0)]


def test_many_means_all_before_and_not_what_arrives_itself():
    body = [{"residual": "glu", "as": "depth"}, {"mix": "depth"}]
    graph = graph_of({"residual": "mlp", "as": "depth"}, {"repeat": 2, "block": body})
    first, second = edges(graph, "sources")
    assert first == (Edge("stream", 0),)
    assert second == (Edge("stream", 0), Edge("stream", 1))


def test_a_label_on_a_block_is_one_on_its_last_node():
    blocks = {"one": ["rmsnorm", {"residual": "glu"}]}
    inside = {"one": ["rmsnorm", {"residual": "glu", "as": "a"}]}
    ours = graph_of({"like": "one", "as": "a"}, {"add": "a"}, blocks=blocks)
    assert ours == graph_of("one", {"add": "a"}, blocks=inside)


def test_a_label_on_the_layers_is_one_on_the_last_of_them():
    ours = graph_of({"repeat": 2, "block": "glu", "as": "a"}, {"add": "a"})
    pattern = {"repeat": 1, "pattern": ["glu", {"glu": {}, "as": "a"}]}
    assert ours == graph_of(pattern, {"add": "a"})


def test_a_label_that_nothing_reads_changes_nothing_and_is_told():
    plain = recipe_of("token_embedding", {"residual": ["rmsnorm", "glu"]}, "lm_head")
    labelled = recipe_of(
        "token_embedding", {"residual": ["rmsnorm", {"glu": {}, "as": "a"}], "as": "b"}, "lm_head"
    )
    assert labelled.graph == plain.graph and labelled.hash == plain.hash
    codes = [warning.code for warning in labelled.warnings]
    assert codes.count("unread-label") == 2


def test_two_labels_on_one_place_are_one_tap():
    graph = graph_of(
        {"residual": {"glu": {}, "as": "inner"}, "as": "a"}, {"add": "a"}, {"add": "inner"}
    )
    doubled = graph_of({"like": "f", "as": "b"}, {"add": "a"}, {"add": "b"}, blocks={"f": ALIKE})
    assert edges(doubled, "source") == [Edge("stream", 0)] * 2
    assert edges(graph, "source") == [Edge("stream", 1), Edge("stream", 0)]


ALIKE = {"residual": "glu", "as": "a"}


def test_a_place_with_two_labels_is_tapped_once():
    graph = graph_of({"like": "f", "as": "b"}, {"add": "a"}, {"add": "b"}, blocks={"f": ALIKE})
    assert [item.number for item in walk(graph) if isinstance(item, Tap)] == [0]


def test_taps_are_numbered_in_order_of_execution():
    graph = graph_of(
        *[{"residual": "glu", "as": name} for name in "abc"], {"add": "c"}, {"add": "a"}
    )
    taps = [item.number for item in walk(graph) if isinstance(item, Tap)]
    assert taps == [0, 1]
    assert edges(graph, "source") == [Edge("stream", 1), Edge("stream", 0)]


def test_the_names_of_labels_take_no_part():
    ours = recipe_of("token_embedding", {"glu": {}, "as": "a"}, {"add": "a"}, "lm_head")
    theirs = recipe_of("token_embedding", {"glu": {}, "as": "skip"}, {"add": "skip"}, "lm_head")
    assert ours.graph == theirs.graph and ours.hash == theirs.hash


def test_the_resolved_page_keeps_labels_and_what_they_mean():
    nodes = ({"lerp": "glu", "as": "a"}, {"residual": "mlp", "as": "b"}, {"add": "a"})
    recipe = recipe_of("token_embedding", *nodes, "lm_head")
    assert load_recipe(recipe.resolved).graph == recipe.graph


# What is read


def test_add_adds_what_the_label_names():
    model = built({"residual": "glu", "as": "a"}, {"residual": "mlp"}, {"add": "a"}, "rmsnorm")
    seen = outputs(model)
    after_glu = seen["token_embedding"] + seen["layers.0.glu"]
    after_mlp = after_glu + seen["layers.0.mlp"]
    added = next(x for name, x in seen.items() if name.startswith("add"))
    torch.testing.assert_close(added, after_mlp + after_glu, rtol=0, atol=1e-12)


def test_mix_weighs_every_place_and_its_own():
    body = [{"glu": {}, "as": "depth"}, {"mix": "depth"}]
    model = built({"repeat": 3, "block": body})
    seen, mix = outputs(model), model.layers[2].mix_after_glu
    sources = [seen[f"layers.{i}.glu"] for i in range(3)]
    expected = mix.own * sources[2] + mix.weight[0] * sources[0] + mix.weight[1] * sources[1]
    torch.testing.assert_close(seen["layers.2.mix_after_glu"], expected, rtol=0, atol=1e-12)


def test_mix_begins_as_nothing():
    body = [{"glu": {}, "as": "depth"}, {"mix": "depth"}]
    recipe = recipe_of("token_embedding", {"repeat": 3, "block": body}, "lm_head")
    plain = recipe_of("token_embedding", {"repeat": 3, "block": "glu"}, "lm_head")
    assert torch.equal(build(recipe)(IDS), build(plain)(IDS))


OWNER = {"attention": {"position": "rope"}, "as": "memory"}
READER = {"attention": {"position": "rope", "kv_from": "memory"}}


def test_borrowed_keys_and_values_are_those_of_their_owner():
    """An attention with the same weights throughout, whose input is the owner's, agrees with it."""
    model = built({"parallel": [OWNER, READER]})
    owner, reader = model.layers[0].attention, model.layers[0].attention_2
    assert [name for name, _ in reader.named_parameters()] == ["q.weight", "o.weight"]
    reader.load_state_dict({name: owner.state_dict()[name] for name in ("q.weight", "o.weight")})
    seen = outputs(model)
    assert torch.equal(seen["layers.0.attention"], seen["layers.0.attention_2"])


def test_borrowers_have_no_cache_and_one_serves_all():
    again = {"attention": {"position": "rope", "kv_from": "memory"}, "as": "memory"}
    model = built({"repeat": 1, "pattern": [OWNER, again, READER]})
    cache = model.new_cache(1)
    model(IDS, cache=cache)
    assert len(cache.states) == 1
    assert cache.nbytes == 2 * 7 * 4 * 8  # keys and values, positions, head_dim, bytes


@pytest.mark.parametrize(("mine", "theirs", "span"), [(3, 5, 5), (5, 3, 5), (3, None, None)])
def test_the_owner_keeps_the_widest_span_that_any_reader_needs(mine, theirs, span):
    def masked(node, window):
        mask = "causal" if window is None else {"sliding_window": window}
        return {**node, "attention": {**node["attention"], "mask": mask}}

    model = built({"repeat": 1, "pattern": [masked(OWNER, mine), masked(READER, theirs)]})
    (state,) = model.new_cache(1).states.values()
    assert state.span == span


def test_a_value_residual_weighs_the_two_values_and_caches_its_own():
    first = {"attention": {"position": "rope"}, "as": "first"}
    other = {"attention": {"position": "rope", "value_from": "first"}}
    model = built({"parallel": [first, other]})
    ours, theirs = model.layers[0].attention_2, model.layers[0].attention
    plain = built({"parallel": ["attention", {"attention": {"position": "rope"}}]})
    own, lent = ours.value_mix
    state = {**ours.state_dict(), "v.weight": own * ours.v.weight + lent * theirs.v.weight}
    state.pop("value_mix")
    plain.layers[0].attention_2.load_state_dict(state)
    plain.token_embedding.weight = model.token_embedding.weight
    mixed, expected = outputs(model), outputs(plain)
    name = "layers.0.attention_2"
    torch.testing.assert_close(mixed[name], expected[name], rtol=0, atol=1e-12)
    assert len(model.new_cache(1).states) == 2


@pytest.mark.parametrize("option", ["kv_from", "value_from"])
@torch.no_grad()
def test_what_is_lent_is_the_same_read_in_pieces(option):
    reader = {"attention": {"position": "rope", option: "memory"}}
    model = built({"repeat": 1, "pattern": [OWNER, reader, "rmsnorm"]})
    cache = model.new_cache(1)
    pieces = [model(piece, cache=cache) for piece in IDS.split([3, 1, 3], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(IDS), rtol=0, atol=1e-12)


def test_shared_weights_read_across_depth_each_in_its_own_place():
    body = [{"add": "skip"}, {"residual": ["rmsnorm", "glu"], "as": "skip"}]
    model = built({"glu": {}, "as": "skip"}, {"repeat": 3, "block": body, "share": True})
    once = built({"glu": {}, "as": "skip"}, {"repeat": 1, "block": body})
    assert len(list(model.parameters())) == len(list(once.parameters()))


# What is refused


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ([{"add": "a"}, {"glu": {}, "as": "a"}], "unknown-label"),
        ([{"glu": {}, "as": "near"}, {"add": "naer"}], "unknown-label"),
        ([HALVES, {"add": "skip(2)"}], "unknown-label"),
        ([HALVES, {"mix": "skip(0)"}], "not-a-word"),
        ([{"glu": {}, "as": "a b"}], "not-a-word"),
        ([{"glu": {}, "as": "none"}], "not-a-word"),
        ([{"glu": {}, "as": "a"}, {"linear": 4}, {"add": "a"}, {"linear": 8}], "label-differs"),
        ([{"glu": {}, "as": "memory"}, READER], "label-lends"),
        ([{"residual": "attention", "as": "memory"}, READER], "label-lends"),
        ([{"attention": {}, "as": "memory"}, READER], "label-differs"),
        ([OWNER, {"attention": {**READER["attention"], "kv_heads": 2}}], "label-differs"),
        ([OWNER, {"attention": {**READER["attention"], "value_from": "memory"}}], "check-failed"),
        ([{"glu": {}, "as": "a"}, {"moe": {"expert": {"add": "a"}, "experts": 2}}], "expert-mixes"),
        ([{"moe": {"expert": {"glu": {}, "as": "a"}, "experts": 2}}], "expert-mixes"),
        ([{"lerp": "glu", "rate": 1}], "unknown-word"),
        (["lerp"], "missing-value"),
        ([{"hyper": "rmsnorm", "streams": 3}], "check-failed"),
        ([{"lerp": {"linear": 4}}], "branch-changes"),
    ],
)
def test_wrong_wiring_is_refused(nodes, code):
    assert fault(*nodes).code == code


def test_a_mix_that_reads_more_at_each_layer_cannot_share_its_weights():
    body = [{"glu": {}, "as": "depth"}, {"mix": "depth"}]
    assert fault({"repeat": 2, "block": body, "share": True}).code == "shared-sizes"


def test_the_message_names_the_nearest_label():
    error = fault({"glu": {}, "as": "near"}, {"add": "naer"})
    assert error.help == "did you mean 'near'?"


# Joiners


def test_lerp_steps_towards_what_its_branch_gives():
    model = built({"lerp": "glu", "initial": 0.1}, "rmsnorm")
    seen, rate = outputs(model), model.layers[0].lerp_around_glu.rate
    x, f = seen["token_embedding"], seen["layers.0.glu"]
    expected = (1 - rate) * x + rate * f
    torch.testing.assert_close(seen["layers.0.lerp_around_glu"], expected, rtol=0, atol=1e-12)


def test_hyper_with_one_static_stream_is_a_residual():
    model = build(recipe_of("token_embedding", hyper("glu", streams=1), "lm_head"))
    plain = build(recipe_of("token_embedding", {"residual": "glu"}, "lm_head"))
    torch.testing.assert_close(model(IDS), plain(IDS))


def hyper(node, **options):
    return {"hyper": node, "dynamic": False, **options}


@pytest.mark.parametrize("first", [1, 4, 10])
def test_hyper_reads_at_first_the_stream_that_it_is_told(first):
    model = build(
        recipe_of(
            "token_embedding",
            {"open_streams": 3},
            hyper("glu", streams=3, first=first),
            {"sum_streams": 3},
            "lm_head",
        )
    )
    joiner = model.layers[0].hyper_around_glu
    assert joiner.read.tolist() == [0, 1, 0]
    assert joiner.write.tolist() == [1, 1, 1]
    assert torch.equal(joiner.mix, torch.eye(3))


def test_what_is_dynamic_begins_as_nothing():
    model = build(recipe_of("token_embedding", {"hyper": "glu", "streams": 2}, "lm_head"))
    joiner = model.layers[0].hyper_around_glu
    assert not joiner.weigh.any()
    assert joiner.scale.tolist() == pytest.approx([0.01] * 3)


def test_hyper_reads_and_writes_the_streams_by_its_weights():
    model = built({"open_streams": 2}, {"hyper": "glu", "streams": 2}, {"sum_streams": 2})
    seen, joiner = outputs(model), model.layers[0].hyper_around_glu
    h = seen["open_streams_before_layers"].unflatten(-1, (2, 8))
    read, write, mix = joiner.weights(h)
    expected = torch.zeros_like(h)
    for s in range(2):
        expected[..., s, :] = write[..., s, None] * seen["layers.0.glu"]
        for r in range(2):
            expected[..., s, :] += mix[..., r, s, None] * h[..., r, :]
    got = seen["layers.0.hyper_around_glu"].unflatten(-1, (2, 8))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    inside = sum(read[..., s, None] * h[..., s, :] for s in range(2))
    glu = model.layers[0].glu(inside)
    torch.testing.assert_close(glu, seen["layers.0.glu"], rtol=0, atol=1e-12)


def test_streams_open_alike_and_close_to_their_sum():
    model = built({"open_streams": 3}, {"sum_streams": 3}, "rmsnorm")
    seen = outputs(model)
    embedded = seen["token_embedding"]
    torch.testing.assert_close(seen["sum_streams"], 3 * embedded, rtol=0, atol=1e-12)


def test_a_joiners_options_are_set_by_a_path_and_its_branch_is_looked_through():
    page = """
recipe: 1
dims: {dim: 8, ff: 6, vocab: 11, context: 8}
blocks: {decoder: [{lerp: [rmsnorm, glu], initial: 0.1}]}
model: [token_embedding, decoder, lm_head]
"""
    recipe = load_recipe(page, ["blocks.decoder.lerp.initial=0.5", "blocks.decoder.glu.act=relu"])
    joined = recipe.graph.layers[0].body
    assert joined.joiner["initial"] == 0.5
    assert joined.body.items[1]["act"].word == "relu"
    assert "initial: 0.5" in recipe.resolved


def test_no_joiner_takes_an_option_that_is_a_node_word():
    """In one map it would be a second node."""
    index = load_index()
    words = set(index.words("node"))
    for entry in index.kinds["joiner"]:
        assert not words & {parameter.name for parameter in entry.parameters}, entry.word
