"""A run while it is written: what is logged, what is saved, and how it is taken up again."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import NumbersError
from builder.training import checkpoints
from builder.training.loggers import Logger
from builder.training.optimizers import restore, state_tensors
from builder.training.prepare import Prepared
from builder.training.progress import Progress
from builder.training.runs import Run, load_weights, save_checkpoint
from builder.training.signals import Stop
from builder.training.step import Training
from builder.training.trouble import Losses, unfit
from builder.training.world import World, put


@dataclass
class Session:
    """A run while it is written."""

    prepared: Prepared
    run: Run
    progress: Progress
    stop: Stop
    loggers: Sequence[Logger] = ()
    losses: Losses = field(default_factory=Losses)
    bad: int = 0  # steps that were not finite, since there was progress
    saved: int = -1  # the step of the last checkpoint

    @property
    def training(self) -> Training:
        return self.prepared.training

    @property
    def world(self) -> World:
        return self.training.world

    def log(self, event: Mapping[str, Any]) -> None:
        """Into ``metrics.jsonl`` first, then wherever else it is wanted."""
        if self.world.first:
            self.run.log(event)
            for logger in self.loggers:
                logger.log(event)

    def asked(self) -> bool:
        """Whether any process is to stop."""
        return self.world.any(self.stop.asked is not None)


def recall(session: Session, checkpoint: Path) -> None:
    """Put model, optimizers, average and losses where a checkpoint says they were."""
    training = session.training
    load_weights(training.model, checkpoint)
    restore(training.optimizers, training.model, checkpoints.each(checkpoint, "training"))
    recall_average(training, checkpoint)
    state = checkpoints.read_state(checkpoint)
    session.losses.last = deque(state.get("losses", ()), session.losses.last.maxlen)
    session.progress.begun = state.get("seconds", 0.0)
    session.saved = state["step"]


def recall_average(training: Training, checkpoint: Path) -> None:
    for name, value in checkpoints.each(checkpoint, "average"):
        put(training.average[name], value)


def end_if_asked(session: Session, step: int) -> None:
    """Save and raise Stopped, if a signal came."""
    if not session.asked():
        return
    if session.saved != step:
        checkpoint(session, step)
    session.stop.asked = session.stop.asked or signal.SIGTERM  # it came to another process
    raise session.stop.error(
        f"stopped after step {step}, which is saved", f"python -m builder resume {session.run.path}"
    )


def checkpoint(session: Session, step: int) -> None:
    """Save all that the next step needs.  NumbersError if a weight is not finite."""
    training, corpus = session.training, session.prepared.texts.corpus
    if bad := next(filter(None, session.world.all(unfit(training.model))), None):
        raise NumbersError(
            "not-finite",
            f"after step {step} {bad} is not finite, and is not saved",
            "lower train.lr",
        )
    beside: dict[str, Any] = {"training": state_tensors(training.optimizers, training.model)}
    if training.average:
        beside["average"] = training.average
    state: dict[str, Any] = {"source": corpus.source, "recipe": session.run.recipe.hash}
    state |= {"losses": list(session.losses.last), "seconds": round(session.progress.seconds, 3)}
    keep = training.settings.keep
    save_checkpoint(session.run, training.model, step, beside, state, keep, training.world)
    session.saved = step
