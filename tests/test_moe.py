"""Mixtures of experts and their routers, against loops over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softmax

from blocks.call import start_call
from blocks.gated import Gated
from blocks.glu import GLU
from blocks.moe import MoE
from blocks.registry import maker
from blocks.router import Sigmoid, Softmax, SparseMixer
from blocks.stack import stack
from tests.given import DIM, EXACT, FF, B, T, call_of, given, stream


def experts_by_loop(block, x):
    """Each token through each expert, one at a time, weighed by the router's formula."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            token = x[b, t]
            scores = softmax(block.router.score.weight @ token, 0)
            order = sorted(range(block.count), key=lambda e: -float(scores[e]))[
                : block.router.top_k
            ]
            total = sum(float(scores[e]) for e in order) if block.router.normalise else 1.0
            for e in order:
                gate, up, down = (
                    getattr(block.experts, n).weight[e] for n in ("gate", "up", "down")
                )
                inner = gate @ token
                inner = inner / (1 + (-inner).exp()) * (up @ token)
                out[b, t] += float(scores[e]) / total * (down @ inner)
    return out


def glu_expert(dim):
    return GLU(dim, FF)


@torch.no_grad()
def test_one_expert_is_its_feed_forward_and_several_are_a_loop_over_tokens():
    alone = given(MoE(DIM, 1, expert=glu_expert, router=maker("softmax", top_k=1)))
    single = GLU(DIM, FF).double()
    for name, parameter in single.named_parameters():
        parameter.copy_(alone.experts.get_parameter(name)[0])
    torch.testing.assert_close(alone(stream(), call_of()), single(stream()), **EXACT)
    for normalise in (True, False):
        router = maker("softmax", top_k=2, normalise=normalise)
        block = given(MoE(DIM, 4, expert=glu_expert, router=router))
        expected = experts_by_loop(block, stream())
        torch.testing.assert_close(block(stream(), call_of()), expected, **EXACT)


def test_softmax_takes_the_best_of_all_scores():
    block, x = given(Softmax(DIM, 5, top_k=2)), stream()[0]
    weights, chosen, scores = block(x)
    by_hand = (x @ block.score.weight.T).exp()
    by_hand = by_hand / by_hand.sum(-1, keepdim=True)
    torch.testing.assert_close(scores, by_hand, **EXACT)
    torch.testing.assert_close(weights.sum(-1), torch.ones(T).double(), **EXACT)
    assert torch.equal(chosen, by_hand.argsort(-1, descending=True)[:, :2])
    weights, chosen, _ = given(Softmax(DIM, 5, top_k=2, normalise=False))(x)
    torch.testing.assert_close(weights, by_hand.gather(1, chosen), **EXACT)


@torch.no_grad()
def test_the_balance_loss_is_one_when_experts_are_chosen_alike():
    block = MoE(4, 4, expert=lambda dim: GLU(dim, 3), router=maker("softmax", top_k=1), balance=1.0)
    block = block.double().train()
    with torch.no_grad():
        block.router.score.weight.copy_(1e-9 * torch.eye(4))
        for parameter in block.experts.parameters():
            parameter.zero_()
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block(torch.eye(4).double()[None], call)
    assert abs(float(call.losses[0]) - 1) < 1e-6
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block(1e12 * torch.eye(4).double()[:1].expand(1, 4, 4), call)  # every token takes expert 0
    assert abs(float(call.losses[0]) - 4) < 1e-6
    call = start_call(torch.zeros(1, 4, dtype=torch.long), 0, None, None)
    block.eval()(torch.eye(4).double()[None], call)
    assert call.losses == []


@torch.no_grad()
def test_the_balance_loss_is_its_formula():
    """By a loop: each token's choices count as one, and padding as none."""
    count, top_k = 5, 2
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, :3] = True
    router = maker("softmax", top_k=top_k)
    block = given(MoE(DIM, count, expert=glu_expert, router=router, balance=0.3)).train()
    for hidden in (None, padding):
        call, x = call_of(hidden), stream()
        block(x, call)
        places = [(b, t) for b in range(B) for t in range(T) if hidden is None or not hidden[b, t]]
        share, mean = [0.0] * count, [0.0] * count
        for place in places:
            scores = softmax(block.router.score.weight @ x[place], 0).tolist()
            for e in sorted(range(count), key=lambda e: -scores[e])[:top_k]:
                share[e] += 1 / top_k / len(places)
            mean = [m + score / len(places) for m, score in zip(mean, scores, strict=True)]
        by_hand = 0.3 * count * sum(s * m for s, m in zip(share, mean, strict=True))
        (loss,) = call.losses
        assert abs(float(loss) - by_hand) < 1e-12


def test_stacked_experts_have_room_in_front_of_every_parameter():
    stacked = stack(GLU(DIM, FF), 3)
    assert stacked.gate.weight.shape == (3, FF, DIM) and stacked.gate.weight.stacked is True


