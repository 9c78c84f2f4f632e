"""Training a recipe: tokenizer and corpus, then step after step, and what is written on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from builder.construct import make
from builder.devices import pick_device, use_physical_cores
from builder.errors import InputError
from builder.tokenizers import Tokenizer
from builder.training import checkpoints
from builder.training.corpus import Corpus, split, tokenised, windows
from builder.training.optimizers import groups, restore, state_tensors
from builder.training.progress import Progress, duration
from builder.training.runs import (
    ROOT,
    Run,
    append,
    create_run,
    load_weights,
    save_checkpoint,
    take_weights,
)
from builder.training.signals import Stop, stopping
from builder.training.step import Evaluation, Step, Training, backward, evaluate, take_step

if TYPE_CHECKING:
    from builder.graph import Filler
    from builder.recipe import Recipe

CACHE = ROOT / ".cache"
SAMPLE_TEMPERATURE = 0.8
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs beside its folder."""

    training: Training
    tokenizer: Tokenizer


def train(
    recipe: Recipe,
    path: Path | None = None,
    start: Run | None = None,
    device: str | None = None,
    command: Sequence[str] = (),
) -> Run:
    """Train a recipe in a new run folder, from the weights of ``start`` if it is given."""
    if path is not None and path.exists():
        raise InputError(
            "run-exists", f"{path} exists already", "give another name, or 'resume' it"
        )
    progress = progress_of(recipe)
    prepared = prepare(recipe, device, progress.say, start)
    run = create_run(recipe, prepared.tokenizer, command, path)
    progress.say(f"run: {run.path}")
    with run.locked():
        fit(prepared, run, 0, progress)
    return run


def resume(run: Run, device: str | None = None) -> Run:
    """Go on from the newest good checkpoint, as if nothing had happened."""
    progress = progress_of(run.recipe)
    with run.locked():
        latest = run.latest(progress.say)
        state = checkpoints.read_state(latest)
        recipe, tokenizer = run.recipe, run.tokenizer
        with run.at_home():
            prepared = prepare(recipe, device, progress.say, tokenizer=tokenizer)
        if state.get("source") not in (None, prepared.training.corpus.source):
            raise InputError(
                "data-changed",
                f"the text that {run.path} is trained on has changed",
                "bring it back",
            )
        recall(prepared.training, latest)
        run.rewind(state["step"])
        progress.say(f"resuming {run.path} after step {state['step']}")
        fit(prepared, run, state["step"], progress)
    return run


def recall(training: Training, checkpoint: Path) -> None:
    """Put model and optimizer where a checkpoint says they were."""
    load_weights(training.model, checkpoint)
    if (checkpoint / "training.safetensors").exists():  # an imported model has none
        restore(training.optimizer, training.model, checkpoints.read(checkpoint, "training"))


def fit(prepared: Prepared, run: Run, start: int, progress: Progress) -> None:
    """The steps from ``start`` on.  Stopped, with everything saved, if a signal asks for it."""
    training = prepared.training
    settings = training.settings
    with stopping() as stop:
        if start:
            look(prepared, run, start, progress)  # if it was stopped before it could
        for index in range(start, settings.steps):
            began = time.perf_counter()
            step = take_step(training, index)
            progress.timed(time.perf_counter() - began)
            progress.show(step)
            last = step.number == settings.steps
            if last or step.number % settings.log_every == 0:
                log_step(run, step, progress)
            if last or stop.asked or step.number % settings.checkpoint_every == 0:
                checkpoint(training, run, step.number)
            if stop.asked:
                raise stopped(stop, run, step.number)
            look(prepared, run, step.number, progress)


def look(prepared: Prepared, run: Run, step: int, progress: Progress) -> None:
    """Validate and sample if this is a step for it, once."""
    settings = prepared.training.settings
    if step != settings.steps and step % settings.eval_every:
        return
    if not any(e["event"] == "validation" and e["step"] == step for e in run.metrics()):
        log_evaluation(prepared, run, step, progress)


def stopped(stop: Stop, run: Run, step: int) -> Exception:
    return stop.error(
        f"stopped after step {step}, which is saved", f"python -m builder resume {run.path}"
    )


def log_step(run: Run, step: Step, progress: Progress) -> None:
    numbers = {"loss": step.loss, "norm": step.norm, "lr": step.lr}
    run.log({"event": "step", "step": step.number, **numbers, "tokens_per_s": round(progress.rate)})


def log_evaluation(prepared: Prepared, run: Run, step: int, progress: Progress) -> None:
    """Validate and sample; both are said, and kept."""
    found = validate(prepared.training)
    if found.bytes:
        progress.say(f"step {step}: validation {found.bits_per_byte:.4f} bits per byte")
        run.log(
            {
                "event": "validation",
                "step": step,
                "loss": found.loss,
                "bits_per_byte": found.bits_per_byte,
            }
        )
    if prepared.training.settings.sample_tokens:
        append(run.path / "samples.txt", f"--- step {step}\n{sample(prepared)}\n")


def validate(training: Training) -> Evaluation:
    corpus, settings = training.corpus, training.settings
    return evaluate(
        training.model,
        corpus.validation,
        corpus.validation_bytes,
        corpus.length,
        batch=math.ceil(settings.batch / settings.accumulate),
        dtype=settings.dtype,
        loss_chunk=settings.loss_chunk,
    )


