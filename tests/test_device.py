"""A model is the same on every device; on a GPU, where there is one, every law holds too."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import build, load_recipe
from builder.__main__ import main
from builder.laws import Case, recipes
from builder.laws.case import gradients, read
from builder.laws.precision import kernels
from builder.laws.probe import TOLERANCE, distance, gradients_agree
from tests.test_laws import RECIPES, hold_shard
from tests.test_routes import FIXED, check_compiled

FEWER = RECIPES // 20  # than on the CPU
SHARD = 50
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


def test_weights_are_the_same_whatever_device_torch_defaults_to():
    recipe = load_recipe("recipes/llama.yaml", ["model.repeat=1"])
    usual = build(recipe).state_dict()
    with torch.device("meta"):
        found = build(recipe, device="cpu").state_dict()
        assert {x.device.type for x in build(recipe).state_dict().values()} == {"meta"}
    assert all(torch.equal(found[name], weight) for name, weight in usual.items())


@GPU
def test_a_gpu_has_kernels_of_its_own():
    assert len(kernels("cuda", torch.bfloat16)) > len(kernels("cpu", torch.bfloat16))


@GPU
@settings(max_examples=FEWER)
@given(recipe=recipes(), number=st.integers(0, 999))
def test_a_gpu_gives_what_the_cpu_gives(recipe, number):
    case = Case(recipe, number)
    expected = read(case.model, case.ids())
    pulls = gradients(case.model, case.weigh(expected))
    model = copy.deepcopy(case.model).cuda()
    logits = read(model, case.ids().cuda())
    assert distance(logits.detach().cpu(), expected.detach()) <= TOLERANCE
    found = gradients(model, case.weigh(logits))
    gradients_agree({n: g.cpu() for n, g in found.items()}, pulls, "on a GPU")


@GPU
@pytest.mark.parametrize("shard", range(FEWER // SHARD))
def test_every_law_holds_on_a_gpu(shard, record_property):
    with torch.device("cuda"):
        hold_shard(shard, SHARD, 1, record_property)


@GPU
@pytest.mark.parametrize("name", FIXED)
def test_what_is_compiled_on_a_gpu_equals_eager(name):
    with torch.device("cuda"):
        check_compiled(Case(FIXED[name]), "inductor")


@GPU
def test_check_runs_where_it_is_told():
    assert main(["check", "recipes/mistral.yaml", "--device", "cuda"]) == 0
