"""The ``train`` section of a recipe: its signature is its schema."""

from __future__ import annotations

from typing import Literal

from blocks.registry import Init, Optimizer, Schedule, maker, register


@register("train", kind="section")
class Train:
    """How a model is trained.

    ``batch`` is the windows of a step, of ``length`` tokens each (the context if none), in
    ``accumulate`` parts; with a ``loss_chunk`` the logits of no more than so many tokens are held
    at once.  ``eval_tokens`` is the most that validation takes from the end of the
    corpus.  ``sample`` is continued by ``sample_tokens`` at each evaluation.  The last ``keep``
    checkpoints stay.
    """

    checks = {
        "steps >= 1": "steps={steps} is below 1",
        "1 <= accumulate and accumulate <= batch": "no {accumulate} parts of batch={batch}",
        "loss_chunk >= 1": "loss_chunk={loss_chunk} is below 1",
        "length >= 1": "length={length} is below 1",
        "length <= context": "length={length} is more than context={context}",
        "lr > 0": "lr={lr} is not above 0",
        "clip > 0": "clip={clip} is not above 0",
        "log_every >= 1": "log_every={log_every} is below 1",
        "eval_every >= 1": "eval_every={eval_every} is below 1",
        "checkpoint_every >= 1": "checkpoint_every={checkpoint_every} is below 1",
        "keep >= 1": "keep={keep} is below 1",
        "eval_tokens >= 0": "eval_tokens={eval_tokens} is below 0",
        "sample_tokens >= 0": "sample_tokens={sample_tokens} is below 0",
    }

    def __init__(
        self,
        *,
        steps: int = 600,
        batch: int = 12,
        lr: float = 1e-3,
        length: int | None = None,
        accumulate: int = 1,
        loss_chunk: int | None = None,
        seed: int = 0,
        dtype: Literal["fp32", "bf16"] = "fp32",
        init: Init = maker("normal"),
        optimizer: Optimizer = maker("adamw"),
        schedule: Schedule = maker("cosine"),
        clip: float | None = 1.0,
        log_every: int = 10,
        eval_every: int = 200,
        eval_tokens: int = 32768,
        checkpoint_every: int = 200,
        keep: int = 2,
        sample: str = "",
        sample_tokens: int = 64,
    ) -> None:
        self.steps, self.batch, self.lr, self.length = steps, batch, lr, length
        self.accumulate, self.loss_chunk = accumulate, loss_chunk
        self.seed, self.dtype, self.clip = seed, dtype, clip
        self.init, self.optimizer, self.schedule = init(), optimizer(), schedule()
        self.log_every, self.eval_every, self.eval_tokens = log_every, eval_every, eval_tokens
        self.checkpoint_every, self.keep = checkpoint_every, keep
        self.sample, self.sample_tokens = sample, sample_tokens
