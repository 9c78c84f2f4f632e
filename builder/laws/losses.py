"""The loss is a mean over labels, in however many parts logits are held or a batch is read."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import torch
from torch import Tensor

from builder.construct import make
from builder.laws.case import Case, gradients
from builder.laws.noise import noise_of
from builder.laws.probe import TOLERANCE, distance, gradients_agree
from builder.loss import IGNORED
from builder.training.corpus import Batch
from builder.training.layers import Dropout, around_layers
from builder.training.step import Training, backward

ROWS = 3
PARTED = 5  # rows: neither two parts of them nor three are alike


def loss_is_the_mean_over_its_labels(case: Case) -> float:
    """The loss is ``log sum exp(logits) - logit``, meant over the labels that are not -100.

    Evaluated, it is that alone: what blocks add is for training.  The logits at an ignored label
    get no gradient at all, and without labels the loss is 0, with gradients of 0.
    """
    model, ids, labels = case.model, case.ids(ROWS), labels_of(case)
    logits, loss = model.logits_and_loss(ids, labels)
    (towards,) = torch.autograd.grad(loss, logits, retain_graph=True)
    counted = (labels != IGNORED)[..., None]
    picked = torch.zeros_like(logits).scatter(-1, labels.clamp(min=0)[..., None], 1.0)
    with torch.no_grad():
        costs = logits.logsumexp(-1, keepdim=True) - (logits * picked).sum(-1, keepdim=True)
        error = distance(loss, costs[counted].mean())
        assert error <= TOLERANCE, f"the loss is not the mean over its labels, by {error:.3g}"
        pulls = (logits.softmax(-1) - picked) * counted / counted.sum()
        astray = distance(towards, pulls)
        assert astray <= TOLERANCE, f"the gradient of the logits is wrong by {astray:.3g}"
        assert not (towards * ~counted).any(), "a label that is ignored moves its logits"
    nothing = model.loss(ids, torch.full_like(labels, IGNORED))
    assert not nothing.detach().any(), f"without labels the loss is {nothing.item()}"
    for name, gradient in gradients(model, nothing).items():
        assert not gradient.any(), f"without labels {name} has a gradient"
    return max(error, astray)


def any_chunk_gives_the_same_loss(case: Case) -> float:
    """However many positions' logits are held at once, the loss and its gradients are the same."""
    model, ids, labels = case.model, case.ids(ROWS), labels_of(case)
    plain = model.loss(ids, labels)
    chunk = random.Random(case.seed).randint(1, ids.numel())
    in_chunks = model.loss(ids, labels, chunk=chunk)
    found, expected = gradients(model, in_chunks), gradients(model, plain)
    worst = gradients_agree(found, expected, f"in chunks of {chunk}")
    with torch.no_grad():
        errors = {"the loss": distance(in_chunks, plain)}
        errors["the loss without gradients"] = distance(model.loss(ids, labels, chunk=chunk), plain)
        for size in (1, ids.numel() + 1):
            errors[f"the loss by {size}"] = distance(model.loss(ids, labels, chunk=size), plain)
    for name, error in errors.items():
        assert error <= TOLERANCE, f"in chunks of {chunk}, {name} differs by {error:.3g}"
    nothing = model.loss(ids, torch.full_like(labels, IGNORED), chunk=chunk)
    assert not nothing.detach().any(), f"without labels a loss in chunks is {nothing.item()}"
    return max(worst, *errors.values())


def unequal_parts_make_one_batch(case: Case) -> float:
    """A batch read in parts, some longer than others, has the loss and the gradients of the whole.

    As training reads it, and evaluated: what a block asks of a batch as a whole, a balance of
    experts, it asks of each part.
    """
    batch = case.ids(PARTED, case.length + 1)
    if batch.shape[1] < 2:
        return 0.0
    whole = case.model.loss(batch[:, :-1], batch[:, 1:])
    expected = gradients(case.model, whole)
    model, parts = copy.deepcopy(case.model), random.Random(case.seed).choice([2, 3])
    options = {**dict(case.recipe.train.options), "accumulate": parts}
    settings = make(replace(case.recipe.train, options=tuple(options.items())))
    total = backward(Training.alone(model, settings), Batch(batch[:, :-1], batch[:, 1:]), 0)
    error = distance(total, whole.detach())
    assert error <= TOLERANCE, f"read in {parts} parts, the loss differs by {error:.3g}"
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return max(error, gradients_agree(found, expected, f"read in {parts} parts"))


def recomputed_layers_change_no_gradient(case: Case) -> float:
    """Whether a layer's activations are kept for its gradient or computed again, it is the same."""
    ids, labels = case.ids(ROWS), labels_of(case)
    found = {}
    for recompute in (False, True):
        model, dropout = copy.deepcopy(case.model).train(), Dropout(case.seed, ids.device)
        around_layers(model, dropout, recompute)
        dropout.begin(0, 0)
        found[recompute] = gradients(model, model.loss(ids, labels))
    return gradients_agree(found[True], found[False], "computed again")


def labels_of(case: Case) -> Tensor:
    """A label for each token, a third of them ignored, and never all."""
    ids = case.ids(ROWS)
    labels = ids.roll(-1, 1)
    ignored = noise_of(case.seed, "labels", torch.zeros(ids.shape)) > 0.43  # a third of a normal
    ignored[0, 0] = False
    return labels.masked_fill(ignored, IGNORED)
