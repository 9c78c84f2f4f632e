"""Continuing a prompt, held against forwards of the whole text and naive sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from builder import build, load_recipe
from builder.generate import choose, probabilities
from builder.laws import recipes
from builder.laws.case import ids_of, model_of
from builder.laws.probe import TOLERANCE, distance

VOCAB, CONTEXT = 11, 24
DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": VOCAB, "context": CONTEXT}
LLAMA = [
    "token_embedding",
    {"repeat": 2, "block": [{"residual": ["rmsnorm", {"attention": {"position": "rope"}}]}, "glu"]},
    "lm_head",
]
GPT = ["token_embedding", "learned_positions", *LLAMA[1:]]


def model_from(*nodes, seed=0):
    return model_of(load_recipe({"recipe": 1, "dims": DIMS, "model": list(nodes)}), seed)


def greedy_by_hand(model, ids, new):
    """The likeliest next token of the whole text, read anew for each."""
    for _ in range(new):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


# Greedy


@pytest.mark.slow
@torch.no_grad()
@given(recipe=recipes(), seed=st.integers(0, 99))
def test_greedy_is_the_likeliest_token_of_each_whole_forward(recipe, seed):
    model, ids = model_of(recipe, seed), ids_of(recipe, seed, 2, 3)
    out = model.generate(ids, 6, temperature=0)
    by_hand = greedy_by_hand(model, ids, 6)
    for row in range(2):  # where two tokens tie to the last digit, either is right
        logits = model(out[row : row + 1])[0, 2:-1]
        best = logits.amax(-1) - logits.gather(-1, out[row, 3:, None])[:, 0]
        assert float(best.max()) < 1e-9 and torch.equal(out[row, :3], by_hand[row, :3])


@torch.no_grad()
@given(recipe=recipes(), seed=st.integers(0, 99))
def test_last_logits_are_the_last_of_all(recipe, seed):
    model, ids = model_of(recipe, seed), ids_of(recipe, seed, 2, 5)
    cache = model.new_cache(2)
    model(ids[:, :2], cache=cache)
    every = model(ids)[:, -1:]
    for last in (model(ids, last=True), model(ids[:, 2:], cache=cache, last=True)):
        assert last.shape == every.shape and distance(last, every) <= TOLERANCE


@torch.no_grad()
def test_behind_the_last_that_mixes_positions_the_last_alone_is_read():
    model, seen = model_from(*LLAMA), []
    glu, layer = model.layers[-1].glu, model.layers[-1]
    glu.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    model(torch.zeros(1, 7, dtype=torch.long), last=True)
    assert seen == [1]
    handle = layer.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    model(torch.zeros(1, 7, dtype=torch.long), last=True)
    assert seen == [1, 7, 7]  # a layer that is watched is run as a whole
    handle.remove()


@torch.no_grad()
def test_prompts_of_unequal_length_are_each_as_alone():
    for nodes in (LLAMA, GPT):
        model = model_from(*nodes, seed=3)
        ids = torch.randint(VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
        lengths = [7, 4, 1]
        padding = torch.arange(7)[None] < 7 - torch.tensor(lengths)[:, None]
        out = model.generate(ids, 8, temperature=0, padding=padding)
        for row, length in enumerate(lengths):
            alone = greedy_by_hand(model, ids[row : row + 1, 7 - length :], 8)
            assert torch.equal(out[row, 7 - length :], alone[0])


@torch.no_grad()
def test_generation_goes_on_from_a_cache():
    model, ids = model_from(*LLAMA), torch.tensor([[1, 2, 3, 4]])
    cache = model.new_cache(1)
    model(ids[:, :3], cache=cache)
    out = model.generate(ids[:, 3:], 5, temperature=0, cache=cache)
    assert torch.equal(out[0, 1:], greedy_by_hand(model, ids, 5)[0, 4:])
    assert len(cache) == 8  # all but the last


# Sampling


logit_rows = st.lists(st.integers(-6, 6).map(float), min_size=2, max_size=9)


@given(row=logit_rows, temperature=st.sampled_from([0.1, 1.0, 3.0]), top_k=st.integers(1, 10))
@example(row=[1.0, 1.0, 1.0], temperature=1.0, top_k=1)  # equals: no more than k stay
def test_top_k_keeps_the_k_likeliest(row, temperature, top_k):
    held = probabilities(torch.tensor([row]).double(), temperature, top_k, None)[0]
    kept = sorted(range(len(row)), key=lambda v: -row[v])[:top_k]  # the first of equals
    assert held.nonzero()[:, 0].tolist() == sorted(kept)
    weights = [torch.tensor(row[v] / temperature).double().exp() for v in kept]
    for v, weight in zip(kept, weights, strict=True):
        assert abs(float(held[v] - weight / sum(weights))) < 1e-6


@given(row=logit_rows, top_p=st.sampled_from([0.05, 0.31, 0.5, 0.9, 1.0]))
def test_top_p_keeps_the_fewest_that_hold_so_much(row, top_p):
    whole = torch.tensor(row).double().softmax(0)
    kept, total = [], 0.0
    for v in sorted(range(len(row)), key=lambda v: -row[v]):
        if total >= top_p - 1e-12:
            break
        kept.append(v)
        total += float(whole[v])
    held = probabilities(torch.tensor([row]).double(), 1.0, None, top_p)[0]
    assert held.nonzero()[:, 0].tolist() == sorted(kept)


def test_top_p_is_measured_on_what_top_k_left():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    held = probabilities(logits, 1.0, 2, 0.5)  # of 4/7 and 3/7 the first holds enough
    assert held.nonzero()[:, 1].tolist() == [0]


def test_one_likeliest_token_is_greedy():
    logits = torch.randn(50, VOCAB, generator=torch.Generator().manual_seed(0)).round()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(choose(logits, 0.7, 1, None, generator), logits.argmax(-1))
    assert torch.equal(choose(logits, 1e-40, None, 1e-9, generator), logits.argmax(-1))


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, 4)
    drawn = choose(logits, 1.0, None, None, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), rtol=0, atol=0.015)


def test_a_seed_repeats_its_text_and_another_does_not():
    model, ids = model_from(*LLAMA), torch.tensor([[1, 2]])
    one, same, other = (model.generate(ids, 20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


# Ends and limits


@torch.no_grad()
def test_a_row_that_stopped_repeats_its_stop_until_all_have():
    model = model_from(*LLAMA, seed=5)
    ids = torch.randint(VOCAB, (4, 3), generator=torch.Generator().manual_seed(1))
    free = model.generate(ids, 12, temperature=0)
    stop = int(free[0, 4])
    out = model.generate(ids, 12, temperature=0, stop=[stop])
    for row in range(4):
        found = (free[row, 3:] == stop).nonzero()
        end = 3 + int(found[0]) if len(found) else out.shape[1]
        assert torch.equal(out[row, :end], free[row, :end])
        assert (out[row, end:] == stop).all()
    alone = model.generate(ids[:1], 12, temperature=0, stop=[stop])
    assert alone.shape[1] == 3 + 1 + (free[0, 3:] == stop).nonzero()[0, 0]


def test_a_stop_in_the_prompt_stops_nothing():
    model = model_from(*LLAMA, seed=5)
    first = int(model.generate(torch.tensor([[1, 2]]), 1, temperature=0)[0, 2])
    other = next(v for v in range(VOCAB) if v != first)
    out = model.generate(torch.tensor([[1, other, 2]]), 3, temperature=0, stop=[other])
    assert out.shape[1] > 3


def test_an_empty_prompt_starts_from_the_start_of_text_or_says_that_there_is_none():
    model, empty = model_from(*LLAMA), torch.zeros(2, 0, dtype=torch.long)
    with pytest.raises(ValueError, match="an empty prompt, and the model knows no token"):
        model.generate(empty, 3)
    model.start_id = 4
    out = model.generate(empty, 3, temperature=0)
    started = greedy_by_hand(model, torch.full((2, 1), 4), 3)
    assert torch.equal(out, started[:, 1:])


def test_learned_positions_bound_what_is_generated():
    model, ids = model_from(*GPT), torch.zeros(1, 5, dtype=torch.long)
    assert model.generate(ids, CONTEXT - 4).shape[1] == CONTEXT + 1  # the last is never read
    with pytest.raises(
        ValueError, match=f"{CONTEXT + 1} positions, and the model can read {CONTEXT}"
    ):
        model.generate(ids, CONTEXT - 3)
    assert model_from(*LLAMA).generate(ids, 2 * CONTEXT).shape[1] == 2 * CONTEXT + 5


def test_nothing_new_is_the_prompt():
    ids = torch.tensor([[1, 2]])
    assert torch.equal(model_from(*LLAMA).generate(ids, 0), ids)


def test_each_new_column_is_streamed():
    seen = []
    out = model_from(*LLAMA).generate(torch.tensor([[1], [2]]), 4, seed=0, stream=seen.append)
    assert torch.equal(torch.stack(seen, 1), out[:, 1:])


def test_generating_turns_dropout_off_and_leaves_training_on():
    nodes = [LLAMA[0], {"dropout": 0.9}, *LLAMA[1:]]
    recipe = load_recipe({"recipe": 1, "dims": DIMS, "model": nodes})
    model = build(recipe).train()
    ids = torch.tensor([[1, 2]])
    first, second = (model.generate(ids, 8, temperature=0) for _ in range(2))
    assert torch.equal(first, second) and model.training


@pytest.mark.parametrize(
    "given", [{"temperature": -0.1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_settings_that_mean_nothing_are_refused(given):
    (name,) = given
    with pytest.raises(ValueError, match=name):
        model_from(*LLAMA).generate(torch.tensor([[1]]), 2, **given)
