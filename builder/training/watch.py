"""What is looked at on the way: the loss on other texts, and samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from builder.training.exam import Exam
from builder.training.prepare import VALIDATION, Prepared
from builder.training.runs import replace_text, score
from builder.training.session import Session
from builder.training.step import Evaluation, averaged, evaluate

SAMPLE_TEMPERATURE = 0.8


def look(session: Session, step: int) -> None:
    """Validate and sample if this is a step for it, what is not done yet; less if asked to stop."""
    settings = session.training.settings
    if not step or (step != settings.steps and step % settings.eval_every):
        return
    done = session.world.told([e for e in session.run.metrics() if e["step"] == step])
    seen = {e.get("set", VALIDATION) for e in done if e["event"] == "validation"}
    with averaged(session.training):
        for name, exam in session.prepared.texts.validated.items():
            if name not in seen and not exam.empty and not interrupted(session):
                validate(session, step, name, exam)
        sampled = any(e["event"] == "sample" for e in done)
        if settings.sample_tokens and not sampled and not interrupted(session):
            session.log({"event": "sample", "step": step, "text": sample(session.prepared)})
            write_samples(session)


def interrupted(session: Session) -> bool:
    """Whether to leave what can be done later; several processes do all of it together."""
    return session.world.alone and session.stop.asked is not None


def validate(session: Session, step: int, name: str, exam: Exam) -> None:
    """Evaluate on one exam; what is found is said, and logged."""
    found = evaluation(session.prepared, exam, stop=lambda: interrupted(session))
    if found is None:
        return
    numbers = {"loss": found.loss}
    if found.accuracy is not None:
        numbers["accuracy"] = found.accuracy
    else:
        numbers["bits_per_byte"] = found.bits_per_byte
    value, unit = score(numbers)
    label = "" if name == VALIDATION else f" on {name}"
    session.progress.say(f"step {step}: validation{label} {value:.4f} {unit}")
    told = {} if name == VALIDATION else {"set": name}
    session.log({"event": "validation", "step": step, **told, **numbers})


def evaluation(prepared: Prepared, exam: Exam, stop: Callable[[], bool]) -> Evaluation | None:
    """What a run measures on an exam; None if it was stopped."""
    training, settings = prepared.training, prepared.training.settings
    return evaluate(
        training.model,
        exam,
        batch=math.ceil(settings.batch / settings.accumulate),
        dtype=settings.dtype,
        loss_chunk=settings.loss_chunk,
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
