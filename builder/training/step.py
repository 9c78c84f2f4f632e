"""One step of training, and one evaluation: plain functions of what is trained, and the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from builder.fingerprint import fingerprint
from builder.loss import IGNORED, at_once
from builder.model import Model
from builder.training.corpus import Batch
from builder.training.exam import Exam
from builder.training.layers import Dropout
from builder.training.optimizers import Optimizer, set_rate
from builder.training.order import Array
from builder.training.settings import Train
from builder.training.world import World, local, whole

MASK = 2**63 - 1


@dataclass(frozen=True)
class Training:
    """What a step works on.  What changes is in the model, the optimizers and the average alone.

    ``loss`` is the model's own, or that of what wraps it where several processes train.
    """

    model: Model
    loss: Callable[..., Tensor]
    optimizers: Sequence[Optimizer]
    settings: Train
    dropout: Dropout
    world: World
    average: Mapping[str, Tensor] = field(default_factory=dict)  # by name, if one is kept

    @property
    def device(self) -> torch.device:
        return self.world.device

    @staticmethod
    def alone(model: Model, settings: Train, optimizers: Sequence[Optimizer] = ()) -> Training:
        """In one process, on the device that the model is on."""
        device = next(model.parameters()).device
        dropout = Dropout(settings.seed, device)
        return Training(model, model.loss, optimizers, settings, dropout, World(device))


@dataclass(frozen=True)
class Step:
    """What a step found; ``number`` counts from 1.

    ``batch`` and ``gradient`` are digests: of the samples read, and of every bit of the gradient.
    """

    number: int
    loss: float
    norm: float
    lr: float
    batch: int = 0
    gradient: int = 0

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


@dataclass(frozen=True)
class Evaluation:
    """The mean loss in nats a token; over bytes it can be compared between tokenizers.  Of a task
    also how many answers were right.
    """

    loss: float
    tokens: int
    bytes: int
    right: int | None = None

    @property
    def accuracy(self) -> float | None:
        """The share of answers that were right; None if it was not asked."""
        return None if self.right is None else self.right / self.tokens if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        return self.loss * self.tokens / self.bytes / math.log(2) if self.bytes else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))


def samples_of(settings: Train, index: int, world: World) -> Array:
    """The numbers of this process's samples of a step: together they are those of one alone."""
    numbers = np.arange(index * settings.batch, (index + 1) * settings.batch)
    return np.array_split(numbers, world.size)[world.rank]


def take_step(training: Training, index: int, batch: Batch) -> Step:
    """Step ``index`` (from 0) over this process's part of its batch.  Where loss or gradient is not
    finite, nothing is moved.
    """
    found = look_at(training, index, batch)
    if found.finite:
        set_rate(training.optimizers, found.lr)
        for optimizer in training.optimizers:
            optimizer.step()
        average(training)
    for optimizer in training.optimizers:
        optimizer.zero_grad()
    return found


def look_at(training: Training, index: int, batch: Batch) -> Step:
    """The gradient of a step, clipped, and what is found."""
    settings, world = training.settings, training.world
    loss = backward(training, batch.to(training.device), index)
    gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
    read = torch.tensor(batch.digest, device=training.device)
    digests = torch.stack([fingerprint(map(local, gradients)).to(read), read])
    if world.shard:
        world.sum(digests)
    elif not world.alone:
        world.sum(digests[1:])
    limit = math.inf if settings.clip is None else settings.clip
    norm = whole(torch.nn.utils.clip_grad_norm_(training.model.parameters(), limit))
    seen, length = torch.stack([loss, norm.to(loss)]).tolist()  # the one wait for the device
    lr = settings.lr * settings.schedule(index, settings.steps)
    bits, ids = (int(number) & MASK for number in digests.tolist())
    return Step(index + 1, seen, length, lr, ids, bits)


