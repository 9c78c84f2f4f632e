"""What is seen inside a model is what it computes with."""

from __future__ import annotations

import pytest
import torch

from blocks.watch import WATCHERS
from builder import build, load_recipe
from builder.inside import look_inside
from builder.tokenizers import numbered
from tests.ablations import page
from tests.test_report import Reader

ATTENTIONS = {
    "plain": {"position": "rope"},
    "grouped": {"position": "rope", "kv_heads": 1},
    "window": {"position": "rope", "mask": {"sliding_window": 4}},
    "biased": {"position": "alibi", "softcap": 5.0},
    "sinks": {"position": "rope", "sinks": True},
}
IDS = torch.arange(3, 23)


def model_of(attention, **dims):
    made = page()
    made["blocks"]["decoder"][0] = {"residual": ["rmsnorm", attention]}
    made["dims"] = {**made["dims"], **dims}
    return build(load_recipe(made), seed=1, dtype=torch.float64)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_weights_are_those_that_weigh_the_values(name):
    """Values weighed by them, through the last projection, are what the attention gave."""
    model = model_of({"attention": ATTENTIONS[name]})
    module, given = model.layers[1].attention, []
    hook = module.register_forward_hook(lambda m, x, out: given.append((x[0], out)))
    seen = look_inside(model, IDS)
    hook.remove()
    weights = seen.attention["layers.1.attention"]
    ((x, out),) = given
    v = module.v(x).unflatten(-1, (module.kv_heads, -1)).transpose(1, 2)[0]
    v = v.repeat_interleave(module.heads // module.kv_heads, 0)
    weighed = (weights @ v).transpose(0, 1).flatten(1)
    assert torch.allclose(module.o(weighed), out[0], atol=1e-12)
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))
    total = weights.sum(-1)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12) == (name != "sinks")
    if name == "window":
        assert not weights.tril(-4).any() and weights.tril(-3).any()


def test_latent_attention_is_seen_too():
    leaf = {"latent_attention": {"kv_rank": 8, "head_dim": 4, "rope_dim": 4, "value_dim": 4}}
    model = model_of(leaf)
    assert set(look_inside(model, IDS).attention) == {
        "layers.0.latent_attention",
        "layers.1.latent_attention",
    }


def test_the_last_depth_says_what_the_model_says():
    model = model_of({"attention": {"position": "rope"}})
    seen = look_inside(model, IDS[None])
    lens = seen.lens()
    assert lens.shape == (3, 20, 300) and seen.norms().shape == (3, 20)
    assert torch.equal(lens[-1], model.eval()(IDS[None])[0])
    assert not torch.allclose(lens[0], lens[-1])
    embedded = model.token_embedding(IDS)
    assert torch.equal(seen.streams[0], embedded)
    assert torch.equal(seen.norms()[0], embedded.norm(dim=-1))


def test_looking_leaves_no_trace():
    model = model_of({"attention": {"position": "rope"}}).train()
    before = model.eval()(IDS[None])
    model.train()
    look_inside(model, IDS)
    assert model.training and WATCHERS == []
    assert torch.equal(model.eval()(IDS[None]), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_without_layers_or_attention_is_seen_as_it_is():
    made = page()
    made["model"] = ["token_embedding", {"linear": 8}, {"linear": 16}, "lm_head"]
    made["blocks"] = {}
    made["dims"] = {"dim": 16, "vocab": 300, "context": 24}
    seen = look_inside(build(load_recipe(made)), IDS)
    assert seen.streams == () and seen.attention == {}


def test_notebooks_show_tables_maps_and_diagrams():
    model = model_of({"attention": {"position": "rope"}})
    seen = look_inside(model, IDS, numbered(300))
    table, map = seen._repr_html_(), seen.map("layers.0.attention")._repr_html_()
    diagram = model.recipe._repr_html_()
    for text in (table, map, diagram):
        assert Reader(text).open == []
    assert table.count("<tr>") == 4 and ">22<" in table
    assert map.count("head 1") == 1 and "<rect" in map
    assert diagram.lstrip().startswith("<svg") and "attention" in diagram
    with pytest.raises(KeyError):
        seen.map("layers.9.attention")