def best(values, count, among):
    return sorted(among, key=lambda e: -values[e])[:count]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("added_to", [None, "scores", "logits"])
@pytest.mark.parametrize("groups", [1, 3])
def test_sigmoid_chooses_by_its_bias_and_weighs_without_it(normalise, added_to, groups):
    """Two of three groups, by the sum of their two best; of them the three best."""
    options = {"groups": groups, "top_groups": 2 if groups > 1 else 1}
    block = given(
        Sigmoid(DIM, 6, top_k=3, normalise=normalise, selection_bias=added_to, scale=1.7, **options)
    )
    if added_to is not None:
        with torch.no_grad():
            block.selection_bias.mul_(20)
    x = stream()[0]
    weights, chosen, scores = block(x)
    for t in range(T):
        logits = (block.score.weight @ x[t]).tolist()
        own = [1 / (1 + math.exp(-logit)) for logit in logits]
        bias = [0.0] * 6 if added_to is None else block.selection_bias.tolist()
        ranks = [a + b for a, b in zip(logits if added_to == "logits" else own, bias, strict=True)]
        parts = [range(g * 6 // groups, (g + 1) * 6 // groups) for g in range(groups)]
        by_group = [sum(sorted((ranks[e] for e in part), reverse=True)[:2]) for part in parts]
        kept = best(by_group, options["top_groups"], range(groups))
        picked = best(ranks, 3, [e for g in kept for e in parts[g]])
        assert chosen[t].tolist() == picked
        total = sum(own[e] for e in picked) if normalise else 1.0
        assert weights[t].tolist() == pytest.approx([1.7 * own[e] / total for e in picked])
        assert scores[t].tolist() == pytest.approx(own)


def test_softmax_looks_into_the_groups_of_the_best_experts_alone():
    block = given(Softmax(DIM, 6, top_k=2, groups=3, top_groups=1, normalise=False, scale=0.5))
    x = stream()[0]
    weights, chosen, scores = block(x)
    group = scores.argmax(-1) // 2
    assert torch.equal(chosen // 2, group[:, None].expand(-1, 2))
    torch.testing.assert_close(weights, 0.5 * scores.gather(1, chosen), **EXACT)


def test_sparsemixer_weighs_the_best_two_among_those_close_to_each():
    block, x = given(SparseMixer(DIM, 6, band=0.3)), stream()[0]
    weights, chosen = (y.detach() for y in block(x)[:2])
    for t in range(T):
        logits = (block.score.weight @ x[t]).tolist()
        left = list(range(6))
        for place in range(2):
            top = max(left, key=lambda e: logits[e])
            close = [
                e
                for e in left
                if (logits[top] - logits[e]) / max(abs(logits[e]), logits[top]) <= 0.6
            ]
            total = sum(math.exp(logits[e] - logits[top]) for e in close)
            assert (int(chosen[t, place]), float(weights[t, place])) == (
                top,
                pytest.approx(1 / total),
            )
            left.remove(top)


def test_a_weight_on_the_input_is_within_the_expert():
    block = given(MoE(DIM, 4, expert=glu_expert, weigh="input"))
    x = stream()
    weights, chosen, _ = block.router(x.flatten(0, 1))
    by_hand = torch.zeros(B * T, DIM).double()
    for n, token in enumerate(x.flatten(0, 1)):
        for weight, e in zip(weights[n], chosen[n].tolist(), strict=True):
            gate, up, down = (
                getattr(block.experts, part).weight[e] for part in ("gate", "up", "down")
            )
            read = weight * token
            inner = gate @ read
            by_hand[n] += down @ (inner * inner.sigmoid() * (up @ read))
    torch.testing.assert_close(block(x, call_of()), by_hand.view_as(x), **EXACT)


def test_a_selection_bias_is_pulled_towards_experts_that_are_chosen_less():
    """By a loss that is nothing itself, in which padding does not count."""
    router = maker("sigmoid", top_k=1, selection_bias="scores")
    block = given(MoE(DIM, 3, expert=glu_expert, router=router)).train()
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, :4] = True
    call, x = call_of(padding), stream()
    block(x, call)
    (loss,) = call.losses
    loss.backward()
    _, chosen, _ = block.router(x.flatten(0, 1))
    picked = chosen.flatten()[~padding.flatten()].bincount(minlength=3)
    expected = (picked - picked.double().mean()).sign()
    assert loss.item() == 0.0 and torch.equal(block.router.selection_bias.grad, expected)


def test_a_gate_lets_a_branch_through_as_far_as_the_token_says():
    block, x = given(Gated(DIM)), stream()
    share = 1 / (1 + torch.exp(-(x @ block.weight[0])))
    torch.testing.assert_close(block(x, lambda y: 3 * y), share[..., None] * 3 * x, **EXACT)
