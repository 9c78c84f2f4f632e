"""Dropout is drawn by a key of (seed, step, part, layer), whatever else is drawn."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from blocks.dropout import Dropout as DropoutBlock
from builder.model import build
from builder.training.layers import Dropout, around_layers
from tests.tiny_runs import recipe_of

IDS = torch.arange(20).reshape(2, 10)
CPU = torch.device("cpu")


def masks(*layers, **key):
    """What each layer's dropout lets through, of a model with these rates in its layers."""
    return drawn(*layers, **key)[0]


def drawn(*layers, seed=0, step=3, part=1, recompute=False):
    """The masks of each layer, and the gradient of every weight."""
    blocks = [{"residual": ["rmsnorm", "glu", *([{"dropout": p}] if p else [])]} for p in layers]
    page = {"blocks": {}, "model": ["token_embedding", {"repeat": 1, "pattern": blocks}, "lm_head"]}
    page["dims"] = {"dim": 16, "ff": 32, "vocab": 300, "context": 24}
    model, dropout = build(recipe_of(page), seed=1).train(), Dropout(seed, CPU)
    around_layers(model, dropout, recompute)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, DropoutBlock):
            layer = int(name.split(".")[1])
            module.register_forward_hook(
                lambda m, given, out, layer=layer: found.setdefault(layer, []).append(out == 0)
            )
    dropout.begin(step, part)
    model.loss(IDS, IDS).backward()
    return found, {name: p.grad for name, p in model.named_parameters()}


def test_what_one_layer_draws_shifts_no_other_s():
    both, second = masks(0.5, 0.5), masks(0, 0.5)
    assert torch.equal(both[1][0], second[1][0])
    assert not torch.equal(both[0][0], both[1][0])


def test_a_layer_that_is_computed_again_draws_the_same():
    (kept, plain), (again, found) = drawn(0.5, 0.5), drawn(0.5, 0.5, recompute=True)
    assert all(torch.equal(again[layer][0], kept[layer][0]) for layer in (0, 1))
    assert all(torch.equal(found[name], gradient) for name, gradient in plain.items())


@pytest.mark.parametrize("other", [{"seed": 1}, {"step": 4}, {"part": 0}], ids=str)
def test_every_part_of_the_key_draws_otherwise(other):
    assert not torch.equal(masks(0.5)[0][0], masks(0.5, **other)[0][0])


def test_draws_are_as_often_as_they_are_asked_to_be():
    """A third of 320 numbers, in 60 draws: 6 deviations are 0.02."""
    every = [masks(1 / 3, seed=s, step=t)[0][0] for s, t in product(range(6), range(10))]
    assert abs(float(torch.stack(every).double().mean()) - 1 / 3) < 0.02


def test_without_training_nothing_is_drawn():
    model, dropout = build(recipe_of(), seed=1).eval(), Dropout(0, CPU)
    plain = model(IDS)
    around_layers(model, dropout, recompute=True)
    state = torch.random.get_rng_state()
    assert torch.equal(model(IDS), plain)
    assert torch.equal(torch.random.get_rng_state(), state)
