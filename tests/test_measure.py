"""What a recipe is said to cost is what its model costs when it runs on real tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from builder import build, load_recipe
from builder import measure as measuring
from builder.errors import InputError
from builder.index import load_index
from builder.laws import recipes
from builder.laws.authors import registered_meanwhile
from builder.loss import at_once
from builder.measure import DTYPES, choose_evenly, measure, optimizer_bytes, saved_bytes

ROOT = Path(__file__).resolve().parent.parent
DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 24}
LOCAL = {"attention": {"position": "rope", "mask": {"sliding_window": 3}}}


def recipe_of(*model, blocks=None, plugins=(), **dims):
    page = {"recipe": 1, "dims": DIMS | dims, "blocks": blocks or {}, "model": list(model)}
    return load_recipe(page, (), plugins)


def counted(run: Callable[[], object]) -> int:
    """FLOPs of a run on the CPU, attention's two products made where they can be counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def ids_of(recipe, *shape):
    return torch.randint(recipe.graph.vocab, shape, generator=torch.Generator().manual_seed(0))


MOE = {"moe": {"expert": ["rmsnorm", "glu"], "router": {"softmax": {"top_k": 2}}, "balance": 0.1}}
EVERYTHING = recipe_of(
    "token_embedding",
    {"repeat": 3, "pattern": [{"residual": LOCAL}, {"residual": MOE}]},
    "layernorm",
    {"lm_head": {"tie": True}},
    {"softcap": 5.0},
    experts=5,
)
NORMED = recipe_of(
    "token_embedding", "mlp", "layernorm", {"layernorm": {"weight": False}}, "lm_head"
)
SHARED = recipe_of(
    "token_embedding",
    {"repeat": 3, "block": {"residual": ["attention", "mlp"]}, "share": True},
    "lm_head",
)
WIRED = recipe_of(
    "token_embedding",
    {"open_streams": 2},
    {"hyper": {"attention": {"kv_heads": 1}, "as": "first"}, "streams": 2},
    {"hyper": {"attention": {"kv_heads": 1, "value_from": "first"}}, "streams": 2},
    {"sum_streams": 2},
    {"attention": {"mask": {"sliding_window": 3}}, "as": "memory"},
    {"lerp": {"attention": {"kv_from": "memory"}}},
    "lm_head",
)


# Against a real model


@pytest.mark.slow
@given(recipe=recipes(), length=st.integers(1, 12))
@example(recipe=EVERYTHING, length=7)
@example(recipe=SHARED, length=4)
@example(recipe=WIRED, length=9)
def test_costs_of_a_recipe_are_those_of_its_model(recipe, length):
    costs, model = measure(recipe, length, batch=2), build(recipe)
    ids = ids_of(recipe, 1, length)
    assert costs.parameters == sum(p.numel() for p in model.parameters())
    assert costs.train == counted(lambda: model.loss(ids, ids).backward())
    model.eval()
    assert costs.prefill == counted(lambda: model(ids))
    cache = model.new_cache(1)
    if length > 1:
        model(ids[:, :-1], cache=cache)
    assert costs.decode == counted(lambda: model(ids[:, -1:], cache=cache))
    assert costs.cache_bytes == cache.nbytes


@pytest.mark.slow
@given(recipe=recipes(), length=st.integers(1, 12), dtype=st.sampled_from(sorted(DTYPES)))
@example(recipe=EVERYTHING, length=7, dtype="bf16")
@example(recipe=NORMED, length=3, dtype="bf16")
@example(recipe=SHARED, length=4, dtype="fp32")
@example(recipe=WIRED, length=9, dtype="bf16")
def test_memory_of_a_recipe_is_that_of_its_training_step(recipe, length, dtype):
    memory, model = measure(recipe, length, 2, dtype).memory, build(recipe)
    assert memory.weights == memory.gradients == sum(p.nbytes for p in model.parameters())
    if dtype != "fp32":  # of an expert in use there is a copy in bf16: here all are
        choose_evenly(model)
    chunk = at_once(None, recipe.graph.vocab)
    assert memory.activations == saved_bytes(model, ids_of(recipe, 2, length), dtype, chunk)
    assert memory.optimizer == optimizer_bytes(model, recipe)


def test_flops_on_meta_are_those_that_torch_counts():
    recipe, length = load_recipe(ROOT / "recipes/mistral.yaml"), 128
    model, ids = build(recipe, device="meta"), torch.empty(1, length, dtype=torch.long).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(ids)
    assert measure(recipe).prefill == counter.get_total_flops()


