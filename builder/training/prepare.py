"""Before the first step: tokenizer, corpus, model and optimizers, as the recipe says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch

from builder.construct import make
from builder.devices import settle
from builder.errors import Finding, InputError, RecipeError
from builder.tokenizers import Tokenizer, numbered
from builder.training.compiling import Compiler, compile_layers, worth_compiling
from builder.training.corpus import Corpus, count_bytes, split, tokenised
from builder.training.data import Source, digest
from builder.training.exam import Exam, Text
from builder.training.layers import Dropout, around_layers
from builder.training.optimizers import Learner, at_rates, by_path, learners
from builder.training.parallel import spread
from builder.training.runs import ROOT, Run, take_weights
from builder.training.samples import Answers, Samples, Task
from builder.training.settings import Train, settings_of
from builder.training.step import Training
from builder.training.world import ALONE, World

if TYPE_CHECKING:
    from builder.graph import Filler
    from builder.recipe import Recipe

CACHE = ROOT / ".cache"
VALIDATION = "validation"  # what the corpus's own held-out text is called
Say = Callable[[str], None]


@dataclass(frozen=True)
class Texts:
    """What a run reads: its tokenizer, what it trains on, and by name what it validates on."""

    tokenizer: Tokenizer
    corpus: Corpus | Samples
    validated: Mapping[str, Exam]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs beside its folder."""

    training: Training
    texts: Texts


def prepare(
    recipe: Recipe,
    say: Say = print,
    start: Run | None = None,
    tokenizer: Tokenizer | None = None,
    world: World = ALONE,
) -> Prepared:
    """Everything up to the first step; ``start`` is a run whose weights are taken."""
    settle()
    if not world.first:
        world.wait()  # the first process reads the texts; the others find what it made
    texts = prepare_texts(recipe, say, start, tokenizer)
    if world.first:
        world.wait()
    training = assemble(recipe, world)
    check_sample(training, texts.tokenizer)
    training.model.start_id = texts.tokenizer.end
    count = sum(parameter.numel() for parameter in training.model.parameters())
    across = "" if world.alone else f", {world.size} processes"
    say(f"model: {count:,} parameters, on {world.device}{across}")
    if worth_compiling(training.model, training.settings, world.shard):
        compile_layers(training.model, Compiler(say))
    if start is not None:
        left = take_weights(training.model, start.latest(say))
        begin_average(training)
        say(f"weights: from {start.path}" + "".join(f"\n  not taken: {line}" for line in left))
    return Prepared(training, texts)


# Texts


def prepare_texts(
    recipe: Recipe, say: Say, start: Run | None, tokenizer: Tokenizer | None
) -> Texts:
    """The tokenizer, trained if it must be, and every text as its tokens."""
    filler = needed(recipe, "data")
    settings, graph = settings_of(recipe), recipe.graph
    length = settings.length or graph.context
    if length < graph.context:
        say(f"training on {length} tokens at a time, of a context of {graph.context}")
    if filler.kind == "probe":
        return prepare_task(make(filler), settings, length, graph.vocab)
    source: Source = make(filler)
    known = digest(source)
    if tokenizer is None:
        tokenizer = first_tokenizer(recipe, source, known, start, say)
    if tokenizer.size > graph.vocab:
        message = f"the tokenizer has {tokenizer.size} tokens, and vocab={graph.vocab}"
        raise InputError("tokenizer-too-large", message, f"dims.vocab={tokenizer.size}")
    if tokenizer.size < graph.vocab:
        say(f"the tokenizer has {tokenizer.size} tokens, fewer than vocab={graph.vocab}")
    file = tokenised(source, tokenizer, CACHE, known)
    say(
        f"data: {len(file.tokens):,} tokens of {file.bytes:,} bytes in {file.documents:,} documents"
    )
    apart = settings.documents == "apart"
    train, held = split(file, length, settings.eval_tokens)
    own = Text(held, count_bytes(held, tokenizer), length, apart)
    sets = dict(eval_sets(settings, tokenizer, length))
    return Texts(tokenizer, Corpus(train, length, known, apart), {VALIDATION: own, **sets})


def eval_sets(settings: Train, tokenizer: Tokenizer, length: int) -> Iterator[tuple[str, Text]]:
    """The first tokens of each named text."""
    sources: Mapping[str, Any] = settings.eval_sets or {}
    for name, source in sources.items():
        tokens = tokenised(source, tokenizer, CACHE, digest(source)).tokens
        held = tokens.stretch(0, min(len(tokens), settings.eval_tokens))
        if len(held) < 2:
            message = f"eval_sets: {name!r} has {len(held)} tokens, and 2 are the fewest"
            raise InputError("corpus-too-small", message, "give it more text, or leave it out")
        size = count_bytes(held, tokenizer)
        yield name, Text(held, size, length, settings.documents == "apart")