def backward(training: Training, batch: Batch, index: int) -> Tensor:
    """The gradient of the mean loss over a batch, part by part; the loss stays on the device.

    A part weighs as much as it has labels.  What a block asks of a batch (a balance of experts), it
    asks of each part.
    """
    settings, world = training.settings, training.world
    total = int(world.sum(torch.tensor(batch.learnt, device=training.device)))
    losses = []
    parts = batch.parts(settings.accumulate)
    for number, part in enumerate(parts):
        training.dropout.begin(index, world.rank * settings.accumulate + number)
        with numerics(training.device, settings.dtype), summing(training, number + 1 < len(parts)):
            loss = training.loss(
                part.ids,
                part.labels,
                documents=part.documents,
                chunk=at_once(settings.loss_chunk, training.model.recipe.graph.vocab),
                z_loss=settings.z_loss,
            )
            weighed = loss * (part.learnt / max(total, 1))
            (weighed * world.size).backward()  # type: ignore[no-untyped-call]  # it is averaged
        losses.append(weighed.detach())
    return world.sum(torch.stack(losses).sum())


@contextmanager
def summing(training: Training, more: bool) -> Iterator[None]:
    """Where more parts come, processes need not yet exchange their gradients."""
    wait = getattr(training.loss, "no_sync", None)
    if more and wait is not None:
        with wait():
            yield
    else:
        yield


@torch.no_grad()
def average(training: Training) -> None:
    """Move the average of the weights a little towards them."""
    if not training.average:
        return
    assert training.settings.ema is not None
    ours = [local(p) for p in training.model.parameters()]
    means = [local(mean) for mean in training.average.values()]
    torch._foreach_lerp_(means, ours, 1 - training.settings.ema)


@contextmanager
def averaged(training: Training) -> Iterator[None]:
    """With the average, if one is kept, in the weights' place."""
    _swap(training)
    try:
        yield
    finally:
        _swap(training)


@torch.no_grad()
def _swap(training: Training) -> None:
    for name, mean in training.average.items():
        weight, mean = local(training.model.get_parameter(name)), local(mean)
        kept = weight.clone()
        weight.copy_(mean)
        mean.copy_(kept)


def numerics(device: torch.device, dtype: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


@torch.no_grad()
def evaluate(
    model: Model,
    exam: Exam,
    batch: int = 8,
    dtype: str = "fp32",
    loss_chunk: int | None = None,
    world: World | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """The loss over all that an exam asks, in parts of ``batch`` rows.

    Several processes share the parts out; each runs as often as the others, as sharded weights
    must.  None if ``stop`` says so on the way.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    world = World(device) if world is None else world
    totals = torch.zeros(3, dtype=torch.float64)  # on the CPU: not every device has such numbers
    parts = exam.parts(batch)
    for first in range(0, len(parts), world.size):
        if stop():
            model.train(was_training)
            return None
        mine = first + world.rank
        part = parts[min(mine, len(parts) - 1)]().to(device)
        with numerics(device, dtype):
            mean, right = answered(model, part, loss_chunk, exam.answers)
        if mine < len(parts):
            found = [mean.item() * part.learnt, part.learnt, int(right)]
            totals += torch.tensor(found, dtype=torch.float64)
    model.train(was_training)
    nats, learnt, right = (totals if world.alone else world.sum(totals.to(device))).tolist()
    loss = nats / learnt if learnt else math.nan
    return Evaluation(loss, int(learnt), exam.bytes, int(right) if exam.answers else None)


def answered(
    model: Model, part: Batch, loss_chunk: int | None, answers: bool
) -> tuple[Tensor, Tensor | int]:
    """The mean loss of a part, and if it is asked how many labels the greatest logits guess."""
    if not answers:
        chunk = at_once(loss_chunk, model.recipe.graph.vocab)
        loss = model.loss(part.ids, part.labels, documents=part.documents, chunk=chunk)
        return loss, 0
    logits, loss = model.logits_and_loss(part.ids, part.labels, documents=part.documents)
    return loss, ((logits.argmax(-1) == part.labels) & (part.labels != IGNORED)).sum()
