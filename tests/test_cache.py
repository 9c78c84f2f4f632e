"""What the model remembers: no more than it needs, and nothing else than what was read."""

from __future__ import annotations

import copy

import pytest
import torch

from blocks.cache import KeyValues
from builder import load_recipe
from builder.laws.case import model_of

DIMS = {"dim": 8, "heads": 2, "ff": 6, "vocab": 11, "context": 24}


def model_with(mask="causal", position="rope", *before):
    attention = {"attention": {"position": position, "mask": mask}}
    nodes = ["token_embedding", *before, {"repeat": 2, "block": attention}, "lm_head"]
    return model_of(load_recipe({"recipe": 1, "dims": DIMS, "model": nodes}), 0)


def ids_of(rows, length, seed=0):
    return torch.randint(11, (rows, length), generator=torch.Generator().manual_seed(seed))


def filled(*values):
    return torch.tensor(values).double().view(1, 1, -1, 1)


# Keys and values


def test_keys_are_given_back_with_the_new_ones_last():
    state = KeyValues()
    state.append(filled(1, 2), filled(-1, -2))
    keys, values = state.append(filled(3), filled(-3))
    assert keys.flatten().tolist() == [1, 2, 3] and values.flatten().tolist() == [-1, -2, -3]


def test_a_window_gives_only_what_the_new_tokens_can_see():
    state = KeyValues(span=3)
    for n in range(100):
        keys, _ = state.append(filled(n), filled(n))
        assert keys.flatten().tolist() == list(range(max(0, n - 2), n + 1))
    assert state.buffers[0].shape[2] < 64  # it is the window's, not the text's
    keys, _ = state.append(filled(100, 101), filled(0, 0))
    assert keys.flatten().tolist() == [98, 99, 100, 101]


def test_a_cropped_state_is_as_if_the_rest_had_not_been_read():
    state = KeyValues()
    state.append(filled(1, 2, 3), filled(1, 2, 3))
    assert state.crop(1)
    keys, _ = state.append(filled(9), filled(9))
    assert keys.flatten().tolist() == [1, 9]


def test_a_window_is_cropped_exactly_where_it_still_holds_what_it_needs():
    full, answers = KeyValues(span=3), set()
    for n in range(200):
        full.append(filled(n), filled(n))
    held = full.buffers[0][:, :, : full.end].flatten().tolist()
    for length in range(1, 201):
        state, needed = copy.deepcopy(full), list(range(max(0, length - 2), length))
        answers.add(could := state.crop(length))
        assert could == (set(needed) <= set(held))
        if could:
            keys, _ = state.append(filled(-1), filled(-1))
            assert keys.flatten().tolist() == [*needed, -1]
    assert answers == {True, False}


def test_what_lies_beyond_the_length_is_never_read():
    state = KeyValues()
    state.append(filled(1), filled(1))
    for buffer in state.buffers:
        buffer[:, :, state.end :] = torch.nan
    keys, values = state.append(filled(2), filled(2))
    assert not keys.isnan().any() and not values.isnan().any()


# Caches of a model


@torch.no_grad()
@pytest.mark.parametrize("mask", ["causal", {"sliding_window": 3}])
@pytest.mark.parametrize("position", ["none", "rope", "alibi"])
def test_garbage_beyond_the_length_changes_nothing(mask, position):
    model, ids = model_with(mask, position), ids_of(2, 9)
    cache = model.new_cache(2)
    logits = []
    for t in range(9):
        logits.append(model(ids[:, t : t + 1], cache=cache))
        for state in cache.states.values():
            for buffer in state.buffers:
                buffer[:, :, state.end :] = torch.nan
    torch.testing.assert_close(torch.cat(logits, 1), model(ids), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_windowed_cache_stays_small_however_long_the_text():
    model, ids = model_with({"sliding_window": 4}), ids_of(1, 300)
    cache = model.new_cache(1)
    sizes = []
    for start in range(0, 300, 10):
        model(ids[:, start : start + 10], cache=cache)
        sizes.append(cache.nbytes)
    assert len(cache) == 300 and set(sizes) == {2 * 2 * 3 * 8 * 8}  # layers, k and v, places, dim


@torch.no_grad()
def test_a_long_crop_of_a_window_reads_its_tokens_again():
    model, ids = model_with({"sliding_window": 3}), ids_of(1, 200)
    cache = model.new_cache(1)
    for start in range(0, 200, 5):
        model(ids[:, start : start + 5], cache=cache)
    cache.crop(20)
    assert cache.read == 0 and len(cache) == 20
    new = ids_of(1, 3, seed=1)
    expected = model(torch.cat([ids[:, :20], new], 1))[:, 20:]
    torch.testing.assert_close(model(new, cache=cache), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_fork_and_its_original_go_separate_ways():
    model, ids = model_with(), ids_of(1, 4)
    cache = model.new_cache(1)
    model(ids, cache=cache)
    fork = cache.fork()
    for other, token in ((fork, 1), (cache, 2), (fork, 3)):
        model(torch.tensor([[token]]), cache=other)
    assert (len(cache), len(fork)) == (5, 6)
    more = torch.tensor([[5]])
    for other, tail in ((cache, [2, 5]), (fork, [1, 3, 5])):
        text = torch.cat([ids, torch.tensor([tail])], 1)
        expected = model(text)[:, -1:]
        torch.testing.assert_close(model(more, cache=other), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_can_be_repeated_and_left_out():
    model, ids = model_with(), ids_of(3, 4)
    cache = model.new_cache(3)
    model(ids, cache=cache)
    cache.reorder(torch.tensor([2, 2, 0, 1]))
    new = ids_of(4, 1, seed=2)
    expected = model(torch.cat([ids[[2, 2, 0, 1]], new], 1))[:, -1:]
    torch.testing.assert_close(model(new, cache=cache), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_call_that_fails_leaves_the_cache_as_it_was():
    model, ids = model_with("causal", "none", "learned_positions"), ids_of(2, 8)
    cache = model.new_cache(2)
    model(ids[:, :4], cache=cache)
    faults = [
        {"ids": ids[:, 4:], "padding": torch.zeros(2, 3, dtype=torch.bool)},
        {"ids": ids_of(2, 30)},  # past the learned positions
        {"ids": ids[:1, 4:]},
        {"ids": ids[:, 4:], "documents": torch.zeros(2, 4, dtype=torch.long)},
    ]
    for given in faults:
        with pytest.raises(ValueError, match=r"padding|position|batch|documents"):
            model(**given, cache=cache)
        assert len(cache) == 4
    logits = model(ids[:, 4:], cache=cache)
    torch.testing.assert_close(logits, model(ids)[:, 4:], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("empty", [lambda cache: cache.crop(0), lambda cache: cache.reset()])
def test_an_emptied_cache_is_a_new_one(empty):
    model, ids = model_with(), ids_of(1, 4)
    cache = model.new_cache(1)
    model(ids, cache=cache, documents=torch.zeros_like(ids))
    empty(cache)
    assert len(cache) == 0 and cache.nbytes == 0
    torch.testing.assert_close(model(ids, cache=cache), model(ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [-1, 1])
def test_a_crop_past_either_end_is_refused(length):
    cache = model_with().new_cache(1)
    with pytest.raises(ValueError, match=f"cannot crop a cache of 0 positions to {length}"):
        cache.crop(length)


def test_reading_with_a_cache_keeps_no_gradients():
    model, ids = model_with(), ids_of(1, 4)
    assert not model(ids, cache=model.new_cache(1)).requires_grad
    assert model(ids).requires_grad
