"""The loss in chunks: the same loss, of fewer logits at once."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from builder import build, head_loss, load_recipe
from builder import loss as losses
from builder.construct import make
from builder.errors import RecipeError
from builder.laws import Case, recipes
from builder.laws.case import gradients
from builder.laws.losses import any_chunk_gives_the_same_loss, labels_of
from builder.laws.probe import TOLERANCE, distance
from builder.loss import HELD, IGNORED, at_once
from builder.measure import measure, saved_bytes
from builder.training.corpus import Batch, Tokens
from builder.training.exam import Text
from builder.training.step import Training, backward, evaluate

VOCAB, LENGTH, ROWS = 97, 12, 3
HEADS = {
    "plain": ["lm_head"],
    "tied": [{"lm_head": {"tie": True}}],
    "biased and capped": ["rmsnorm", {"lm_head": {"bias": True}}, {"softcap": 3.0}],
}


def recipe_of(head=("lm_head",), *, vocab=VOCAB, **train):
    dims = {"dim": 8, "heads": 2, "ff": 12, "vocab": vocab, "context": 32}
    model = ["token_embedding", {"residual": ["rmsnorm", "attention"]}, *head]
    train = {option: "none" if value is None else value for option, value in train.items()}
    return load_recipe({"recipe": 1, "dims": dims, "model": model, "train": train})


def stretch(ids):
    return Tokens(ids, np.empty(0, np.int64))


def batch_of(ids):
    return Batch(ids[:, :-1], ids[:, 1:])


def test_z_loss_is_the_squared_logarithm_of_the_denominator_over_the_same_labels():
    case = Case(recipe_of())
    ids, labels = case.ids(ROWS), labels_of(case)
    with torch.no_grad():
        plain, with_z = case.model.loss(ids, labels), case.model.loss(ids, labels, z_loss=0.3)
        rows = zip(case.model(ids).flatten(0, 1), labels.flatten(), strict=True)
        squares = [float(row.exp().sum().log()) ** 2 for row, label in rows if label != IGNORED]
    expected = float(plain) + 0.3 * sum(squares) / len(squares)
    assert math.isclose(float(with_z), expected, rel_tol=TOLERANCE)


@settings(max_examples=12)
@given(recipe=recipes(), number=st.integers(0, 99), data=st.data())
def test_any_chunk_gives_the_same_loss_and_gradients(recipe, number, data):
    """Of any recipe, even one whose logits cannot be had a few at a time."""
    case = Case(recipe, number)
    ids, labels = case.ids(ROWS), labels_of(case)
    chunk = data.draw(st.integers(1, ids.numel() + 2))
    plain, found = case.model.loss(ids, labels), case.model.loss(ids, labels, chunk=chunk)
    assert distance(found.detach(), plain.detach()) <= TOLERANCE
    expected = gradients(case.model, plain)
    for name, gradient in gradients(case.model, found).items():
        assert distance(gradient, expected[name]) <= TOLERANCE, name


@pytest.mark.parametrize("head", HEADS)
def test_law_sees_a_chunk_that_is_left_out(head):
    case = Case(recipe_of(HEADS[head]))
    assert any_chunk_gives_the_same_loss(case) <= TOLERANCE
    claims = pytest.raises(AssertionError, match=r"in chunks of \d+, .* differs by")
    home = losses if head == "biased and capped" else head_loss

    def all_but_the_first(count, chunk):  # whose first label counts
        return losses_spans(count, chunk)[1:] or losses_spans(count, chunk)

    losses_spans = losses.spans
    with patch.object(home, "spans", all_but_the_first), claims:
        any_chunk_gives_the_same_loss(case)


def test_law_sees_gradients_of_the_last_chunk_alone():
    case = Case(recipe_of(HEADS["biased and capped"]))
    claims = pytest.raises(AssertionError, match=r"lm_head\.weight differs")
    with patch.object(losses, "_added", lambda total, more: more), claims:
        any_chunk_gives_the_same_loss(case)


# How many logits there are at once


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation gives, whose last size is the vocabulary;
    weights and their gradients aside.
    """

    def __init__(self, vocab, weights):
        super().__init__()
        self.vocab, self.weights, self.logits = vocab, weights, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else ()
            if shape[-1:] == (self.vocab,) and shape not in self.weights:
                self.logits = max(self.logits, x.numel())
        return out


def most_logits(recipe, chunk, *, learning):
    """How many logits a loss, and its way back, hold in one tensor."""
    model = build(recipe)
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % VOCAB
    shapes = [tuple(p.shape) for p in model.parameters()]
    shapes += [shape[::-1] for shape in shapes]
    with torch.set_grad_enabled(learning), Largest(VOCAB, shapes) as largest:
        loss = model.loss(ids, ids, chunk=chunk)
        if learning:
            loss.backward()
    return largest.logits


@pytest.mark.parametrize("learning", [True, False], ids=["trained", "evaluated"])
@pytest.mark.parametrize("head", HEADS)
def test_no_more_logits_are_held_than_the_chunk_says(head, learning):
    recipe = recipe_of(HEADS[head])
    for chunk in (1, 5, 7, LENGTH):  # no chunk may have the shape of a weight, (8, vocab)
        assert most_logits(recipe, chunk, learning=learning) == chunk * VOCAB
    assert most_logits(recipe, None, learning=learning) == ROWS * LENGTH * VOCAB


