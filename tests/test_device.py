"""A model is the same on every device; on a GPU, where there is one, every law holds too."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import build, load_recipe
from builder.__main__ import main
from builder.laws import Case, hold, recipes
from builder.laws.case import gradients, read
from builder.laws.probe import TOLERANCE, distance, gradients_agree

RECIPES = int(os.environ.get("RECIPES", "2000")) // 20
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")


def test_weights_are_the_same_whatever_device_torch_defaults_to():
    recipe = load_recipe("recipes/llama.yaml", ["model.repeat=1"])
    usual = build(recipe).state_dict()
    with torch.device("meta"):
        found = build(recipe, device="cpu").state_dict()
        assert {x.device.type for x in build(recipe).state_dict().values()} == {"meta"}
    assert all(torch.equal(found[name], weight) for name, weight in usual.items())


@GPU
@settings(max_examples=RECIPES)
@given(recipe=recipes(), number=st.integers(0, 999))
def test_a_gpu_gives_what_the_cpu_gives(recipe, number):
    case = Case(recipe, number)
    ids = case.ids()
    expected = read(case.model, ids)
    pulls = gradients(case.model, case.weigh(expected))
    model = copy.deepcopy(case.model).cuda()
    logits = read(model, ids.cuda())
    assert distance(logits.cpu(), expected) <= TOLERANCE
    found = gradients(model, case.weigh(logits))
    gradients_agree({n: g.cpu() for n, g in found.items()}, pulls, "on a GPU")


@GPU
@settings(max_examples=RECIPES)
@given(recipe=recipes(), number=st.integers(0, 999))
def test_every_law_holds_on_a_gpu(recipe, number):
    with torch.device("cuda"):
        hold(Case(recipe, number))


@GPU
def test_check_runs_where_it_is_told():
    assert main(["check", "recipes/mistral.yaml", "--device", "cuda"]) == 0
