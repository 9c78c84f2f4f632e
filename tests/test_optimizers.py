"""Optimizers take the step of their paper, at the rate and decay that a path gives each weight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from builder.errors import RecipeError
from builder.training.optimizers import (
    AdamW,
    AdamWSteps,
    Learner,
    Lion,
    LionSteps,
    Muon,
    MuonSteps,
    by_path,
    fits,
    orthogonal,
    restore,
    set_rate,
    state_tensors,
)
from builder.training.prepare import prepare
from tests.tiny_runs import recipe_of, text_of

NAMES = ["token_embedding.weight", "layers.0.attention.q.weight", "layers.1.attention.q.weight",
         "layers.0.glu.up.weight", "layers.0.attention.q.bias", "lm_head.weight"]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text_of(0), encoding="utf-8")


def test_lion_moves_by_the_sign_of_its_momentum():
    """Against the paper's five lines, number by number."""
    dice = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=dice, dtype=torch.float64)
    weight, x, m = nn.Parameter(start.clone()), start.tolist(), [0.0] * 7
    lion = LionSteps([{"params": [weight], "weight_decay": 0.3, "rate": 0.5}], (0.9, 0.99))
    for _ in range(5):
        g = torch.randn(7, generator=dice, dtype=torch.float64)
        weight.grad = g.clone()
        set_rate([lion], 0.02)
        lion.step()
        for i, gi in enumerate(g.tolist()):
            c = 0.9 * m[i] + 0.1 * gi
            x[i] -= 0.01 * ((c > 0) - (c < 0) + 0.3 * x[i])
            m[i] = 0.99 * m[i] + 0.01 * gi
    torch.testing.assert_close(weight.detach(), torch.tensor(x, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adamw_takes_the_steps_of_torch_s_own(dtype):
    """To the bit, over groups of their own decays and rates, and weights without a gradient."""
    dice = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=dice, dtype=dtype) for shape in ((4, 3), (5,), (2,))]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))

    def groups(weights, **rates):
        decays = {"weight_decay": 0.1}, {"weight_decay": 0.0}
        parts = weights[:1], weights[1:]
        return [{"params": p, **d, **rates} for p, d in zip(parts, decays, strict=True)]

    adamw = AdamWSteps(groups(ours, rate=0.5), (0.9, 0.95), 1e-8)
    torchs = torch.optim.AdamW(groups(theirs, lr=0.01), betas=(0.9, 0.95), eps=1e-8, fused=True)
    set_rate([adamw], 0.02)
    for step in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(mine.shape, generator=dice, dtype=dtype)
            mine.grad, other.grad = gradient, gradient.clone()
        ours[1].grad = theirs[1].grad = ours[1].grad if step else None
        adamw.step()
        torchs.step()
        assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_takes_the_step_of_torch_s_own(shape, nesterov):
    """Which computes in bfloat16: 1 in 128 of each entry, and more where entries cancel."""
    dice = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=dice)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muon = MuonSteps([{"params": [ours], "weight_decay": 0.1, "rate": 1.0}], 0.95, nesterov)
    torchs = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"
    )
    set_rate([muon], 0.02)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=dice)
        theirs.grad = ours.grad.clone()
        before = ours.detach().clone()
        muon.step()
        torchs.step()
        moved = float((ours - before).detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05 * moved)
        with torch.no_grad():
            theirs.copy_(ours)


def test_muon_makes_each_matrix_of_a_stack_orthogonal_by_itself():
    """Between 0.7 and 1.2 of the orthogonal factor that the singular values say."""
    x = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = orthogonal(x)
    for one, matrix in zip(found, x, strict=True):
        torch.testing.assert_close(one, orthogonal(matrix))
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.mT @ one @ v.mT
        assert ((inner.diag() > 0.68) & (inner.diag() < 1.22)).all()
        torch.testing.assert_close(inner, inner.diag().diag(), rtol=0, atol=1e-9)