def sample(prepared: Prepared) -> str:
    """What the model makes of the recipe's prompt."""
    settings, tokenizer = prepared.training.settings, prepared.tokenizer
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


def checkpoint(training: Training, run: Run, step: int) -> Path:
    state: dict[str, Any] = {"source": training.corpus.source, "recipe": run.recipe.hash}
    memory = state_tensors(training.optimizer, training.model)
    return save_checkpoint(run, training.model, step, memory, state, keep=training.settings.keep)


# Before the first step


def prepare(
    recipe: Recipe,
    device: str | None = None,
    say: Say = print,
    start: Run | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Tokenizer, corpus, model and optimizer, as the recipe says."""
    use_physical_cores()
    tokenizer, corpus = prepare_data(recipe, say, start, tokenizer)
    training = assemble(recipe, corpus, pick_device(device))
    check_sample(training, tokenizer)
    training.model.start_id = tokenizer.end
    count = sum(parameter.numel() for parameter in training.model.parameters())
    say(f"model: {count:,} parameters, on {training.device}")
    if start is not None:
        left = take_weights(training.model, start.latest(say))
        say(f"weights: from {start.path}" + "".join(f"\n  not taken: {line}" for line in left))
    return Prepared(training, tokenizer)


def prepare_data(
    recipe: Recipe, say: Say, start: Run | None, tokenizer: Tokenizer | None
) -> tuple[Tokenizer, Corpus]:
    """The tokenizer, trained if it must be, and the text as its tokens."""
    source = make(needed(recipe, "data"))
    settings = make(recipe.train)
    graph = recipe.graph
    length = settings.length or graph.context
    if length < graph.context:
        say(f"training on {length} tokens at a time, of a context of {graph.context}")
    if tokenizer is None:
        tokenizer = fit_tokenizer(recipe, source, start, say)
    if tokenizer.size > graph.vocab:
        message = f"the tokenizer has {tokenizer.size} tokens, and vocab={graph.vocab}"
        raise InputError("tokenizer-too-large", message, f"dims.vocab={tokenizer.size}")
    if tokenizer.size < graph.vocab:
        say(f"the tokenizer has {tokenizer.size} tokens, fewer than vocab={graph.vocab}")
    file = tokenised(source, tokenizer, CACHE)
    say(
        f"data: {len(file.tokens):,} tokens of {file.bytes:,} bytes in {len(file.ends):,} documents"
    )
    return tokenizer, split(file, tokenizer, length, settings.eval_tokens)


def fit_tokenizer(recipe: Recipe, source: Any, start: Run | None, say: Say) -> Tokenizer:
    """The recipe's tokenizer, fitted to the corpus; weights that are taken bring their own."""
    if start is not None and (start.path / "tokenizer.json").exists():
        say(f"tokenizer: from {start.path}, for its weights know no other")
        return start.tokenizer
    plan = make(needed(recipe, "tokenizer"))
    fitted: Tokenizer = plan.fit(piece for document in source.documents() for piece in document)
    return fitted


def needed(recipe: Recipe, section: str) -> Filler:
    filler: Filler | None = getattr(recipe, section)
    if filler is None:
        default = {"tokenizer": "bpe", "data": "python_docs"}[section]
        raise InputError(
            f"no-{section}", f"recipe {recipe.name!r} has no {section!r}", f"{section}: {default}"
        )
    return filler


def assemble(recipe: Recipe, corpus: Corpus, device: torch.device) -> Training:
    from builder.model import build

    settings = make(recipe.train)
    model = build(recipe, device=device).train()
    return Training(
        model, settings.optimizer.over(groups(model, recipe.graph)), settings, corpus, device
    )


def check_sample(training: Training, tokenizer: Tokenizer) -> None:
    """Whether the prompt of the samples can be read, before hours of training instead of after."""
    settings, context = training.settings, training.model.recipe.graph.context
    if (
        settings.sample_tokens
        and settings.sample
        and len(tokenizer.prompt(settings.sample)) >= context
    ):
        raise InputError("prompt-too-long", f"train.sample leaves no room in context={context}")


def dry_run(
    recipe: Recipe, device: str | None = None, say: Say = print, start: Run | None = None
) -> str:
    """Everything up to the first move, in memory: what it would train, and how long it takes."""
    prepared = prepare(recipe, device, say, start)
    training, settings = prepared.training, prepared.training.settings
    batch = first_batch(training)
    loss = backward(training.model, settings, batch, 0)
    began = time.perf_counter()
    backward(training.model, settings, batch, 0)
    seconds = (time.perf_counter() - began) * settings.steps
    before = f"loss {loss.item():.4f} before the first step"
    return f"{before}; {settings.steps} steps take about {duration(seconds)}"


def first_batch(training: Training) -> torch.Tensor:
    settings = training.settings
    return torch.from_numpy(windows(training.corpus, settings.seed, 0, settings.batch)).to(
        training.device
    )


def progress_of(recipe: Recipe) -> Progress:
    settings = make(recipe.train)
    length = settings.length or recipe.graph.context
    return Progress(settings.steps, settings.batch * length)