def prepare_task(task: Task, settings: Train, length: int, vocab: int) -> Texts:
    """What a run reads that learns a task: as many samples are held out as a text has tokens."""
    if task.vocab > vocab:
        message = f"the task draws from {task.vocab} tokens, and vocab={vocab}"
        raise InputError("tokenizer-too-large", message, f"dims.vocab={task.vocab}")
    count = settings.eval_tokens // length
    tasks: dict[str, Any] = {VALIDATION: task, **(settings.eval_sets or {})}
    exams = {name: Answers(one, count, length) for name, one in tasks.items()}
    task.batch(settings.seed, np.zeros(1), length)  # or it does not fit
    return Texts(numbered(vocab), Samples(task, length, digest(task)), exams)


def first_tokenizer(
    recipe: Recipe, source: Source, known: str, start: Run | None, say: Say
) -> Tokenizer:
    """The recipe's tokenizer, fitted to the corpus; weights that are taken bring their own."""
    if start is not None and (start.path / "tokenizer.json").exists():
        say(f"tokenizer: from {start.path}, for its weights know no other")
        return start.tokenizer
    plan = make(needed(recipe, "tokenizer"))
    if not getattr(plan, "learns", False):
        fitted: Tokenizer = plan.fit(())
        return fitted
    key = json.dumps([type(plan).__name__, vars(plan), known, tokenizers.__version__])
    path = CACHE / "tokenizers" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        fit(plan, source, path)
    return Tokenizer.load(path)


def fit(plan: Any, source: Source, path: Path) -> None:
    """Learn a tokenizer from a text, and keep it for the next run on the same text."""
    fitted = plan.fit(piece for document in source.documents() for piece in document)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{path.name}-{id(fitted)}")
    fitted.save(beside)
    beside.replace(path)


def needed(recipe: Recipe, section: str) -> Filler:
    filler: Filler | None = getattr(recipe, section)
    if filler is None:
        default = {"tokenizer": "bpe", "data": "python_docs"}[section]
        raise InputError(
            f"no-{section}", f"recipe {recipe.name!r} has no {section!r}", f"{section}: {default}"
        )
    return filler


def at_rest(recipe: Recipe, world: World) -> Recipe:
    """The recipe, its text where it can be read again: what is piped in can be read once."""
    if recipe.data is None or not hasattr(source := make(recipe.data), "kept"):
        return recipe
    word, options = world.told(source.kept() if world.first else None)
    return recipe.set("data", {word: options})


# The model


def assemble(recipe: Recipe, world: World) -> Training:
    """Model, optimizers and average in a world; the weights are the recipe's first."""
    settings = settings_of(recipe)
    dropout = Dropout(settings.seed, world.device)
    model, loss = spread(
        recipe, world, settings.dtype, lambda m: around_layers(m, dropout, settings.recompute)
    )
    found = at_own_rates(recipe, settings, learners(model, recipe.graph))
    try:
        optimizers = settings.optimizer.over(found)  # type: ignore[attr-defined]
    except KeyError as error:
        raise idle_path(recipe, error.args[0], found) from None
    names = [name for name, _ in model.named_parameters()] if settings.ema else []
    average = {name: torch.empty_like(model.get_parameter(name)) for name in names}
    training = Training(model, loss, optimizers, settings, dropout, world, average)
    begin_average(training)
    return training


@torch.no_grad()
def begin_average(training: Training) -> None:
    """The average of the weights so far is what they begin as."""
    for name, mean in training.average.items():
        mean.copy_(training.model.get_parameter(name))


def at_own_rates(recipe: Recipe, settings: Train, found: list[Learner]) -> list[Learner]:
    try:
        rates = by_path(settings.rates, [one.name for one in found])
    except KeyError as error:
        raise idle_path(recipe, error.args[0], found) from None
    return at_rates(found, {name: rate / settings.lr for name, rate in rates.items()})


def idle_path(recipe: Recipe, path: str, found: list[Learner]) -> RecipeError:
    """A path of parameter names that decides nothing, at its place."""
    from builder.graph import Filler, Named
    from builder.index import nearest

    optimizer = recipe.train["optimizer"]
    assert isinstance(optimizer, Filler)
    maps = [value for _, value in (*recipe.train.options, *optimizer.options)]
    marks = {
        name: mark
        for value in maps
        if isinstance(value, Named)
        for (name, _), mark in zip(value, value.marks, strict=True)
    }
    near = nearest(path, [one.name for one in found])
    help = f"did you mean {near!r}?" if near else "'explain' shows the names"
    message = f"{path!r} names no parameter, or only such as later lines name"
    return RecipeError([Finding("idle-path", message, marks[path], help)])


def check_sample(training: Training, tokenizer: Tokenizer) -> None:
    """Whether the prompt of the samples can be read, before hours of training instead of after."""
    settings, context = training.settings, training.model.recipe.graph.context
    if (
        settings.sample_tokens
        and settings.sample
        and len(tokenizer.prompt(settings.sample)) >= context
    ):
        raise InputError("prompt-too-long", f"train.sample leaves no room in context={context}")
