"""Measuring a finished run."""

from __future__ import annotations

from pathlib import Path

from builder.construct import make
from builder.devices import pick_device, use_physical_cores
from builder.errors import InputError
from builder.graph import Filler
from builder.index import load_index
from builder.training.corpus import tokenised
from builder.training.data import Source, Text
from builder.training.runs import Run, say
from builder.training.step import Evaluation, evaluate
from builder.training.train import CACHE, prepare_data


def measure(run: Run, data: str | None = None, device: str | None = None) -> Evaluation:
    """The loss on the run's own validation text, or on all of ``data``."""
    use_physical_cores()
    settings = make(run.recipe.train)
    length = settings.length or run.recipe.graph.context
    tokenizer = run.tokenizer
    if data is None:
        with run.at_home():
            _, corpus = prepare_data(run.recipe, say, None, tokenizer)
        tokens, size = corpus.validation, corpus.validation_bytes
    else:
        tokens = tokenised(source_of(data), tokenizer, CACHE).tokens
        size = tokenizer.count_bytes(tokens[1:])
    if len(tokens) < 2:
        raise InputError(
            "corpus-too-small", f"{len(tokens)} tokens to evaluate on, and 2 are the fewest"
        )
    model = run.model(pick_device(device))
    batch, dtype, chunk = settings.batch, settings.dtype, settings.loss_chunk
    return evaluate(model, tokens, size, length, batch, dtype, chunk)


def source_of(data: str) -> Source:
    """A path, or the word of a source that needs no options."""
    if Path(data).exists() or data not in load_index().words("data"):
        return Text(data)
    source: Source = make(Filler(data, "data", ()))
    return source