# Against sums done by hand


def test_costs_of_llama_7b_follow_from_its_sizes():
    costs = measure(load_recipe(ROOT / "recipes/published/llama2-7b.yaml"), 1024)
    vocab, dim, ff, layers = 32000, 4096, 11008, 32
    matrices = layers * (4 * dim * dim + 3 * dim * ff) + vocab * dim
    scores = layers * 2 * 2 * dim * 1024  # q k^T and the weighted values, every place with every
    assert costs.parameters == costs.active_parameters == 6_738_415_616
    assert costs.embedding_parameters == 2 * vocab * dim
    assert costs.per_token(costs.prefill) == costs.decode == 2 * matrices + scores
    assert costs.train == 3 * costs.prefill
    assert costs.cache_bytes_per_token == layers * 2 * dim * 4
    assert costs.cache_bytes == costs.cache_bytes_per_token * 1024
    assert costs.memory.weights == 4 * costs.parameters


def test_each_leaf_is_told_its_own_costs():
    costs = measure(recipe_of("token_embedding", "attention", "glu", "rmsnorm", "lm_head"), 6)
    own = {c.leaf.word: (c.parameters, c.prefill, c.train) for c in costs.leaves}
    glu, attention = 6 * 2 * 3 * 8 * 6, 6 * (2 * 4 * 8 * 8 + 2 * 2 * 8 * 6)
    assert own["glu"] == (3 * 8 * 6, glu, 3 * glu)
    assert own["attention"] == (4 * 8 * 8, attention, 3 * attention)
    assert own["rmsnorm"] == (8, 0, 0)
    assert own["token_embedding"] == (88, 0, 0)


def test_a_joiner_is_not_charged_for_its_body():
    costs = measure(recipe_of("token_embedding", {"lerp": "glu"}, "lm_head"), 4)
    own = {c.leaf.word: (c.parameters, c.prefill) for c in costs.leaves}
    assert own["lerp"] == (8, 0) and own["glu"] == (144, 4 * 2 * 144)


def test_only_the_chosen_experts_are_active():
    costs = measure(EVERYTHING)
    experts = 3 * 5 * (8 + 3 * 8 * 6)
    assert costs.parameters - costs.active_parameters == experts * 3 // 5


def test_a_norm_for_each_head_is_in_use_as_a_whole():
    attention = {"attention": {"qk_norm": "rmsnorm", "qk_norm_over": "each"}}
    costs = measure(recipe_of("token_embedding", attention, "lm_head"), 4)
    assert costs.active_parameters == costs.parameters


def test_a_tied_head_and_shared_weights_count_where_they_first_occur():
    tied = recipe_of("token_embedding", {"lm_head": {"tie": True}})
    assert [c.parameters for c in measure(tied).leaves] == [88, 0]
    assert measure(tied).embedding_parameters == 88
    shared = measure(SHARED)
    assert [c.parameters > 0 for c in shared.leaves] == [True] * 3 + [False] * 4 + [True]
    assert len({c.prefill for c in shared.leaves if c.leaf.word == "mlp"}) == 1


def test_a_window_bounds_the_cache_but_not_what_the_first_tokens_take():
    model = ["token_embedding", LOCAL, "attention", "lm_head"]
    local, full = (c for c in measure(recipe_of(*model)).leaves if c.leaf.word == "attention")
    assert local.cache_bytes_per_token == full.cache_bytes_per_token == 2 * 8 * 4
    assert (local.cache_bytes, full.cache_bytes) == (2 * 2 * 8 * 4, 24 * 2 * 8 * 4)


def test_a_memory_that_does_not_grow_takes_nothing_per_token():
    recipe = recipe_of("token_embedding", "gated_delta", "lm_head")
    short, long = measure(recipe, 1), measure(recipe, 24)
    assert short.cache_bytes_per_token == long.cache_bytes_per_token == 0
    assert short.cache_bytes == long.cache_bytes > 0


def test_what_reads_the_cache_of_another_has_none_of_its_own():
    own = [c.cache_bytes for c in measure(WIRED, 9).leaves if c.leaf.word == "attention"]
    assert own[-1] == 0 and own[-2] == 9 * 2 * 8 * 4  # as many as its reader, without a window


# What it is measured at


def test_dtype_is_the_recipe_s_own_unless_another_is_asked():
    recipe = load_recipe(ROOT / "recipes/llama.yaml", ["train.dtype=bf16"])
    half, full = measure(recipe, batch=16), measure(recipe, batch=16, dtype="fp32")
    assert (half.dtype, half.length, half.batch) == ("bf16", 128, 16)
    assert 2 * half.cache_bytes == full.cache_bytes
    assert half.memory.weights == full.memory.weights  # training keeps them in float32
    assert half.memory.activations < full.memory.activations


