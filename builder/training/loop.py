"""Training a recipe: step after step, and what is written on the way."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from builder.construct import make
from builder.errors import InputError, NumbersError
from builder.training import checkpoints, memory
from builder.training.corpus import Batch
from builder.training.feed import batches
from builder.training.loggers import Logger, named_loggers
from builder.training.optimizers import restore, state_tensors
from builder.training.order import places
from builder.training.prepare import Prepared, at_rest, prepare
from builder.training.progress import Progress, duration
from builder.training.runs import Run, create_run, load_weights, replace_text, save_checkpoint
from builder.training.signals import Stop, stopping
from builder.training.step import (
    Evaluation,
    Step,
    Training,
    averaged,
    backward,
    evaluate,
    take_step,
)
from builder.training.trouble import Losses, first_bad, shown, unfit
from builder.training.world import World, joined, put

if TYPE_CHECKING:
    from builder.recipe import Recipe
    from builder.training.prepare import Say

SAMPLE_TEMPERATURE = 0.8
PATIENCE = 10  # bad steps in a row, or rollbacks between two checkpoints, until training stops
VALIDATION = "validation"


@dataclass
class Session:
    """A run while it is written."""

    prepared: Prepared
    run: Run
    progress: Progress
    stop: Stop
    loggers: Sequence[Logger] = ()
    losses: Losses = field(default_factory=Losses)
    bad: int = 0
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


def train(
    recipe: Recipe,
    path: Path | None = None,
    start: Run | None = None,
    device: str | None = None,
    command: Sequence[str] = (),
    shard: bool = False,
    loggers: Sequence[str] = (),
) -> Run:
    """Train a recipe in a new run folder, from the weights of ``start`` if it is given."""
    if path is not None and path.exists():
        raise InputError(
            "run-exists", f"{path} exists already", "give another name, or 'resume' it"
        )
    with stopping() as stop, joined(device, shard) as world:
        progress = progress_of(recipe, world)
        with stop.before_anything():
            wanted = named_loggers(loggers)
            recipe = at_rest(recipe, world)
            prepared = prepare(recipe, progress.say, start, world=world)
        run = shared_run(recipe, prepared, command, path, loggers)
        progress.say(f"run: {run.path}")
        with run.locked(world):
            session = Session(prepared, run, progress, stop, opened(wanted, run, world, 0))
            if start is not None:
                checkpoint(session, 0)
            fit(session, 0)
    return run


def shared_run(
    recipe: Recipe,
    prepared: Prepared,
    command: Sequence[str],
    path: Path | None,
    loggers: Sequence[str],
) -> Run:
    """A new run folder, which the first process makes for all."""
    world = prepared.training.world
    made = None
    if world.first:
        texts = prepared.texts
        notes = {"processes": world.size, "shard": world.shard, "loggers": list(loggers)}
        notes |= {"device": device_name(world.device), "source": texts.corpus.source}
        notes |= {"tokenizer": texts.tokenizer.hash}
        made = create_run(recipe, prepared.texts.tokenizer, command, path, notes=notes)
    return Run(world.told(made and made.path), recipe.plugins)


def resume(run: Run, device: str | None = None, shard: bool = False) -> Run:
    """Go on from the last good checkpoint, or from the beginning, as if nothing had happened."""
    with stopping() as stop, joined(device, shard) as world, run.locked(world):
        recipe, tokenizer = run.recipe, run.tokenizer
        names = run.environment.get("loggers", ())
        progress = progress_of(recipe, world)
        with stop.before_anything():
            wanted = named_loggers(names)
            latest = run.latest(progress.say) if run.begun else None
            state = checkpoints.read_state(latest) if latest else {"step": 0}
            with run.at_home():
                prepared = prepare(recipe, progress.say, tokenizer=tokenizer, world=world)
        if state.get("source") not in (None, prepared.texts.corpus.source):
            raise InputError(
                "data-changed",
                f"the text that {run.path} is trained on has changed",
                "bring it back",
            )
        loggers = opened(wanted, run, world, state["step"])
        session = Session(prepared, run, progress, stop, loggers)
        if latest is not None:
            recall(session, latest)
        if world.first:
            run.rewind(state["step"])
            write_samples(session)
        world.wait()
        progress.say(f"resuming {run.path} after step {state['step']}")
        fit(session, state["step"])
    return run


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def opened(wanted: Sequence[type[Logger]], run: Run, world: World, after: int) -> list[Logger]:
    return [logger(run, after) for logger in wanted] if world.first else []


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


def fit(session: Session, start: int) -> None:
    """The steps from ``start`` on.  Stopped, with everything saved, if a signal asks for it;
    ResourceError if memory runs out.
    """
    try:
        take_steps(session, start)
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        raise memory.out_of_memory(session.run.recipe, session.world) from error
    finally:
        for logger in session.loggers:
            logger.close()


def take_steps(session: Session, start: int) -> None:
    """Step after step, each shown, logged, saved and looked at if it is time."""
    training, settings = session.training, session.training.settings
    look(session, start)  # if it was stopped before it could
    end_if_asked(session, start)
    for index, batch in steps_from(session, start):
        began = time.perf_counter()
        step = take_step(training, index, batch)
        session.progress.timed(time.perf_counter() - began)
        if not step.finite:
            act_on(session, step, batch)
            continue
        note(session, step)
        last = step.number == settings.steps
        if last or step.number % settings.checkpoint_every == 0:
            checkpoint(session, step.number)
        look(session, step.number)
        end_if_asked(session, step.number)


def steps_from(session: Session, start: int) -> Iterator[tuple[int, Batch]]:
    """Each step with this process's part of its batch."""
    training, corpus = session.training, session.prepared.texts.corpus
    yield from batches(corpus, training.settings, training.world, start)


