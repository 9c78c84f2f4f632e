"""No option of training is dead: each alters what some tiny run does, and so what it leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch

from blocks.glu import GLU
from blocks.lm_head import LMHead
from builder import load_recipe
from builder.errors import BuilderError
from builder.index import load_index
from builder.laws.option_pages import Pages, model_entries
from builder.tokenizers import Bpe
from builder.training import checkpoints, feed
from builder.training.loop import train

INDEX = load_index()
ENTRIES = [entry for entry in INDEX if entry not in model_entries(INDEX)]
ELSEWHERE = {  # what no small run of its own shows, and the test that does
    "data.dataset": "test_sources.py::test_a_saved_dataset_is_read_by_its_split",
    "data.stdin": "test_sources.py::test_records_are_piped_in_with_a_key",
    "section.train.compile": "test_compiling.py::test_what_is_asked_for_decides",
    "section.train.nonfinite": "test_trouble.py::test_skip_goes_on_with_the_weights_as_they_were",
}
OPTIONS = {
    name: (e, p)
    for e in ENTRIES
    for p in e.parameters
    if not (name := f"{e.kind}.{e.word}.{p.name}").startswith(tuple(ELSEWHERE))
}
RUNS = 40  # changes tried of one option before it counts as dead
BESIDE = 4  # of them beside each change of another option
VOCAB = 300
PAGE = {
    "recipe": 1,
    "dims": {"dim": 8, "heads": 2, "ff": 8, "vocab": VOCAB, "context": 12},
    "model": [
        "token_embedding",
        {"residual": ["rmsnorm", "attention"]},
        {"repeat": 2, "block": [{"residual": ["rmsnorm", "glu"]}, {"dropout": 0.1}]},
        {"lm_head": {"bias": True}},
    ],
    "tokenizer": "bytes",
    "data": {"text": "records.jsonl"},
}
TRAIN = {"steps": 8, "batch": 3, "lr": 0.01, "log_every": 1, "eval_every": 3}
TRAIN |= {"checkpoint_every": 3, "sample_tokens": 4}
WRITTEN = {
    "text": {"path": "records.jsonl"},
    "mqar": {"pairs": 2},
    "icr": {"keys": 2},
    "selective_copy": {"marked": 2},
    "distance_recall": {"distance": 3},
    "lookup": {"pairs": 3},
}  # what an entry's other options need to be seen


@dataclass(frozen=True)
class Outcome:
    """What a run leaves, without its times, and how it worked: ``widest`` is how many logits it
    ever held at once, ``forwards`` how often a feed-forward ran, ``readers`` how many read ahead.
    """

    events: list
    kept: list
    samples: str
    tokenizer: str
    weights: dict
    widest: int
    forwards: int
    readers: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where every word that an option may be tried with is a file: a text, or a tokenizer."""
    home = tmp_path_factory.mktemp("runs")
    words = ("dog", "cat", "cow")
    texts = [" ".join(f"{w} {w}s {i * i}" for i in range(200)) for w in words]
    lines = [[f"{w} {w}s {i * i}" for w in words] for i in range(200)]
    records = [{"text": a, "word": b, "other": c} for a, b, c in lines]
    for kind in ("data", "tokenizer", "rest"):
        (home / kind).mkdir()
        (home / kind / "plain.txt").write_text(texts[0])
        (home / kind / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    for word, text, vocab in (("word", texts[1], 270), ("other", texts[2], 280)):
        (home / "data" / word).write_text(text)
        Bpe(vocab).fit([text]).save(home / "tokenizer" / word)
    return home


@pytest.fixture(scope="module")
def outcomes(folder):
    """What the run of a page leaves, each page trained once; None where it is refused."""
    known: dict[str, Outcome | None] = {}

    def outcome(page, home):
        text = json.dumps([page, home])
        if text not in known:
            known[text] = run_of(page, folder / home, len(known))
        return known[text]

    return outcome


def run_of(page, home, number):
    widest, forwards, readers = [0], [0], [0]
    forward, computed, loader = LMHead.forward, GLU.forward, feed.DataLoader

    def watched(self, x):
        widest.append(x.numel() // x.shape[-1] * self.training)
        return forward(self, x)

    def counted(self, x):
        forwards[0] += self.training
        return computed(self, x)

    def reading(*given, **named):
        readers.append(named["num_workers"])
        return loader(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(LMHead, "forward", watched)
        patch.setattr(GLU, "forward", counted)
        patch.setattr(feed, "DataLoader", reading)
        try:
            run = train(load_recipe(page), Path(f"runs/{number}"))
        except BuilderError:
            return None
        passing = ("tokens_per_s", "seconds", "gradient")  # times, and what rounding changes
        events = [{k: v for k, v in e.items() if k not in passing} for e in run.metrics()]
        samples = home / run.path / "samples.txt"
        return Outcome(
            events,
            [path.name for path in checkpoints.all_in(run.checkpoints)],
            samples.read_text() if samples.exists() else "",
            run.tokenizer.to_json(),
            checkpoints.read(run.latest(), "model"),
            max(widest),
            forwards[0],
            max(readers),
        )


def page_of(entry, options, settings):
    """A page that trains with these options of a word."""
    settings, written = {**TRAIN, **settings}, {**WRITTEN.get(entry.word, {}), **options}
    match entry.kind:
        case "probe":  # a task, whose tokens need no tokenizer
            page = {name: part for name, part in PAGE.items() if name != "tokenizer"}
            return page | {"train": settings, "data": {entry.word: written}}
        case "section":
            return PAGE | {"train": settings | options}
        case "data" | "tokenizer":
            return PAGE | {"train": settings, entry.kind: {entry.word: written}}
    return PAGE | {"train": settings | {entry.kind: {entry.word: written}}}


def values_of(entry, parameter):
    """Values of a type, legal or not; of a size those near the dim of its name."""
    if parameter.type.base == "map" and parameter.type.item.base == "float":
        return [{path: value} for path in ("glu", "lm_head") for value in (0.5, 0.003)]
    near = PAGE["dims"].get(parameter.name) if parameter.role == "size" else None
    own = [] if near is None else [near - 1, near - 20, near // 2, near + 1]
    return own + Pages(entry, INDEX, {}).values(parameter)


def contexts(entry, parameter):
    """Options beside this one: none, then one other of the word or of the section changed."""
    yield {}, {}
    for other in entry.parameters:
        if other is not parameter:
            yield from (({other.name: value}, {}) for value in values_of(entry, other)[:3])
    section = INDEX.filler("section", "train")
    for other in section.parameters if entry is not section else ():
        yield from (({}, {other.name: value}) for value in values_of(section, other)[:3])


def changes(entry, parameter, outcome):
    """What is altered by each legal change: the names of an outcome's parts."""
    home = entry.kind if entry.kind in ("data", "tokenizer") else "rest"
    for beside, settings in contexts(entry, parameter):
        first = outcome(page_of(entry, beside, settings), home)
        for value in values_of(entry, parameter)[: BESIDE if beside or settings else None]:
            page = page_of(entry, {**beside, parameter.name: value}, settings)
            other = outcome(page, home)
            if first is None or other is None:
                first = first or other
            else:
                yield altered(first, other)


def altered(one, other):
    """The parts of two outcomes that differ by more than rounding."""
    plain = ("kept", "samples", "tokenizer", "widest", "forwards", "readers")
    found = {name for name in plain if getattr(one, name) != getattr(other, name)}
    if not same_events(one.events, other.events):
        found.add("events")
    pairs = [(one.weights[name], other.weights.get(name)) for name in one.weights]
    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs):
        found.add("weights")
    return found


def same_events(ours, theirs):
    """Alike in what they tell and when, and in every number up to rounding."""
    if [list(e.items())[:2] for e in ours] != [list(e.items())[:2] for e in theirs]:
        return False
    pairs = ((e[key], f.get(key)) for e, f in zip(ours, theirs, strict=True) for key in e)
    return all(a == b or (isinstance(a, float) and a == approx(b)) for a, b in pairs)


def approx(number):
    return pytest.approx(number, rel=1e-5)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_shown_elsewhere_is(name):
    file, _, test = ELSEWHERE[name].partition("::")
    assert f"def {test}(" in (Path(__file__).parent / file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_training_alters_what_a_run_leaves(option, outcomes):
    entry, parameter = OPTIONS[option]
    tried = islice(changes(entry, parameter, outcomes), RUNS)
    assert any(tried), f"{option}: no legal change alters what a run leaves"


def test_two_runs_of_one_page_leave_the_same(folder):
    train_section = INDEX.filler("section", "train")
    page = page_of(train_section, {}, {})
    one, other = (run_of(page, folder / "rest", name) for name in ("one", "two"))
    assert altered(one, other) == set()
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
