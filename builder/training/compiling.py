"""Layers as torch compiles them, where a run is long enough for that to pay."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blocks.cache import Cache
from blocks.call import Call
from builder.assemble import Run
from builder.fold import shape
from builder.graph import Layer
from builder.model import Model
from builder.training.settings import Train

SAVED = 0.05  # of a step: what was measured on a CPU, for kernels that are good already
SECONDS = 20.0  # that a kind of layer takes to compile
RATE = {"cpu": 5e10, "cuda": 1e14}  # operations a second, that a run's length is guessed by


def worth_compiling(model: Model, settings: Train, sharded: bool = False) -> bool:
    """Whether layers are compiled: as is asked, else by how long the run will take.

    It is guessed from the recipe alone, by 6 operations a weight and token (Kaplan et al. 2020), so
    that a run that is resumed goes on with the same kernels.  Of unknown devices nothing is
    guessed, nor of weights that are shared out.
    """
    if settings.compile != "auto":
        return settings.compile == "always"
    rate = RATE.get(next(model.parameters()).device.type)
    if rate is None or sharded:
        return False
    weights = sum(parameter.numel() for parameter in model.parameters())
    tokens = settings.steps * settings.batch * (settings.length or model.recipe.graph.context)
    return SAVED * 6 * weights * tokens / rate > SECONDS * kinds(model)


def kinds(model: Model) -> int:
    """How many unlike layers there are: those that are alike share what is compiled."""
    items = model.recipe.graph.items
    return len({shape(item.body) for item in items if isinstance(item, Layer)})


@dataclass
class Compiler:
    """Compiles layers when they first run.  After the first that cannot be compiled, all run as
    they are, and ``say`` is told why.
    """

    say: Callable[[str], None]
    backend: str | Callable[..., Any] = "inductor"
    failed: bool = False

    def around(self, run: Run) -> Run:
        """What runs a layer in training."""
        compiled: Any = torch.compile(run.__call__, dynamic=False, backend=self.backend)
        torch_error = importlib.import_module("torch._dynamo.exc").TorchDynamoException

        def layer(x: Tensor, call: Call, cache: Cache | None) -> Tensor:
            if self.failed:
                return run(x, call, cache)
            try:
                return compiled(x, call, cache)  # type: ignore[no-any-return]
            except torch_error as error:
                self.failed = True
                cause = getattr(error, "inner_exception", error)
                reason = str(cause).strip().partition("\n")[0]
                self.say(f"the layers are not compiled: {reason}")
                return run(x, call, cache)

        return layer


def compile_layers(model: Model, compiler: Compiler) -> None:
    """Compile every layer of a model in training, when it first runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch's own modules import
        importlib.import_module("torch._inductor.compile_fx")
    config: Any = importlib.import_module("torch._dynamo.config")
    config.recompile_limit = max(config.recompile_limit, 8 * kinds(model))
    for body in getattr(model, "layers", ()):
        body.run.compiled = compiler.around(body.run.run)
    compiler.say("compiling the layers: the first step takes longer")
