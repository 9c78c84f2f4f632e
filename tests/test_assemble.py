"""The graph becomes modules: shared weights are one, caches are not."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from builder import build, load_recipe
from builder.assemble import count_adds
from builder.laws import perturb
from builder.loss import summed

DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 16, "experts": 3}
DECODER = [{"residual": ["rmsnorm", "attention"]}, {"residual": ["rmsnorm", "glu"]}]


def recipe_of(*model, **dims):
    return load_recipe({"recipe": 1, "dims": DIMS | dims, "model": list(model)})


def built(*model, seed=0, **dims):
    return build(recipe_of(*model, **dims), seed=seed, dtype=torch.float64).eval()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


# Sharing


def test_shared_layers_have_one_set_of_weights_and_a_cache_each():
    once = built("token_embedding", {"repeat": 1, "block": DECODER}, "lm_head")
    shared = built("token_embedding", {"repeat": 4, "block": DECODER, "share": True}, "lm_head")
    assert parameters(shared) == parameters(once)
    cache = shared.new_cache(1)
    shared(torch.tensor([[1, 2, 3]]), cache=cache)
    assert len(cache.states) == 4 and len({id(state) for state in cache.states.values()}) == 4
    keys = [state.buffers[0][:, :, :3] for state in cache.states.values()]
    assert not any(torch.equal(a, b) for a, b in pairwise(keys))


@torch.no_grad()
def test_shared_layers_are_copies_with_equal_weights():
    shared = perturb(
        built("token_embedding", {"repeat": 3, "block": DECODER, "share": True}, "lm_head"), 1
    )
    copies = built("token_embedding", {"repeat": 3, "block": DECODER}, "lm_head")
    state = shared.state_dict()
    for name, parameter in copies.named_parameters():
        depth = name.split(".")[1] if name.startswith("layers.") else "0"
        parameter.copy_(state[name.replace(f"layers.{depth}.", "layers.0.")])
    ids = torch.randint(11, (2, 9))
    assert torch.equal(shared(ids), copies(ids))


def test_shared_experts_are_one_stack():
    once = built("token_embedding", {"repeat": 1, "block": "moe"}, "lm_head")
    shared = built("token_embedding", {"repeat": 3, "block": "moe", "share": True}, "lm_head")
    assert list(shared.state_dict()) == list(once.state_dict())


def test_shared_weights_may_differ_in_what_shapes_nothing():
    block = {"attention": {"mask": {"sliding_window": "layer + 1"}}}
    model = built("token_embedding", {"repeat": 3, "block": block, "share": True}, "lm_head")
    assert [layer.attention.mask.span for layer in model.layers] == [1, 2, 3]
    assert len({id(layer.attention.q.weight) for layer in model.layers}) == 1


# First weights


@pytest.mark.parametrize(
    ("node", "adds"),
    [
        ({"repeat": 3, "block": DECODER}, 6),
        ({"repeat": 3, "block": DECODER, "share": True}, 6),
        ({"residual": [{"residual": "attention"}, "glu"]}, 2),
        ({"residual": {"parallel": ["attention", "glu"]}}, 1),
        ({"parallel": [{"residual": "attention"}, {"residual": "glu"}]}, 2),
        ("glu", 0),
    ],
)
def test_depth_is_the_number_of_additions_to_the_residual_stream(node, adds):
    assert count_adds(recipe_of("token_embedding", node, "lm_head").graph) == adds


def test_matrices_that_write_into_the_stream_shrink_with_depth_and_no_others():
    shallow = built("token_embedding", {"repeat": 1, "block": DECODER}, "lm_head")
    deep = built("token_embedding", {"repeat": 4, "block": DECODER}, "lm_head")
    theirs = dict(deep.named_parameters())
    for name, parameter in shallow.named_parameters():
        shrinks = name.endswith(("attention.o.weight", "glu.down.weight"))
        factor = math.sqrt(2 / 8) if shrinks else 1.0
        torch.testing.assert_close(theirs[name], factor * parameter, rtol=1e-6, atol=0)


def test_first_weights_are_normal_with_gains_at_one_and_biases_at_zero():
    block = ["layernorm", {"attention": {"bias": True}}, {"gain": 0.1}, "mlp"]
    model = built(
        "token_embedding", {"repeat": 2, "block": block}, "lm_head", dim=64, ff=256, vocab=500
    )
    values = model.state_dict()
    assert (values["layers.0.layernorm_before_attention.weight"] == 1).all()
    assert (values["layers.0.gain_after_attention.weight"] - 0.1).abs().max() < 1e-7
    for name in ("layernorm_before_attention.bias", "attention.q.bias", "mlp.up.bias"):
        assert not values[f"layers.1.{name}"].any()
    deviation = float(values["token_embedding.weight"].std())
    assert abs(deviation / 0.02 - 1) < 0.03  # 32,000 numbers: four deviations of their deviation
    assert float(values["token_embedding.weight"].mean().abs()) < 0.0005


def test_each_expert_is_drawn_by_its_own_number():
    few = built("token_embedding", "moe", "lm_head", experts=2)
    many = built("token_embedding", "moe", "lm_head", experts=5)
    name = "layers.0.moe.experts.gate.weight"
    assert torch.equal(dict(few.named_parameters())[name], dict(many.named_parameters())[name][:2])
    rows = dict(many.named_parameters())[name]
    assert not torch.equal(rows[0], rows[1])


# What people call


def test_a_model_on_meta_has_every_name_and_shape_and_no_storage():
    recipe = recipe_of("token_embedding", {"repeat": 2, "block": [*DECODER, "moe"]}, "lm_head")
    meta, real = build(recipe, device="meta"), build(recipe)
    assert all(parameter.is_meta for parameter in meta.parameters())
    shapes = [[(n, p.shape) for n, p in model.named_parameters()] for model in (meta, real)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_a_loss_is_the_mean_over_the_labels_that_count():
    model = perturb(built("token_embedding", {"repeat": 1, "block": DECODER}, "lm_head"), 2)
    ids = torch.randint(11, (2, 6))
    labels = torch.randint(11, (2, 6))
    labels[0, :4] = -100
    picked = model(ids).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = -picked[labels != -100].sum() / 8
    torch.testing.assert_close(model.loss(ids, labels), expected, rtol=0, atol=1e-12)
    assert float(model.loss(ids, torch.full_like(labels, -100))) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_loss_of_half_precision_is_summed_in_float32(dtype):
    logits = torch.randn(64, 11, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(64) % 11
    loss = summed(logits, labels)
    exact = -logits.double().log_softmax(-1)[torch.arange(64), labels].sum()
    assert loss.dtype == torch.float32
    assert abs(float(loss) / float(exact) - 1) < 1e-6


@torch.no_grad()
def test_the_balance_of_experts_is_part_of_the_loss_in_training_alone():
    model = perturb(built("token_embedding", {"moe": {"balance": 0.5}}, "lm_head"), 2)
    ids = torch.randint(11, (2, 6))
    quiet = model.eval().loss(ids, ids)
    assert float(model.train().loss(ids, ids)) > float(quiet) + 0.25


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ids": torch.zeros(3, dtype=torch.long)}, r"ids of shape \(3,\)"),
        ({"ids": torch.zeros(1, 0, dtype=torch.long)}, r"ids of shape \(1, 0\)"),
        ({"padding": torch.zeros(1, 4, dtype=torch.bool)}, r"padding of shape \(1, 4\)"),
        ({"documents": torch.zeros(2, 3, dtype=torch.long)}, r"documents of shape \(2, 3\)"),
    ],
)
def test_shapes_that_disagree_are_refused(given, message):
    model = built("token_embedding", "lm_head")
    with pytest.raises(ValueError, match=message):
        model(**{"ids": torch.zeros(1, 3, dtype=torch.long), **given})