def test_muon_moves_the_matrices_of_layers_and_adamw_all_else():
    training = prepare(recipe_of(optimizer="muon")).training
    names = {id(p): name for name, p in training.model.named_parameters()}
    muon, adamw = (
        {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        for optimizer in training.optimizers
    )
    assert (
        "layers.1.glu.down.weight" in muon and {"token_embedding.weight", "lm_head.weight"} < adamw
    )
    assert muon | adamw == set(names.values()) and not muon & adamw


def test_a_model_without_matrices_in_layers_needs_no_muon():
    page = {
        "model": ["token_embedding", "lm_head"],
        "dims": {"dim": 8, "vocab": 300, "context": 24},
    }
    training = prepare(recipe_of(page | {"blocks": {}}, optimizer="muon")).training
    assert [type(one) for one in training.optimizers] == [AdamWSteps]


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5), st.data())
def test_a_path_fits_every_run_of_the_words_of_a_name(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first + 1, len(words)))
    run = [data.draw(st.sampled_from([word, "*"])) for word in words[first:last]]
    assert fits(".".join(run), ".".join(words))
    assert not fits("d", ".".join(words)) and not fits(".".join([*words, "*"]), ".".join(words))


def test_a_later_path_goes_before_an_earlier_one():
    found = by_path({"attention": 1.0, "*.0.attention.q": 2.0, "bias": 3.0}, NAMES)
    assert found == {NAMES[1]: 2.0, NAMES[2]: 1.0, NAMES[4]: 3.0}
    with pytest.raises(KeyError, match="attention"):
        by_path({"attention": 1.0, "*": 2.0}, NAMES)


def test_rates_and_decays_are_those_of_the_page():
    recipe = recipe_of(
        lr=0.01,
        rates={"token_embedding": 0.1, "layers.1": 0.001},
        optimizer={"adamw": {"decays": {"token_embedding": 0.5, "attention.q": 0}}},
    )
    training = prepare(recipe).training
    set_rate(training.optimizers, 0.005)  # half of its peak
    groups = {
        name: (group["lr"], group["weight_decay"])
        for name, parameter in training.model.named_parameters()
        for group in training.optimizers[0].param_groups
        if any(parameter is p for p in group["params"])
    }
    assert groups["token_embedding.weight"] == pytest.approx((0.05, 0.5))
    assert groups["layers.0.attention.q.weight"] == pytest.approx((0.005, 0.0))
    assert groups["layers.1.glu.up.weight"] == pytest.approx((0.0005, 0.1))
    assert groups["lm_head.weight"] == pytest.approx((0.005, 0.1))


@pytest.mark.parametrize(
    "setting", [{"rates": {"attenton": 0.1}}, {"optimizer": {"lion": {"decays": {"attenton": 0}}}}]
)
def test_a_path_that_names_no_weight_is_told_at_its_place(setting):
    with pytest.raises(RecipeError, match="'attenton' names no parameter") as caught:
        prepare(recipe_of(**setting))
    (finding,) = caught.value.findings
    assert finding.code == "idle-path" and finding.mark.text == "attenton"


@pytest.mark.parametrize("make", [AdamW, Muon, Lion])
def test_what_an_optimizer_remembers_is_kept_by_name(make):
    def fresh():
        torch.manual_seed(0)
        model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 4)]), "head": nn.Linear(4, 3)})
        learners = [Learner(n, p, p.dim() == 2) for n, p in model.named_parameters()]
        return model, make().over(learners)

    def step(model, optimizers):
        for parameter in model.parameters():
            parameter.grad = parameter.detach().cos()
        set_rate(optimizers, 0.1)
        for optimizer in optimizers:
            optimizer.step()

    model, optimizers = fresh()
    step(model, optimizers)
    kept = {name: value.clone() for name, value in state_tensors(optimizers, model).items()}
    other, others = fresh()
    other.load_state_dict(model.state_dict())
    restore(others, other, kept.items())
    step(model, optimizers)
    step(other, others)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