@pytest.mark.parametrize("learning", [True, False], ids=["trained", "evaluated"])
def test_training_and_evaluation_hold_as_few_as_the_recipe_asks(learning):
    recipe = recipe_of(loss_chunk=5, batch=ROWS, length=LENGTH)
    model, settings = build(recipe), make(recipe.train)
    shapes = [tuple(p.shape) for p in model.parameters()]
    tokens = stretch(np.arange(ROWS * LENGTH + 1, dtype=np.uint16) % VOCAB)
    with Largest(VOCAB, shapes + [shape[::-1] for shape in shapes]) as largest:
        if learning:
            batch = torch.arange(ROWS * (LENGTH + 1)).reshape(ROWS, -1) % VOCAB
            backward(Training.alone(model, settings), batch_of(batch), 0)
        else:
            evaluate(model, Text(tokens, 1, LENGTH), ROWS, loss_chunk=settings.loss_chunk)
    assert largest.logits == 5 * VOCAB


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("head", HEADS)
def test_memory_that_is_told_is_what_training_keeps(head, dtype):
    """With chunks the logits are not among what waits for backward; without them they are."""
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    for chunk in (None, 5):
        recipe = recipe_of(HEADS[head], vocab=3001, dtype=dtype, loss_chunk=chunk)
        told = measure(recipe, LENGTH, ROWS).memory.activations
        assert told == saved_bytes(build(recipe).train(), ids, dtype, at_once(chunk, 3001))
    all_at_once = saved_bytes(build(recipe).train(), ids, dtype)
    logits = ROWS * LENGTH * 3001 * 4  # of the log-softmax alone, in float32
    towards_weights = 2 * 3001 * 8 * 4  # the head's gradients, which chunks bring forward
    assert all_at_once - told > logits - towards_weights


def test_what_is_called_with_the_head_is_called_in_chunks_too():
    """A hook, or what has taken the place of its ``forward``, as adapters do."""
    model = build(recipe_of(), dtype=torch.float64).requires_grad_(False)
    ids = torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % VOCAB
    plain, calls = model.loss(ids, ids), []
    hook = model.lm_head.register_forward_hook(lambda *given: calls.append(1))
    assert distance(model.loss(ids, ids, chunk=5), plain) <= TOLERANCE and calls
    hook.remove()
    forward = model.lm_head.forward
    model.lm_head.forward = lambda x: 20 * forward(x)
    assert distance(model.loss(ids, ids, chunk=5), model.loss(ids, ids)) <= TOLERANCE
    assert distance(model.loss(ids, ids, chunk=5), plain) > 1e-5


def test_as_many_logits_are_held_as_fit_if_nobody_says():
    assert at_once(7, 50257) == 7
    assert at_once(None, 50257) == HELD // 50257 == 333
    assert at_once(None, 2 * HELD) == 1


# The same run


def trained(chunk, accumulate=1):
    """With a z-loss, which chunks must sum too."""
    recipe = recipe_of(loss_chunk=chunk, accumulate=accumulate, batch=4, length=LENGTH, z_loss=0.1)
    model = build(recipe, dtype=torch.float64)
    batch = torch.arange(4 * (LENGTH + 1)).reshape(4, -1) * 7 % VOCAB
    loss = backward(Training.alone(model, make(recipe.train)), batch_of(batch), 0)
    return loss, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_in_chunks_takes_the_same_step(accumulate):
    loss, expected = trained(None, accumulate)
    for chunk in (1, 7, 1000):
        found, pulls = trained(chunk, accumulate)
        assert distance(found, loss) <= TOLERANCE
        assert max(distance(pulls[name], expected[name]) for name in expected) <= TOLERANCE


def test_evaluation_in_chunks_finds_the_same_loss():
    model = build(recipe_of(), dtype=torch.float64)
    tokens = stretch(np.arange(100, dtype=np.uint16) * 7 % VOCAB)
    exam = Text(tokens, 100, LENGTH)
    plain = evaluate(model, exam, ROWS)
    for chunk in (1, 7, 1000):
        found = evaluate(model, exam, ROWS, loss_chunk=chunk)
        assert math.isclose(found.loss, plain.loss, rel_tol=TOLERANCE)
        assert replace(found, loss=plain.loss) == plain


def test_dropout_on_logits_is_drawn_once_and_followed_back():
    """The gradient is that of the loss that was given, not of another draw."""
    recipe = recipe_of(["lm_head", {"dropout": 0.5}])
    model = build(recipe, dtype=torch.float64).train()
    ids = torch.arange(LENGTH)[None] % VOCAB

    def drawn(model):
        torch.manual_seed(3)
        return model.loss(ids, ids, chunk=5)

    pull = gradients(model, drawn(model))["lm_head.weight"]
    moved, step = copy.deepcopy(model), 1e-6
    with torch.no_grad():
        moved.lm_head.weight += step * pull
        risen = (drawn(moved) - drawn(model)) / step
    assert math.isclose(float(risen), float(pull.square().sum()), rel_tol=1e-4)


@pytest.mark.parametrize("chunk", [None, 1, 5, 1000])
def test_loss_without_labels_is_zero_with_gradients_of_zero(chunk):
    for dtype in (torch.float64, torch.bfloat16):
        model = build(recipe_of(), dtype=dtype)
        ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
        loss = model.loss(ids, torch.full_like(ids, IGNORED), chunk=chunk)
        assert loss.item() == 0
        assert not any(gradient.any() for gradient in gradients(model, loss).values())


# What cannot be


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunk_below_one_is_refused_where_it_stands(chunk):
    text = f"""recipe: 1
dims: {{dim: 8, vocab: 16, context: 8}}
model: [token_embedding, lm_head]
train: {{loss_chunk: {chunk}}}
"""
    with pytest.raises(RecipeError, match=f"loss_chunk={chunk} is below 1") as caught:
        load_recipe(text)
    (finding,) = caught.value.findings
    assert finding.code == "check-failed"
    assert finding.mark.line == 4
    model = build(recipe_of())
    ids = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=f"chunk={chunk} is below 1"):
        model.loss(ids, ids, chunk=chunk)
