"""Training a recipe: step after step, and what is written on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING

import torch

from builder.devices import give_back_memory
from builder.errors import InputError, NumbersError
from builder.training import checkpoints
from builder.training.corpus import Batch
from builder.training.feed import batches
from builder.training.loggers import Logger, named_loggers
from builder.training.prepare import Prepared, at_rest, prepare
from builder.training.progress import Progress, duration
from builder.training.runs import Run, create_run
from builder.training.session import Session, checkpoint, end_if_asked, recall
from builder.training.settings import settings_of
from builder.training.signals import stopping
from builder.training.step import Step, backward, samples_of, take_step
from builder.training.trouble import first_bad, ran_out, shown
from builder.training.watch import look, write_samples
from builder.training.world import ALONE, World, joined

if TYPE_CHECKING:
    from builder.recipe import Recipe
    from builder.training.prepare import Say

PATIENCE = 10  # bad steps in a row, or rollbacks between two checkpoints, until training stops


def train(
    recipe: Recipe,
    path: Path | None = None,
    start: Run | None = None,
    device: str | None = None,
    command: Sequence[str] = (),
    shard: bool = False,
    loggers: Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Train a recipe in a new run folder, from the weights of ``start`` if it is given."""
    if path is not None and path.exists():
        raise InputError(
            "run-exists", f"{path} exists already", "give another name, or 'resume' it"
        )
    with stopping() as stop, joined(device, shard) as world:
        progress = progress_of(recipe, world, quiet)
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


def resume(run: Run, device: str | None = None, shard: bool = False, quiet: bool = False) -> Run:
    """Go on from the last good checkpoint, or from the beginning, as if nothing had happened."""
    with stopping() as stop, joined(device, shard) as world, run.locked(world):
        recipe, tokenizer = run.recipe, run.tokenizer
        names = run.environment.get("loggers", ())
        progress = progress_of(recipe, world, quiet)
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


def fit(session: Session, start: int) -> None:
    """The steps from ``start`` on.  Stopped, with everything saved, if a signal asks for it;
    ResourceError if memory runs out.
    """
    try:
        take_steps(session, start)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        clear_frames(error.__traceback__)  # what the step held
        give_back_memory()
        from builder.training.memory import out_of_memory  # which counts, and takes long to import

        raise out_of_memory(session.run.recipe, session.world) from error
    finally:
        for logger in session.loggers:
            logger.close()


def take_steps(session: Session, start: int) -> None:
    """Step after step, each shown, logged, saved and looked at if it is time."""
    training, settings = session.training, session.training.settings
    look(session, start)  # if it was stopped before it could
    end_if_asked(session, start)
    corpus = session.prepared.texts.corpus
    for index, batch in batches(corpus, settings, training.world, start):
        began = time.perf_counter()
        step = take_step(training, index, batch)
        session.progress.timed(time.perf_counter() - began)
        if step.finite:
            note(session, step)
        else:
            act_on(session, step, batch)
        last = step.number == settings.steps
        if last or step.number % settings.checkpoint_every == 0:
            checkpoint(session, step.number)
            session.bad *= not step.finite
        look(session, step.number)
        end_if_asked(session, step.number)


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
    numbers = samples_of(settings, index, ALONE)
    found: list[int] = corpus.places(settings.seed, numbers).tolist()
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
    found = prepared.texts.corpus.batch(settings.seed, samples_of(settings, 0, ALONE))
    return found.to(prepared.training.device)


def progress_of(recipe: Recipe, world: World, quiet: bool = False) -> Progress:
    settings = settings_of(recipe)
    length = settings.length or recipe.graph.context
    return Progress(settings.steps, settings.batch * length, quiet=quiet or not world.first)
