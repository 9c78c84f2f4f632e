"""When numbers go bad, or memory runs out: how it is known, and where it began."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from builder.graph import leaves
from builder.training.corpus import Batch
from builder.training.step import Training, backward
from builder.training.world import local

WINDOW = 64  # losses that a spike is measured by
FEWEST = 16
DEVIATIONS = 6.0


@dataclass
class Losses:
    """The last losses, against which a spike stands out."""

    last: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def expected(self, loss: float) -> float | None:
        """Note a loss.  The mean of those before it, if it is a spike: far above them all."""
        before = list(self.last)
        self.last.append(loss)
        if len(before) < FEWEST:
            return None
        usual = mean(before)
        limit = max(usual + DEVIATIONS * stdev(before), max(before))
        return usual if loss > limit else None


def first_bad(training: Training, index: int, batch: Batch) -> str:
    """Where a step's numbers first were not finite: the step is run again, and watched."""
    model, world = training.model, training.world
    bad = next((n for n, p in model.named_parameters() if not _finite(local(p))), None)
    found = [f"the weights {bad}"] if bad else []
    with _watched(training, found), torch.compiler.set_stance("force_eager"):
        backward(training, batch.to(training.device), index)
    gradients = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    found += [f"the gradient of {name}" for name, g in gradients if not _finite(local(g))]
    model.zero_grad()
    return next(
        (told[0] for told in world.all(found[:1]) if told), "nothing, when it was run again"
    )


@contextmanager
def _watched(training: Training, found: list[str]) -> Iterator[None]:
    """Note each leaf that gives what is not finite, and each that is reached by such a gradient."""
    model = training.model
    names = dict.fromkeys(leaf.weights for leaf in leaves(model.recipe.graph))

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor) and not _finite(out):
                found.append(f"what {name} gives")
            elif isinstance(out, Tensor) and out.requires_grad:
                reached = f"the gradient that reaches {name}"
                out.register_hook(lambda g: _note(g, reached, found))  # type: ignore[no-untyped-call]

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(gradient: Tensor, what: str, found: list[str]) -> None:
    if not _finite(gradient):
        found.append(what)


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.detach().isfinite().all())


def unfit(model: nn.Module) -> str | None:
    """The first parameter that is not finite, and so in no checkpoint."""
    return next((n for n, p in model.named_parameters() if not _finite(local(p))), None)


def shown(number: float) -> float | str:
    """A number as JSON has it, which knows neither ``nan`` nor ``inf``."""
    return number if math.isfinite(number) else str(number)


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out; on a CPU torch says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in str(error) or "not enough memory" in str(error))
    )
