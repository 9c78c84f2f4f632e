"""A probe asks what it says it asks: each is solved by a few lines that read a row and know no
more, and guessing is right as often as it says.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from builder import build, load_recipe
from builder.__main__ import main
from builder.construct import registered
from builder.errors import InputError, RecipeError
from builder.index import load_index
from builder.loss import IGNORED
from builder.probes.probe import Dice
from builder.training.evaluate import measure
from builder.training.exam import Text, far
from builder.training.loop import resume, train
from builder.training.runs import open_run
from builder.training.samples import Answers
from builder.training.step import evaluate
from tests.test_data import corpus
from tests.tiny_runs import PAGE, TRAIN, assert_same, recipe_of

WORDS = [entry.word for entry in load_index() if entry.kind == "probe"]
SETTINGS = {  # beside the vocabulary
    "mqar": {"pairs": 3},
    "icr": {"keys": 4},
    "selective_copy": {"marked": 4},
    "distance_recall": {"distance": 6},
    "memorize": {"facts": 7},
    "lookup": {"pairs": 5, "hops": 2},
}
VOCAB, LENGTH = 23, 32


def probe_of(word, **options):
    return registered("data", word)(VOCAB, **{**SETTINGS.get(word, {}), **options})


def page_of(word, **train):
    page = {k: v for k, v in PAGE.items() if k != "tokenizer"}
    dims = {**PAGE["dims"], "vocab": VOCAB, "context": LENGTH}
    settings = {**TRAIN, "sample_tokens": 0, "eval_tokens": 320, **train}
    return {**page, "dims": dims, "data": {word: SETTINGS.get(word, {})}, "train": settings}


# What each asks, said a second time: the answer at place t of a row, from what stands before it.


def solve_mqar(row, t, probe):
    first = row.index(row[t - 1])
    return row[first + 1]


def solve_induction(row, t, probe):
    last = max(i for i in range(t - 1) if row[i] == row[t - 1])
    return row[last + 1]


def solve_selective_copy(row, t, probe):
    sign = row.index(1)
    return [token for token in row[:sign] if token][t - sign - 1]


def solve_distance_recall(row, t, probe):
    return row[t - 1 - probe.distance]


def solve_copy(row, t, probe):
    return row[t - row.index(0) - 1]


def solve_memorize(row, t, probe):
    return known_facts(probe)[row[t - 1]]


def solve_lookup(row, t, probe):
    leads = dict(zip(row[0 : 2 * probe.pairs : 2], row[1 : 2 * probe.pairs : 2], strict=True))
    name = row[t - 1]
    for _ in range(probe.hops):
        name = leads[name]
    return name


SOLVERS = {
    "mqar": solve_mqar,
    "icr": solve_mqar,
    "induction": solve_induction,
    "selective_copy": solve_selective_copy,
    "distance_recall": solve_distance_recall,
    "copy": solve_copy,
    "memorize": solve_memorize,
    "lookup": solve_lookup,
}


@cache
def known_facts(probe):
    """Every fact, from many other rows."""
    found = {}
    for row, answers in rows_of(probe, 400, seed=9):
        found |= {row[t - 1]: row[t] for t in answers}
    return found


def rows_of(probe, count, length=LENGTH, seed=0):
    """Rows as lists, each with the places of its answers."""
    batch = probe.batch(seed, np.arange(count), length)
    for ids, labels in zip(batch.ids, batch.labels, strict=True):
        answers = [t + 1 for t in range(length) if labels[t] != IGNORED]
        row = [*ids.tolist(), labels[-1].item()]
        assert all(row[t] == labels[t - 1] for t in answers)
        yield row, answers


def test_every_probe_has_a_solver():
    assert sorted(SOLVERS) == WORDS


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("length", [LENGTH, 33, 47])
def test_one_who_knows_the_task_is_right_as_often_as_its_ceiling(word, length):
    probe = probe_of(word)
    found = [
        SOLVERS[word](row[:t], t, probe) == row[t]
        for row, answers in rows_of(probe, 50, length)
        for t in answers
    ]
    assert len(found) >= 20 and np.mean(found) == probe.ceiling == 1.0


@pytest.mark.parametrize("word", WORDS)
def test_guessing_is_right_as_often_as_its_chance(word):
    """One guess for all rows is right no more often, nor one token drawn from all that can be."""
    probe, dice = probe_of(word), np.random.default_rng(0)
    right = total = 0
    for row, answers in rows_of(probe, 3000):
        for t in answers[:1]:  # answers of one row depend on each other
            right += row[t] == guess(word, row, probe, dice)
            total += 1
    assert stats.binomtest(right, total, probe.chance).pvalue > 1e-4


def guess(word, row, probe, dice):
    """What chance knows: the values that stand there for recall, else what an answer may be."""
    match word:
        case "mqar":
            return dice.choice(row[1 : 2 * probe.pairs : 2])
        case "lookup":
            return dice.choice(row[1 : 2 * probe.pairs : 2])
        case "icr":
            return dice.integers(probe.keys, VOCAB)
        case "memorize":
            return dice.integers(probe.facts, VOCAB)
        case "induction":
            return dice.integers(VOCAB)
        case "copy":
            return dice.integers(1, VOCAB)
    return dice.integers(2, VOCAB)


@pytest.mark.parametrize("word", WORDS)
def test_a_row_is_the_same_in_any_company(word):
    probe = probe_of(word)
    whole = probe.batch(5, np.arange(40), LENGTH)
    some = np.array([33, 2, 17])
    part = probe.batch(5, some, LENGTH)
    assert torch.equal(part.ids, whole.ids[some]) and torch.equal(part.labels, whole.labels[some])
    assert not torch.equal(probe.batch(6, np.arange(40), LENGTH).ids, whole.ids)
    assert len({row.numpy().tobytes() for row in whole.ids}) > 35  # one is not like another
    assert whole.ids.min() >= 0 and whole.ids.max() < VOCAB


@pytest.mark.parametrize("word", WORDS)
def test_the_shortest_row_that_is_taken_holds_a_question(word):
    probe = probe_of(word)
    assert any(answers for _, answers in rows_of(probe, 20, probe.least - 1))
    with pytest.raises(InputError) as caught:
        probe.batch(0, np.arange(2), probe.least - 2)
    assert caught.value.code == "probe-too-long"


@given(st.integers(0, 2**63), st.integers(2, 40), st.integers(1, 9))
def test_dice_are_even(seed, limit, columns):
    dice = Dice(seed, np.arange(400))
    drawn, orders = dice.below(limit, columns), dice.distinct(limit, limit)
    assert drawn.min() >= 0 and drawn.max() < limit
    assert np.array_equal(np.sort(orders, 1), np.tile(np.arange(limit), (400, 1)))
    for numbers in (drawn[:, 0], orders[:, 0]):
        assert stats.chisquare(np.bincount(numbers, minlength=limit)).pvalue > 1e-9


def test_draws_of_one_row_do_not_depend_on_each_other():
    dice = Dice(0, np.arange(5000))
    first, second = dice.below(4, 2).T, dice.below(4, 2).T
    for a, b in ((first[0], first[1]), (first[0], second[0]), (first[0][:-1], first[0][1:])):
        table = np.histogram2d(a, b, bins=4)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-6


# In recipes


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", WORDS)
def test_every_probe_is_trained_on_and_measured(word, home, capsys):
    run = train(load_recipe(page_of(word)), Path("runs/a"))
    last = run.last("validation")
    assert 0 <= last["accuracy"] <= 1 and np.isfinite(last["loss"])
    found = measure(run)["validation"]
    assert found.accuracy == pytest.approx(last["accuracy"], abs=1e-12)
    assert main(["eval", "runs/a", "--lengths", "24,32"]) == 0
    assert "validation@24\nloss " in capsys.readouterr().out
    assert main(["report", "runs/a"]) == main(["compare", "runs/a", "runs/a"]) == 0
    assert main(["generate", "runs/a", "1 2 3", "--max-new-tokens", "3"]) == 0


def test_a_run_on_a_probe_resumes_to_the_bit(home):
    recipe = load_recipe(page_of("mqar", steps=9, sample="1 2", sample_tokens=4))
    whole = train(recipe, Path("runs/whole"))
    part = train(recipe, Path("runs/part"))
    shutil.rmtree(part.checkpoints / "step_000009")
    assert_same(resume(open_run(Path("runs/part"))), whole)


def test_validation_samples_are_none_that_a_run_trains_on(home):
    probe = probe_of("lookup")
    held = torch.cat([part().ids for part in Answers(probe, 300, LENGTH).parts(64)])
    seen = probe.batch(0, np.arange(3000), LENGTH).ids
    rows = {row.numpy().tobytes() for row in seen}
    assert len(held) == 300 and not any(row.numpy().tobytes() in rows for row in held)


def test_an_accuracy_is_the_share_of_right_answers():
    model = build(load_recipe(page_of("icr")), dtype=torch.float64).eval()
    exam = Answers(probe_of("icr"), 40, LENGTH)
    found = evaluate(model, exam, batch=7)
    batch = exam.parts(40)[0]()
    guesses = model(batch.ids).argmax(-1)
    asked = batch.labels != IGNORED
    assert found.accuracy == (guesses[asked] == batch.labels[asked]).double().mean().item()
    assert found.loss == pytest.approx(model.loss(batch.ids, batch.labels).item(), rel=1e-6)


def test_a_task_beside_a_tokenizer_or_a_text_is_refused():
    page = page_of("mqar")
    with pytest.raises(RecipeError) as caught:
        load_recipe({**page, "tokenizer": "bpe"})
    assert caught.value.code == "idle-tokenizer"
    assert load_recipe({**page, "tokenizer": "none"}).tokenizer is None
    for data, other in (("mqar", {"text": "a.txt"}), ("python_docs", {"copy": {}})):
        settings = {**page["train"], "eval_sets": {"other": other}}
        with pytest.raises(RecipeError) as caught:
            load_recipe({**page, "data": data, "train": settings})
        assert "mixed-data" in {finding.code for finding in caught.value.findings}


def test_other_tasks_are_validated_on_beside_the_own_one(home):
    sets = {"far": {"distance_recall": {"distance": 20}}}
    run = train(load_recipe(page_of("distance_recall", eval_sets=sets)), Path("runs/a"))
    assert {e.get("set") for e in run.metrics() if e["event"] == "validation"} == {None, "far"}


def test_a_probe_that_does_not_fit_is_told_at_its_place(capsys, home):
    with pytest.raises(RecipeError) as caught:
        load_recipe(page_of("mqar") | {"data": {"mqar": {"pairs": 9}}})
    (finding,) = caught.value.findings
    assert finding.code == "check-failed" and "context=32" in finding.message
    recipe = load_recipe(page_of("mqar", length=8))
    with pytest.raises(InputError) as short:
        train(recipe, Path("runs/a"))
    assert short.value.code == "probe-too-long" and not Path("runs/a").exists()


def test_a_word_that_is_no_token_is_refused(home, capsys):
    train(load_recipe(page_of("icr")), Path("runs/a"))
    assert main(["generate", "runs/a", "1 hello"]) == 2
    assert "error[unseen-token]: 'hello'" in capsys.readouterr().err


# Lengths


@pytest.mark.parametrize("lengths", [(8, 16, 32), (7, 19), (64, 5, 64), (1, 2, 3)])
@pytest.mark.parametrize("tokens", [65, 100, 128])
def test_every_length_predicts_the_same_tokens_after_enough_of_them(lengths, tokens):
    text = corpus(tokens, 8).train  # of which token n is n
    predicted = []
    for exam in far(text, lengths):
        labels = []
        for part in exam.parts(3):
            batch = part()
            assert batch.ids.shape[1] == exam.length
            for row, asked in zip(batch.ids, batch.labels, strict=True):
                places = (asked != IGNORED).nonzero()[:, 0]
                assert torch.equal(asked[places], row[places] + 1)
                assert places.min() + 1 > exam.length * 3 / 4 - 1
                labels += asked[places].tolist()
        predicted.append(labels)
    assert all(found == predicted[0] for found in predicted)
    longest = max(lengths)
    assert predicted[0] == list(range(longest + 1 - max(1, longest // 4), tokens))


def test_the_far_loss_is_that_of_single_windows():
    model = build(recipe_of(), dtype=torch.float64).eval()
    text = corpus(90, 8).train
    (exam,) = far(text, [16])
    nats = []
    for t in range(13, 90):  # each by itself, in the window that asks for it
        end = min(13 + 4 * ((t - 13) // 4) + 4, 90)
        ids = torch.arange(end - 17, end - 1)[None]
        nats.append(-model(ids).log_softmax(-1)[0, t - end, t].item())
    assert evaluate(model, exam).loss == pytest.approx(np.mean(nats), rel=1e-9)


def test_lengths_past_a_table_or_the_context_are_refused(home, capsys):
    Path("text.txt").write_text("to be or not to be " * 600)
    train(recipe_of(), Path("runs/rope"))
    words = ["token_embedding", "learned_positions", {"repeat": 1, "block": "decoder"}, "lm_head"]
    train(recipe_of({"model": words}), Path("runs/learned"))
    assert main(["eval", "runs/rope", "--lengths", "24,48"]) == 2
    assert "error[past-context]: length=48" in capsys.readouterr().err
    assert main(["eval", "runs/rope", "--lengths", "24,48", "--past-context"]) == 0
    assert "validation@48" in capsys.readouterr().out
    assert main(["eval", "runs/learned", "--lengths", "24,48", "--past-context"]) == 2
    assert "error[length-over-limit]: length=48" in capsys.readouterr().err
    assert main(["eval", "runs/rope", "--lengths", "12,x"]) == 2
    assert main(["eval", "runs/rope", "--lengths", "9000", "--past-context"]) == 2
    assert "error[corpus-too-small]" in capsys.readouterr().err


def test_a_task_knows_no_text_and_a_text_no_task(home, capsys):
    Path("text.txt").write_text("to be or not to be " * 600)
    train(load_recipe(page_of("copy")), Path("runs/task"))
    train(recipe_of(), Path("runs/text"))
    assert main(["eval", "runs/task", "--data", "text.txt"]) == 2
    assert "error[mixed-data]" in capsys.readouterr().err
    assert main(["eval", "runs/text", "--data", "mqar"]) == 2
    assert "error[mixed-data]" in capsys.readouterr().err


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_run_that_holds_nothing_out_is_trained_and_not_measured(home, capsys, tokens):
    Path("text.txt").write_text("to be or not to be " * 600)
    for name, recipe in {
        "text": recipe_of(eval_tokens=tokens),
        "task": load_recipe(page_of("copy", eval_tokens=tokens)),
    }.items():
        run = train(recipe, Path(f"runs/{name}"))
        assert run.last("step")["step"] == 9 and run.last("validation") is None
        assert main(["eval", f"runs/{name}"]) == 2
        assert "error[corpus-too-small]: validation" in capsys.readouterr().err


def test_windows_of_a_text_predict_each_token_once():
    exam = Text(corpus(50, 8).train, 0, 8)
    labels = [t for part in exam.parts(3) for t in part().labels.flatten().tolist()]
    assert labels == list(range(1, 50))


# Of one's own

PLUGIN = '''
import numpy as np

from blocks.registry import register
from builder.probes.probe import Dice, Probe


@register("parity", kind="probe")
class Parity(Probe):
    """Zeros and ones, and at the end whether the ones are even."""

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        self.chance, self.least = 0.5, 2

    def rows(self, dice: Dice, length: int):
        tokens = dice.below(2, length + 1)
        tokens[:, -1] = tokens[:, :-1].sum(1) % 2
        asked = np.zeros(tokens.shape, bool)
        asked[:, -1] = True
        return tokens, asked
'''


def test_a_plug_in_s_task_is_trained_on_like_ours(home):
    Path("parity.py").write_text(PLUGIN)
    page = page_of("mqar", steps=3) | {"data": "parity"}
    run = train(load_recipe(page, plugins=[Path("parity.py").resolve()]), Path("runs/a"))
    assert 0.2 < run.last("validation")["accuracy"] < 0.8