def test_dtypes_are_those_of_training():
    choices = load_index().filler("section", "train").parameter("dtype").type.choices
    assert set(DTYPES) == set(choices)


def test_activations_grow_with_the_batch_and_nothing_else_does():
    one, four = (measure(EVERYTHING, batch=batch) for batch in (1, 4))
    assert one.leaves == four.leaves
    assert one.memory.activations < four.memory.activations
    assert one.memory.optimizer == four.memory.optimizer


def test_more_tokens_than_a_model_can_read_are_refused():
    recipe = recipe_of("token_embedding", "learned_positions", "lm_head")
    assert measure(recipe, 24).length == 24
    with pytest.raises(InputError) as caught:
        measure(recipe, 25)
    assert caught.value.code == "length-over-limit" and caught.value.help == "--length 24"


# Leaves that are passed over, and those that cannot run


@pytest.mark.slow
def test_passing_over_leaves_that_are_alike_changes_nothing(monkeypatch):
    page = {"repeat": 5, "pattern": [LOCAL, {"residual": MOE}, {"lerp": "gated_delta"}]}
    recipe = recipe_of("token_embedding", page, "lm_head", experts=3)
    fast = measure(recipe, 7)
    monkeypatch.setattr(measuring, "ALIKE", 100)
    assert measure(recipe, 7) == fast


PLUGIN = '''
import torch
from torch import Tensor, nn

from blocks.call import Call
from blocks.registry import register


@register("peeks", kind="ffn")
class Peeks(nn.Module):
    """Looks at its data.  Shapes: ``(B, T, dim) -> (B, T, dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if x.sum().item() > 0 else x


@register("once", kind="ffn")
class Once(nn.Module):
    """Its first one pays for all.  Shapes: ``(B, T, dim) -> (B, T, dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, call: Call) -> Tensor:
        return x + call.once("product", lambda: x @ x.mT).mean()


@register("around", kind="joiner")
class Around(nn.Module):
    """Looks at its data.  Shapes: ``(B, T, dim) -> (B, T, dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, body) -> Tensor:
        return body(x) if bool(x.sum() > 0) else x + body(x)
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / f"{tmp_path.name}.py"
    path.write_text(PLUGIN)
    with registered_meanwhile([path]):
        yield path


def test_what_cannot_run_without_data_is_unknown_and_so_are_its_sums(plugin):
    model = ["token_embedding", "attention", {"repeat": 3, "block": "peeks"}, "glu", "lm_head"]
    costs = measure(recipe_of(*model, plugins=[plugin]), 6)
    _, attention, *peeks, glu, _ = costs.leaves
    assert [(c.prefill, c.decode, c.train) for c in peeks] == [(None, None, None)] * 3
    assert (attention.train, glu.train) == (3 * attention.prefill, 3 * glu.prefill)
    assert costs.prefill is costs.decode is costs.train is None
    assert costs.memory.activations is costs.memory.total is None
    assert costs.parameters == sum(c.parameters for c in costs.leaves) == 176 + 256 + 3 * 64 + 144
    assert costs.cache_bytes == attention.cache_bytes > 0  # what remembers nothing is known to


def test_a_joiner_that_cannot_run_leaves_its_body_known(plugin):
    recipe = recipe_of("token_embedding", {"around": ["glu", "mlp"]}, "lm_head", plugins=[plugin])
    _, around, glu, mlp, head = measure(recipe, 4).leaves
    assert around.prefill is None
    assert glu.prefill == 4 * 2 * 144 and mlp.prefill and head.train == 3 * head.prefill


def test_what_the_first_of_many_pays_for_all_is_counted_once(plugin):
    recipe = recipe_of(
        "token_embedding", {"repeat": 4, "block": "once"}, "lm_head", plugins=[plugin]
    )
    assert [c.prefill for c in measure(recipe, 4).leaves[1:-1]] == [2 * 8 * 4 * 4, 0, 0, 0]


def test_without_training_all_else_is_as_it_was():
    full, some = measure(EVERYTHING), measure(EVERYTHING, training=False)
    assert some.memory is None and some.train is None
    fields = ("parameters", "active_parameters", "prefill", "decode", "cache_bytes")
    assert all(getattr(some, name) == getattr(full, name) for name in fields)
