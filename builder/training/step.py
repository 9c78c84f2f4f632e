"""One step of training, and one evaluation: plain functions of what is trained, and the step."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from builder.errors import NumbersError
from builder.training.corpus import Array, Corpus, windows
from builder.training.settings import Train

if TYPE_CHECKING:
    from builder.model import Model


@dataclass(frozen=True)
class Training:
    """What a step works on.  What changes is in the model and the optimizer alone."""

    model: Model
    optimizer: torch.optim.Optimizer
    settings: Train
    corpus: Corpus
    device: torch.device


@dataclass(frozen=True)
class Step:
    """What a step found; ``number`` counts from 1."""

    number: int
    loss: float
    norm: float
    lr: float


@dataclass(frozen=True)
class Evaluation:
    """The mean loss in nats a token; over bytes it can be compared between tokenizers."""

    loss: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.loss * self.tokens / self.bytes / math.log(2) if self.bytes else math.nan

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))


def take_step(training: Training, index: int) -> Step:
    """Step ``index`` (from 0): loss, gradient, then the move.  NumbersError before it."""
    settings = training.settings
    batch = torch.from_numpy(
        windows(training.corpus, settings.seed, index * settings.batch, settings.batch)
    )
    loss = backward(training.model, settings, batch.to(training.device), index)
    limit = math.inf if settings.clip is None else settings.clip
    norm = torch.nn.utils.clip_grad_norm_(training.model.parameters(), limit)
    seen, length = torch.stack([loss, norm]).tolist()  # the one wait for the device
    lr = settings.lr * settings.schedule(index, settings.steps)
    found = Step(index + 1, seen, length, lr)
    if not (math.isfinite(found.loss) and math.isfinite(found.norm)):
        raise NumbersError(
            "not-finite",
            f"step {found.number}: loss {found.loss}, gradient norm {found.norm}; "
            "the weights were not moved",
            f"try a lower train.lr than {settings.lr:g}, a longer warmup, or train.clip",
        )
    for group in training.optimizer.param_groups:
        group["lr"] = found.lr
    training.optimizer.step()
    training.optimizer.zero_grad()
    return found


def backward(model: Model, settings: Train, batch: Tensor, index: int) -> Tensor:
    """The gradient of the mean loss over a batch, part by part; the loss stays on the device.

    A part weighs as much as it has tokens.  What a block asks of a batch (a balance of experts), it
    asks of each part.
    """
    losses = []
    for number, part in enumerate(batch.tensor_split(settings.accumulate)):
        torch.manual_seed(dropout_seed(settings.seed, index, number))
        with numerics(batch.device, settings.dtype):
            loss = model.loss(part[:, :-1], part[:, 1:], chunk=settings.loss_chunk)
        weighed = loss * (len(part) / len(batch))
        weighed.backward()  # type: ignore[no-untyped-call]
        losses.append(weighed.detach())
    return torch.stack(losses).sum()


def dropout_seed(*key: int) -> int:
    """Of (seed, step, part): resuming needs no state of a generator."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def numerics(device: torch.device, dtype: str) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


@torch.no_grad()
def evaluate(
    model: Model,
    tokens: Array,
    bytes: int,
    length: int,
    batch: int = 8,
    dtype: str = "fp32",
    loss_chunk: int | None = None,
) -> Evaluation:
    """The loss over every token but the first, each predicted once, in windows of ``length``."""
    model.eval()
    device = next(model.parameters()).device
    predicted = max(len(tokens) - 1, 0)
    count = predicted // length
    rows = np.arange(count)[:, None] * length + np.arange(length + 1)
    parts = [tokens[rows[i : i + batch]] for i in range(0, count, batch)]
    if predicted > count * length:
        parts.append(tokens[None, count * length :])
    nats = torch.zeros((), dtype=torch.float64)
    for part in parts:
        ids = torch.from_numpy(part.astype(np.int64)).to(device)
        with numerics(device, dtype):
            mean = model.loss(ids[:, :-1], ids[:, 1:], chunk=loss_chunk)
        nats += mean.double().cpu() * ids[:, 1:].numel()
    model.train()
    return Evaluation(float(nats) / predicted if predicted else math.nan, predicted, bytes)
