"""Claims are read with their places, tried, and judged by rules that stand before the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.__main__ import main
from builder.ablation import judge as judging
from builder.ablation.claims import Claim, read_claims
from builder.ablation.judge import judge, outcome
from builder.ablation.metrics import Metric
from builder.ablation.verdicts import verdicts
from builder.errors import InputError, RecipeError
from builder.recipe import load_recipe
from tests.ablations import Imagined, came_to, settled

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "recipes/claims").glob("*.yaml"))
LOSS = Metric("loss", "nats", lower=True, margin=0.01)
RIGHT = Metric("accuracy", "", lower=False, margin=0.02)
BIG_GAIN, SMALL_GAIN, BIG_LOSS = [-0.50, -0.51, -0.49], [-0.02, -0.021, -0.019], [0.5, 0.51, 0.49]
NOTHING, WILD = [0.0004, -0.0003, 0.0001], [0.5, -0.6, 0.2]


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return settled(tmp_path)


def claims_of(text):
    Path("claims.yaml").write_text("recipe: tiny.yaml\n" + text)
    return read_claims(Path("claims.yaml"))


# Reading

FAULTS = {
    "sedes: 3\nclaims: []": ("unknown-word", "sedes"),
    "seeds: 0\nclaims: []": ("bad-value", "0"),
    "seeds: true\nclaims: []": ("bad-value", "true"),
    "match: size\nclaims: []": ("bad-value", "size"),
    "claims: 3": ("bad-value", "3"),
    "claims: [3]": ("not-a-map", "3"),
    "claims: [{says: a}]": ("missing-option", "{says: a}"),
    "claims: [{expect: lower}]": ("missing-option", "{expect: lower}"),
    "claims: [{says: a, expect: lowr}]": ("bad-value", "lowr"),
    "claims: [{says: a, expect: 3 * x}]": ("bad-value", "3 * x"),
    "claims: [{says: a, expect: [1]}]": ("bad-value", "[1]"),
    "claims: [{says: 3, expect: lower}]": ("bad-value", "3"),
    "claims: [{says: a, expect: lower, variant: 3}]": ("bad-value", "3"),
    "claims: [{says: a, expect: lower, against: x}]": ("bad-value", "x"),
    "claims: [{says: a, expect: lower, allowed: [better, good]}]": ("bad-value", "[better, good]"),
    "claims: [{says: a, expect: lower, rate: fast}]": ("bad-value", "fast"),
    "claims: [{says: a, expect: lower, smallest: x}]": ("bad-value", "x"),
    "claims: [{says: a, expect: equal}]": ("bad-claim", None),
    "claims: [{says: a, expect: 3}]": ("bad-claim", None),
    "claims: [{says: a, expect: lower, metric: reach}]": ("bad-claim", None),
    "claims: [{says: a, expect: all}]": ("bad-claim", None),
    "claims: [{says: a, expect: lower, rate: best}]": ("bad-claim", None),
    "claims: [{says: a, expect: lower, seeds: 1}]": ("bad-claim", None),
    "claims: [{says: a, expect: lower, metric: los}]": ("bad-value", "los"),
    "claims: [{says: a, expect: 3, metric: reach, against: {dims.ff: 3}}]": ("bad-claim", None),
    "claims: [{says: a, expect: all, metric: solved, smallest: 1}]": ("bad-claim", None),
    "claims: [{says: a, expect: lower, lr_sweep: 1}]": ("bad-claim", None),
    "lr_sweep: 3\nclaims: [{says: a, expect: lower, rate: change, against: 3}]": (
        "bad-claim",
        None,
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_told_at_its_place(path, text):
    code, place = FAULTS[text]
    with pytest.raises(RecipeError) as caught:
        claims_of(text)
    found = [(one.code, one.mark.text) for one in caught.value.findings]
    assert code in {one for one, _ in found}
    if place is not None:
        assert (code, place) in found


def test_a_page_without_a_recipe_or_claims_is_refused(path):
    Path("claims.yaml").write_text("source: nowhere\n")
    with pytest.raises(RecipeError) as caught:
        read_claims(Path("claims.yaml"))
    assert caught.value.code == "missing-option"


def test_what_a_page_says_holds_for_all_its_claims_and_a_claim_may_say_otherwise(path):
    text = """
set: {dims.ff: 48}
seeds: 4
source: here
claims:
  - {says: a, expect: lower, set: {train.lr: 0.5}}
  - {says: b, expect: higher, seeds: 7, source: there, smallest: 1}
