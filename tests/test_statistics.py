"""Our statistics are scipy's, and a verdict errs no more often than it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from builder.ablation.metrics import Metric
from builder.ablation.statistics import (
    MOST_SEEDS,
    POWER,
    Paired,
    beta_cdf,
    beta_quantile,
    equivalence,
    holm,
    paired,
    proportion,
    seeds_needed,
    t_cdf,
    t_quantile,
)
from builder.ablation.verdicts import ALPHA, sentence, verdicts

LOSS = Metric("loss", "nats", lower=True, margin=0.05)
RIGHT = Metric("accuracy", "", lower=False, margin=0.05)
NUMBERS = st.floats(-1e3, 1e3)
SAMPLES = st.lists(NUMBERS, min_size=2, max_size=20)


@given(st.floats(-200, 200), st.integers(1, 500))
def test_the_t_distribution_is_scipy_s(t, freedom):
    assert t_cdf(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-9, abs=1e-15)


@given(st.floats(1e-9, 1 - 1e-9), st.integers(1, 500))
def test_its_quantile_is_scipy_s(p, freedom):
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-6, abs=1e-9)


@given(st.floats(0, 1), st.floats(0.1, 300), st.floats(0.1, 300))
def test_the_beta_distribution_is_scipy_s(x, a, b):
    assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-8, abs=1e-12)


@given(st.floats(0.001, 0.999), st.integers(1, 60), st.integers(1, 60))
def test_the_beta_quantile_is_scipy_s(p, a, b):
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-9)


@given(SAMPLES, st.floats(0.001, 0.5))
def test_the_paired_test_is_scipy_s(differences, alpha):
    assume(np.std(differences) > 1e-6 * (1 + np.abs(differences).max()))
    found = paired(differences, alpha)
    theirs = stats.ttest_1samp(differences, 0)
    interval = theirs.confidence_interval(1 - alpha)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


@given(SAMPLES, st.floats(0.01, 100))
def test_equivalence_is_two_of_scipy_s_one_sided_tests(differences, margin):
    assume(np.std(differences) > 1e-6 * (1 + np.abs(differences).max()))
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert equivalence(differences, margin) == pytest.approx(max(above, below), rel=1e-6, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_rejects_what_the_procedure_rejects_step_by_step(ps):
    for alpha in (0.01, 0.05, 0.3):
        left, rejected = sorted(range(len(ps)), key=lambda n: ps[n]), set()
        while left and ps[left[0]] * len(left) <= alpha:
            rejected.add(left.pop(0))
        assert {n for n, p in enumerate(holm(ps)) if p <= alpha} == rejected


@given(st.integers(1, 60), st.data(), st.sampled_from([0.05, 0.1]))
def test_the_interval_of_a_share_is_scipy_s(n, data, alpha):
    k = data.draw(st.integers(0, n))
    theirs = stats.binomtest(k, n).proportion_ci(1 - alpha, "exact")
    assert proportion(k, n, alpha) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


@given(st.floats(0.2, 3.0))
def test_the_seeds_that_are_named_find_the_difference(effect):
    """By the exact power, of the noncentral distribution: ours is shifted instead."""
    found = Paired(3, effect, 1.0, 0, 0, 1)
    n = seeds_needed(found, 0.0, 0.05)
    assert n is not None
    limit = stats.t.ppf(0.975, n - 1)
    power = 1 - stats.nct.cdf(limit, n - 1, effect * math.sqrt(n))
    assert power >= POWER - 0.07
    fewer = n - 2
    if fewer >= 2:
        limit = stats.t.ppf(0.975, fewer - 1)
        assert 1 - stats.nct.cdf(limit, fewer - 1, effect * math.sqrt(fewer)) <= POWER + 0.03


def test_a_small_difference_needs_more_seeds_than_anyone_has():
    assert seeds_needed(Paired(3, 0.001, 1.0, 0, 0, 1), 0.001, 0.05) is None
    assert seeds_needed(Paired(3, 0.0, 0.01, 0, 0, 1), 0.05, 0.05) == 3
    assert MOST_SEEDS == 1000


# Verdicts


def test_each_verdict_is_said_of_what_it_says():
    rows = {
        "better": [-0.50, -0.52, -0.49, -0.51],
        "worse": [0.50, 0.52, 0.49, 0.51],
        "equivalent": [0.001, -0.002, 0.001, 0.0],
        "inconclusive": [0.5, -0.4, 0.1, -0.3],
    }
    found = verdicts(rows, LOSS)
    assert {name: one.word for name, one in found.items()} == {name: name for name in rows}
    assert verdicts({"a": rows["better"]}, RIGHT)["a"].word == "worse"
    for name, one in found.items():
        text = sentence(name, one, LOSS)
        assert name in text and "4 seeds" in text and text.endswith(".")
    assert "would decide" in sentence("inconclusive", found["inconclusive"], LOSS)


def test_a_sure_difference_within_the_margin_is_equivalent():
    assert verdicts({"a": [0.010, 0.011, 0.0105]}, LOSS)["a"].word == "equivalent"


def test_one_seed_never_decides():
    found = verdicts({"a": [-5.0]}, LOSS)["a"]
    assert found.word == "inconclusive" and "one seed" in sentence("a", found, LOSS)


def test_a_swap_that_changes_nothing_is_equivalent():
    assert verdicts({"a": [0.0, 0.0, 0.0]}, LOSS)["a"].word == "equivalent"


@pytest.mark.parametrize("rows", [1, 5])
def test_without_a_difference_one_is_said_no_more_often_than_alpha(rows):
    """Of 2,000 families of rows that do not differ, with a margin too small to be equivalent."""
    dice, metric, wrong = np.random.default_rng(0), Metric("loss", "", True, 1e-9), 0
    for _ in range(2000):
        family = {str(n): dice.normal(0, 1, 3).tolist() for n in range(rows)}
        wrong += any(v.word in ("better", "worse") for v in verdicts(family, metric).values())
    assert stats.binomtest(wrong, 2000, ALPHA, alternative="greater").pvalue > 1e-3


def test_at_the_margin_equivalence_is_said_no_more_often_than_alpha():
    dice, wrong = np.random.default_rng(1), 0
    for _ in range(2000):
        wrong += (
            verdicts({"a": dice.normal(0.05, 0.02, 4).tolist()}, LOSS)["a"].word == "equivalent"
        )
    assert stats.binomtest(wrong, 2000, ALPHA, alternative="greater").pvalue > 1e-3


def test_looking_twice_errs_no_more_often_than_looking_once():
    dice, metric, wrong = np.random.default_rng(2), Metric("loss", "", True, 1e-9), 0
    for _ in range(2000):
        drawn = dice.normal(0, 1, 6).tolist()
        words = {verdicts({"a": drawn[:n]}, metric, looks=2)["a"].word for n in (3, 6)}
        wrong += bool(words & {"better", "worse"})
    assert stats.binomtest(wrong, 2000, ALPHA, alternative="greater").pvalue > 1e-3
