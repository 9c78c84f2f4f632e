"""The ``train`` section of a recipe: its fields are its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from blocks.registry import Data, Init, Optimizer, Schedule, maker, register
from builder.construct import import_plugins, make
from builder.recipe import Recipe


@register("train", kind="section")
@dataclass(kw_only=True)
class Train:
    """How a model is trained.

    ``batch`` is the windows of a step, of ``length`` tokens each (the context if none), in
    ``accumulate`` parts.  ``documents: apart`` keeps what stands in one window from seeing each
    other.  The logits of no more than ``loss_chunk`` tokens are held at once, if none of as many as
    fit in 64 MB; with ``recompute`` a layer's activations are computed again for its gradient, and
    not held.  Layers are compiled if the run is long enough for that to pay, ``always`` or
    ``never``.

    ``lr`` is the schedule's peak; ``rates`` are those of parameters by a path of their names
    (``attention.q``, ``layers.*.glu``), a later line before an earlier.  ``z_loss`` weighs the
    squared logarithm of the softmax's denominator.  With ``ema`` the weights' moving average is
    kept, and is what is validated and used.  ``nonfinite`` says what a loss or gradient that is
    none does: stop the run, skip the step, or roll back to the last checkpoint and go on behind it.

    ``eval_tokens`` is the most that validation takes from the end of the corpus, and from each of
    ``eval_sets``.  ``sample`` is continued by ``sample_tokens`` at each evaluation.  The last
    ``keep`` checkpoints stay.  ``workers`` processes read ahead.
    """

    checks = {
        "steps >= 1": "steps={steps} is below 1",
        "1 <= accumulate and accumulate <= batch": "no {accumulate} parts of batch={batch}",
        "loss_chunk >= 1": "loss_chunk={loss_chunk} is below 1",
        "length >= 1": "length={length} is below 1",
        "length <= context": "length={length} is more than context={context}",
        "lr > 0": "lr={lr} is not above 0",
        "clip > 0": "clip={clip} is not above 0",
        "z_loss >= 0": "z_loss={z_loss} is below 0",
        "0 < ema and ema < 1": "ema={ema} is not between 0 and 1",
        "workers >= 0": "workers={workers} is below 0",
        "log_every >= 1": "log_every={log_every} is below 1",
        "eval_every >= 1": "eval_every={eval_every} is below 1",
        "checkpoint_every >= 1": "checkpoint_every={checkpoint_every} is below 1",
        "keep >= 1": "keep={keep} is below 1",
        "eval_tokens >= 0": "eval_tokens={eval_tokens} is below 0",
        "sample_tokens >= 0": "sample_tokens={sample_tokens} is below 0",
    }

    steps: int = 600
    batch: int = 12
    lr: float = 1e-3
    length: int | None = None
    documents: Literal["joined", "apart"] = "joined"
    accumulate: int = 1
    loss_chunk: int | None = None
    recompute: bool = False
    compile: Literal["auto", "always", "never"] = "auto"
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    init: Init = maker("normal")
    optimizer: Optimizer = maker("adamw")
    schedule: Schedule = maker("cosine")
    rates: Mapping[str, float] | None = None
    clip: float | None = 1.0
    z_loss: float = 0.0
    ema: float | None = None
    nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    workers: int = 0
    log_every: int = 1
    eval_every: int = 200
    eval_tokens: int = 32768
    eval_sets: Mapping[str, Data] | None = None
    checkpoint_every: int = 200
    keep: int = 2
    sample: str = ""
    sample_tokens: int = 64

    def __post_init__(self) -> None:
        self.init, self.optimizer, self.schedule = self.init(), self.optimizer(), self.schedule()
        self.eval_sets = {name: make() for name, make in (self.eval_sets or {}).items()}


def settings_of(recipe: Recipe) -> Train:
    """How a recipe says that it is trained, its plug-ins imported: what fills its slots, and what
    it reads, may be theirs.
    """
    import_plugins(recipe.plugins)
    found: Train = make(recipe.train)
    return found