def note(session: Session, step: Step) -> None:
    """Show and log a step that was taken."""
    settings, progress = session.training.settings, session.progress
    if settings.nonfinite == "skip":
        session.bad = 0
    progress.show(step)
    usual = session.losses.expected(step.loss)
    if step.number == settings.steps or step.number % settings.log_every == 0:
        numbers = {"loss": step.loss, "norm": step.norm, "lr": step.lr}
        digests = {"batch": f"{step.batch:016x}", "gradient": f"{step.gradient:016x}"}
        times = {"tokens_per_s": round(progress.rate), "seconds": round(progress.seconds, 3)}
        session.log({"event": "step", "step": step.number, **numbers, **digests, **times})
    if usual is not None:
        progress.say(f"step {step.number}: the loss jumps to {step.loss:.3f}, from {usual:.3f}")
        told = {"loss": step.loss, "usual": usual, "samples": samples(session, step.number - 1)}
        session.log({"event": "spike", "step": step.number, **told})


def samples(session: Session, index: int) -> list[int]:
    """Where a step's samples lie in the corpus, in windows."""
    settings, corpus = session.training.settings, session.prepared.texts.corpus
    numbers = np.arange(index * settings.batch, (index + 1) * settings.batch)
    found: list[int] = places(numbers, corpus.samples, settings.seed).tolist()
    return found


def act_on(session: Session, step: Step, batch: Batch) -> None:
    """What the recipe says of a step whose numbers are not finite.  NumbersError if it stops."""
    training, settings = session.training, session.training.settings
    where = first_bad(training, step.number - 1, batch)
    session.bad += 1
    policy = settings.nonfinite if session.bad <= PATIENCE else "stop"
    numbers = {"loss": shown(step.loss), "norm": shown(step.norm), "first": where}
    told = {**numbers, "samples": samples(session, step.number - 1), "then": policy}
    session.log({"event": "not-finite", "step": step.number, **told})
    what = f"step {step.number}: loss {step.loss}, gradient norm {step.norm}; first: {where}"
    session.progress.say(f"{what}; {policy}")
    if policy == "rollback" and session.run.begun:
        recall(session, session.run.latest(session.progress.say))
    elif policy != "skip":
        if session.saved < step.number - 1:
            checkpoint(session, step.number - 1)
        raise NumbersError(
            "not-finite",
            f"{what}; samples {told['samples']}; the weights were not moved",
            f"try a lower train.lr than {settings.lr:g}, a longer warmup, train.clip, "
            "or train.nonfinite: skip",
        )


