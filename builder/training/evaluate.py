"""Measuring a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builder.construct import make
from builder.devices import pick_device, settle
from builder.errors import InputError
from builder.graph import Filler
from builder.index import load_index
from builder.model import Model
from builder.training.corpus import count_bytes, tokenised
from builder.training.data import Source, Text, digest
from builder.training.exam import Exam, far
from builder.training.exam import Text as HeldOut
from builder.training.prepare import CACHE, Say, prepare_texts
from builder.training.runs import Run, say
from builder.training.samples import Answers
from builder.training.settings import Train, settings_of
from builder.training.step import Evaluation, evaluate


def measure(
    run: Run,
    data: str | None = None,
    device: str | None = None,
    lengths: Sequence[int] = (),
    past_context: bool = False,
) -> dict[str, Evaluation]:
    """The loss on the run's own validation text and on its ``eval_sets``, or on all of ``data``.

    At several ``lengths`` it is that of the same tokens each time, in the last quarter of a window;
    of a task, that of samples so long.  InputError if a length is past the model's table, or past
    its context and ``past_context`` is not said.
    """
    settle()
    settings = settings_of(run.recipe)
    exams = held_out(run) if data is None else {data: whole(run, data)}
    for name, exam in exams.items():
        if isinstance(exam, HeldOut) and len(exam.tokens) < 2:
            message = f"{name}: {len(exam.tokens)} tokens to evaluate on, and 2 are the fewest"
            raise InputError("corpus-too-small", message)
        if isinstance(exam, Answers) and exam.empty:
            raise InputError("corpus-too-small", f"{name}: no sample to evaluate on")
    model = run.model(pick_device(device))
    if lengths:
        check_lengths(lengths, run.recipe.graph.context, model.limit, past_context)
        exams = dict(at_lengths(exams, lengths))
    return examine(model, settings, exams)


def examine(model: Model, settings: Train, exams: Mapping[str, Exam]) -> dict[str, Evaluation]:
    """What a trained model comes to on each exam."""
    given = settings.batch, settings.dtype, settings.loss_chunk
    found = {name: evaluate(model, exam, *given) for name, exam in exams.items()}
    return {name: evaluation for name, evaluation in found.items() if evaluation is not None}


def held_out(run: Run, say: Say = say) -> Mapping[str, Exam]:
    """What a run was validated on, its own text first."""
    with run.at_home():
        return prepare_texts(run.recipe, say, None, run.tokenizer).validated


def whole(run: Run, data: str) -> HeldOut:
    """All of a text, in the windows that the run was trained on."""
    if run.recipe.data is not None and run.recipe.data.kind == "probe":
        message = f"{run.path} learnt a task, and knows no text"
        raise InputError("mixed-data", message, "'eval RUN' alone measures it on its task")
    settings = settings_of(run.recipe)
    source = source_of(data)
    tokens = tokenised(source, run.tokenizer, CACHE, digest(source)).tokens
    length = settings.length or run.recipe.graph.context
    return HeldOut(
        tokens, count_bytes(tokens, run.tokenizer), length, settings.documents == "apart"
    )


def check_lengths(lengths: Sequence[int], context: int, limit: int | None, past: bool) -> None:
    """InputError for the first length that the model cannot read, or is not to."""
    for length in lengths:
        if limit is not None and length > limit:
            message = f"length={length}, and the model reads {limit} positions at the most"
            raise InputError("length-over-limit", message, f"--lengths ...,{limit}")
        if length > context and not past:
            message = f"length={length} is more than context={context}, which it was made for"
            raise InputError("past-context", message, "--past-context")


def at_lengths(exams: Mapping[str, Exam], lengths: Sequence[int]) -> Iterator[tuple[str, Exam]]:
    """Each exam at each length, by its name and the length."""
    for name, exam in exams.items():
        if isinstance(exam, Answers):
            for length in lengths:
                yield f"{name}@{length}", replace(exam, length=length)
        elif isinstance(exam, HeldOut):
            found = far(exam.tokens, lengths, exam.apart)
            yield from ((f"{name}@{one.length}", one) for one in found)


def source_of(data: str) -> Source:
    """A path, or the word of a source that needs no options."""
    index = load_index()
    if Path(data).exists() or data not in index.words("data"):
        return Text(data)
    if index.filler("data", data).kind == "probe":
        message = f"{data!r} is a task, and the run knows text"
        raise InputError("mixed-data", message, "a file, a folder, or python_docs")
    source: Source = make(Filler(data, "data", ()))
    return source
