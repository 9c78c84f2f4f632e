"""Before the first cell trains: each row is built, checked and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from builder.ablation.structure import is_causal
from builder.ablation.swaps import Variant
from builder.errors import InputError, NumbersError
from builder.training.evaluate import check_lengths
from builder.training.exam import Text
from builder.training.loop import first_batch
from builder.training.prepare import Texts, prepare
from builder.training.samples import Answers
from builder.training.step import take_step
from builder.training.world import joined

STEPS = 3  # the first of which warms up
FEWEST = 8  # tokens that are held out: halves, of which the first of each is not predicted
CHECKED = 32  # tokens, at which a row is asked whether it is causal
EVALUATED = 1 / 3  # of what a step takes, that a forward does


@dataclass(frozen=True)
class Rehearsal:
    """What a row takes: seconds of a step, and of a whole cell."""

    step: float
    cell: float


def rehearse(variant: Variant, lengths: Sequence[int] = (), device: str | None = None) -> Rehearsal:
    """Build a row, look whether it is causal and its first steps are finite, and time them.

    InputError, NumbersError or RecipeError as training it would raise, with the row's name.
    """
    recipe = variant.recipe
    with joined(device) as world:
        prepared = prepare(recipe, lambda text: None, world=world)
        training, context = prepared.training, recipe.graph.context
        check_lengths(lengths, context, training.model.limit, past=True)
        batch, times = first_batch(prepared), []
        for index in range(min(STEPS, training.settings.steps)):
            began = time.perf_counter()
            step = take_step(training, index, batch)
            times.append(time.perf_counter() - began)
            if index == 0 and not step.finite:
                message = f"{variant.name!r}: loss {step.loss}, gradient norm {step.norm} at once"
                raise NumbersError("not-finite", message, "try another train.init or train.lr")
        ids = torch.arange(min(context, CHECKED), device=world.device)[None] % recipe.graph.vocab
        if not is_causal(training.model, ids):
            message = f"{variant.name!r} is not causal: a token's logits read a later one"
            raise InputError("not-causal", message, f"python -m builder check {variant.path}")
    each, held = min(times), held_tokens(prepared.texts)
    if held < (needed := max(FEWEST, 2 * (max(lengths, default=0) + 1))):
        message = f"{held} tokens are held out to measure {variant.name!r} on, of {needed} needed"
        raise InputError("nothing-to-measure", message, "train.eval_tokens=32768, or more text")
    forward = EVALUATED * each * held / batch.ids.numel()
    asked = 2 + 4 * len(lengths)  # the run's own, both halves, and quarters of windows
    return Rehearsal(each, each * training.settings.steps + forward * asked)


def held_tokens(texts: Texts) -> int:
    """How many tokens a cell is measured on."""
    exam = next(iter(texts.validated.values()))
    if isinstance(exam, Answers):
        return exam.count * exam.length
    assert isinstance(exam, Text)
    return len(exam.tokens)