def look(session: Session, step: int) -> None:
    """Validate and sample if this is a step for it, what is not done yet; less if asked to stop."""
    settings = session.training.settings
    if not step or (step != settings.steps and step % settings.eval_every):
        return
    done = session.world.told([e for e in session.run.metrics() if e["step"] == step])
    seen = {e.get("set", VALIDATION) for e in done if e["event"] == "validation"}
    corpus = session.prepared.texts.corpus
    sets = {VALIDATION: (corpus.validation, corpus.validation_bytes)}
    with averaged(session.training):
        for name, (tokens, size) in {**sets, **session.prepared.texts.sets}.items():
            if name not in seen and size and not interrupted(session):
                validate(session, step, name, tokens, size)
        sampled = any(e["event"] == "sample" for e in done)
        if settings.sample_tokens and not sampled and not interrupted(session):
            session.log({"event": "sample", "step": step, "text": sample(session.prepared)})
            write_samples(session)


def interrupted(session: Session) -> bool:
    """Whether to leave what can be done later; several processes do all of it together."""
    return session.world.alone and session.stop.asked is not None


def validate(session: Session, step: int, name: str, tokens: Any, size: int) -> None:
    """Evaluate one text; what is found is said, and logged."""
    found = evaluation(session.prepared, tokens, size, stop=lambda: interrupted(session))
    if found is None:
        return
    label = "" if name == VALIDATION else f" on {name}"
    session.progress.say(f"step {step}: validation{label} {found.bits_per_byte:.4f} bits per byte")
    told = {} if name == VALIDATION else {"set": name}
    numbers = {"loss": found.loss, "bits_per_byte": found.bits_per_byte}
    session.log({"event": "validation", "step": step, **told, **numbers})


def evaluation(prepared: Prepared, tokens: Any, size: int, stop: Any) -> Evaluation | None:
    """The loss on a text as a run measures it; None if it was stopped."""
    training, settings = prepared.training, prepared.training.settings
    return evaluate(
        training.model,
        tokens,
        size,
        prepared.texts.corpus.length,
        batch=math.ceil(settings.batch / settings.accumulate),
        dtype=settings.dtype,
        loss_chunk=settings.loss_chunk,
        apart=prepared.texts.corpus.apart,
        world=training.world,
        stop=stop,
    )


def sample(prepared: Prepared) -> str:
    """What the model makes of the recipe's prompt."""
    settings, tokenizer = prepared.training.settings, prepared.texts.tokenizer
    model = prepared.training.model
    if not settings.sample and tokenizer.end is None:
        return ""
    prompt = tokenizer.prompt(settings.sample)
    room = model.recipe.graph.context - len(prompt)
    ids = torch.tensor([prompt], device=prepared.training.device)
    stop = [] if tokenizer.end is None else [tokenizer.end]
    new = min(settings.sample_tokens, room)
    out = model.generate(ids, new, temperature=SAMPLE_TEMPERATURE, seed=settings.seed, stop=stop)
    return tokenizer.decode(out[0].tolist())


def write_samples(session: Session) -> None:
    """Every sample so far as a page of text."""
    if session.world.first:
        told = [e for e in session.run.metrics() if e["event"] == "sample"]
        path = session.run.path / "samples.txt"
        if told or path.exists():
            replace_text(path, "".join(f"--- step {e['step']}\n{e['text']}\n" for e in told))


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
    session.bad = 0


# Before a run


def dry_run(
    recipe: Recipe, device: str | None = None, say: Say = print, start: Run | None = None
) -> str:
    """Everything up to the first move, in memory: what it would train, and how long it takes."""
    with joined(device) as world:
        prepared = prepare(recipe, say, start, world=world)
        training, settings = prepared.training, prepared.training.settings
        batch = first_batch(prepared)
        loss = backward(training, batch, 0)
        began = time.perf_counter()
        backward(training, batch, 0)
        seconds = (time.perf_counter() - began) * settings.steps
        before = f"loss {loss.item():.4f} before the first step"
        return f"{before}; {settings.steps} steps take about {duration(seconds)}"


def first_batch(prepared: Prepared) -> Batch:
    settings = prepared.training.settings
    found = prepared.texts.corpus.batch(settings.seed, np.arange(settings.batch))
    return found.to(prepared.training.device)


def progress_of(recipe: Recipe, world: World) -> Progress:
    settings = make(recipe.train)
    length = settings.length or recipe.graph.context
    return Progress(settings.steps, settings.batch * length, quiet=not world.first)