"""
    first, second = claims_of(text)
    assert [one.path for one in first.both] == ["dims.ff", "train.lr"]
    assert [one.path for one in second.both] == ["dims.ff"]
    assert (first.seeds, first.source) == (4, "here")
    assert (second.seeds, second.source) == (7, "there")
    assert first.recipe == Path("tiny.yaml")


def test_a_setting_that_finds_nothing_is_told_at_its_place_on_the_page(path):
    (claim,) = claims_of("claims:\n  - {says: a, expect: lower, variant: {dims.fff.x: 3}}\n")
    with pytest.raises(RecipeError) as caught:
        judge(claim, tell=lambda text: None)
    (finding,) = caught.value.findings
    assert finding.code == "path-not-found" and str(finding.mark).startswith("claims.yaml:3:")


# Judging


def word_of(differences, metric=LOSS, **claim):
    page = load_recipe(ROOT / "recipes/llama.yaml").page
    made = Claim(says="a", mark=page.mark, recipe=Path(), **claim)
    if made.expect == "equal":
        metric = Metric(metric.name, metric.unit, metric.lower, made.smallest)
    return outcome(made, verdicts({"": differences}, metric)[""], metric)


@pytest.mark.parametrize(
    ("differences", "claim", "word"),
    [
        (BIG_GAIN, {"expect": "lower"}, "reproduced"),
        (BIG_GAIN, {"expect": "lower", "smallest": 0.1}, "reproduced"),
        (SMALL_GAIN, {"expect": "lower", "smallest": 0.1}, "contradicted"),
        (BIG_LOSS, {"expect": "lower"}, "contradicted"),
        (BIG_LOSS, {"expect": "higher"}, "reproduced"),
        (NOTHING, {"expect": "lower"}, "contradicted"),
        (NOTHING, {"expect": "lower", "allowed": ("better", "equivalent")}, "reproduced"),
        (WILD, {"expect": "lower"}, "inconclusive"),
        (WILD, {"expect": "lower", "allowed": ("inconclusive",)}, "reproduced"),
        (BIG_GAIN, {"expect": "lower", "allowed": ("inconclusive",)}, "contradicted"),
        (NOTHING, {"expect": "equal", "smallest": 0.01}, "reproduced"),
        (SMALL_GAIN, {"expect": "equal", "smallest": 0.01}, "contradicted"),
        (SMALL_GAIN, {"expect": "equal", "smallest": 0.05}, "reproduced"),
        (WILD, {"expect": "equal", "smallest": 0.01}, "inconclusive"),
        (WILD, {"expect": "lower", "smallest": 5.0}, "contradicted"),
    ],
)
def test_the_outcome_follows_from_the_verdict_and_the_effect(differences, claim, word):
    assert word_of(differences, **claim) == word


def test_higher_is_better_where_the_metric_says_so():
    assert word_of(BIG_LOSS, RIGHT, expect="higher") == "reproduced"
    assert word_of(BIG_LOSS, RIGHT, expect="lower") == "contradicted"


def imagined(monkeypatch, result):
    monkeypatch.setattr(judging, "Queue", lambda lengths, device, tell: Imagined(result))


def test_a_claim_of_two_sides_is_of_their_difference(path, monkeypatch):
    imagined(monkeypatch, lambda cell: came_to(2.0 + 0.1 * (cell.variant.name == "variant")))
    text = "claims: [{says: a, variant: {dims.ff: 40}, expect: higher, smallest: 0.05}]"
    (claim,) = claims_of(text)
    found = judge(claim)
    assert found.word == "reproduced" and "+0.1000 nats" in found.found
    assert str(found).startswith("reproduced: a\n  loss")


def test_a_claim_against_a_number_is_of_the_variant_alone(path, monkeypatch):
    imagined(monkeypatch, lambda cell: came_to(2.0 + 0.001 * cell.seed))
    (claim,) = claims_of("claims: [{says: a, against: 2, expect: equal, smallest: 0.1}]")
    found = judge(claim)
    assert found.word == "reproduced" and len(found.records) == 3


def test_a_claim_of_change_is_of_what_tuning_does(path, monkeypatch):
    """One side gains more from another rate than the other does."""

    def result(cell):
        gain = (0.5 if cell.variant.name == "base" else 0.1) * (cell.rate > 0.01)
        return came_to(3.0 - gain + 0.001 * cell.seed)

    imagined(monkeypatch, result)
    text = "lr_sweep: 3\nclaims: [{says: a, variant: {dims.ff: 40}, expect: higher, rate: change}]"
    (claim,) = claims_of(text)
    found = judge(claim)
    assert found.word == "reproduced" and "+0.4000" in found.found


@pytest.mark.parametrize(
    ("solving", "expect", "word"),
    [
        ((1, 1, 1), "all", "reproduced"),
        ((1, 1, 1), "none", "contradicted"),
        ((0, 0, 0), "none", "reproduced"),
        ((0, 0, 0), "all", "contradicted"),
        ((1, 0, 1), "all", "inconclusive"),
    ],
)
def test_a_task_is_solved_by_all_seeds_or_none(path, monkeypatch, solving, expect, word):
    def result(cell):
        return came_to(1.0, accuracy=0.9, solved=float(solving[cell.seed]))

    imagined(monkeypatch, result)
    task = "set: {tokenizer: none, data: {mqar: {pairs: 2}}}"
    (claim,) = claims_of(f"{task}\nclaims: [{{says: a, metric: solved, expect: {expect}}}]")
    found = judge(claim)
    assert found.word == word and f"{sum(solving)} of 3 seeds" in found.found


def test_a_task_that_some_seeds_failed_at_is_not_judged(path, monkeypatch):
    def result(cell):
        status = "failed" if cell.seed == 1 else "done"
        return came_to(1.0, status, accuracy=0.2, solved=0.0)

    imagined(monkeypatch, result)
    task = "set: {tokenizer: none, data: {mqar: {pairs: 2}}}"
    (claim,) = claims_of(f"{task}\nclaims: [{{says: a, metric: solved, expect: none}}]")
    assert judge(claim).word == "inconclusive"


def test_a_claim_whose_cells_all_fail_is_inconclusive(path, monkeypatch):
    imagined(monkeypatch, lambda cell: came_to(0.0, "failed"))
    (claim,) = claims_of("claims: [{says: a, variant: {dims.ff: 40}, expect: lower}]")
    assert judge(claim).word == "inconclusive"
    task = "set: {tokenizer: none, data: {mqar: {pairs: 2}}}"
    (claim,) = claims_of(f"{task}\nclaims: [{{says: a, metric: solved, expect: all}}]")
    assert judge(claim).word == "inconclusive"


def test_sides_that_cost_differently_are_matched_or_refused(path):
    text = "match: params\nclaims: [{says: a, variant: {model.repeat: 3}, expect: lower}]"
    (claim,) = claims_of(text)
    with pytest.raises(InputError) as caught:
        judge(claim, tell=lambda text: None)
    assert caught.value.code == "no-match"


# Whole


def test_claims_are_tried_from_the_command_line_and_the_exit_tells(path, capsys):
    text = "claims: [{says: it sees all, metric: reach, expect: %s}]"
    for number, code in ((23, 0), (7, 1)):
        claims_of(text % number)
        assert main(["ablate", "--claims", "claims.yaml"]) == code
    out = capsys.readouterr().out
    assert "reproduced: it sees all\n  reach 23, expected 23\n1 reproduced\nruns/claims\n" in out
    assert "contradicted: it sees all" in out


def test_a_claim_is_trained_for_when_it_must_be(path, capsys):
    claims_of("claims: [{says: more steps do more, variant: {train.steps: 12}, expect: lower}]")
    assert main(["ablate", "--claims", "claims.yaml"]) in (0, 1)
    assert "more steps do more\n  loss -" in capsys.readouterr().out
    cells = [
        json.loads(line) for line in Path("runs/claims/results.jsonl").read_text().splitlines()
    ]
    assert {cell["claim"] for cell in cells} == {"more steps do more"} and len(cells) == 6
    table = Path("runs/claims/claims.md").read_text().splitlines()
    assert table[2].startswith("| more steps do more |") and len(table) == 3


@pytest.mark.parametrize("page", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_claim_is_read_and_its_sides_build(page):
    for claim in read_claims(page):
        assert claim.source and load_recipe(claim.recipe, claim.both)
        for settings in (claim.variant, claim.against):
            judging.side(claim, settings)
        assert len(claim.says) < 100


def test_the_structural_claims_that_are_shipped_hold():
    claims = [claim for page in SHIPPED for claim in read_claims(page)]
    counted = [claim for claim in claims if claim.metric == "reach"]
    assert len(counted) == 3
    assert {judge(claim).word for claim in counted} == {"reproduced"}
