"""Measuring a finished run."""

from __future__ import annotations

from pathlib import Path

from builder.construct import make
from builder.devices import pick_device, use_physical_cores
from builder.errors import InputError
from builder.graph import Filler
from builder.index import load_index
from builder.training.corpus import count_bytes, tokenised
from builder.training.data import Source, Text, digest
from builder.training.prepare import CACHE, prepare_texts
from builder.training.runs import Run, say
from builder.training.step import Evaluation, evaluate


def measure(run: Run, data: str | None = None, device: str | None = None) -> dict[str, Evaluation]:
    """The loss on the run's own validation text and on its ``eval_sets``, or on all of ``data``."""
    use_physical_cores()
    settings = make(run.recipe.train)
    length = settings.length or run.recipe.graph.context
    tokenizer = run.tokenizer
    if data is None:
        with run.at_home():
            sets = prepare_texts(run.recipe, say, None, tokenizer).validated
    else:
        source = source_of(data)
        tokens = tokenised(source, tokenizer, CACHE, digest(source)).tokens
        sets = {data: (tokens, count_bytes(tokens, tokenizer))}
    for name, (tokens, _) in sets.items():
        if len(tokens) < 2:
            message = f"{name}: {len(tokens)} tokens to evaluate on, and 2 are the fewest"
            raise InputError("corpus-too-small", message)
    model = run.model(pick_device(device))
    batch, dtype, chunk = settings.batch, settings.dtype, settings.loss_chunk
    apart = settings.documents == "apart"
    found = {
        name: evaluate(model, tokens, size, length, batch, dtype, chunk, apart)
        for name, (tokens, size) in sets.items()
    }
    return {name: evaluation for name, evaluation in found.items() if evaluation is not None}


def source_of(data: str) -> Source:
    """A path, or the word of a source that needs no options."""
    if Path(data).exists() or data not in load_index().words("data"):
        return Text(data)
    source: Source = make(Filler(data, "data", ()))
    return source
