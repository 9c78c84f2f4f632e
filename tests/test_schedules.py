"""Schedules are pure functions of the step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.training.schedules import Constant, Cosine, Linear, Wsd

ALL = [Constant(), Cosine(), Linear(), Wsd(), Cosine(warmup=0, floor=0), Wsd(warmup=0.1, decay=0.5)]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [1, 2, 7, 600])
def test_a_factor_is_within_0_and_1_and_rises_then_falls(schedule, steps):
    factors = [schedule(step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@settings(deadline=None)
@given(warmup=st.floats(0, 0.5), floor=st.floats(0, 1), steps=st.integers(20, 10_000))
def test_the_last_step_is_at_the_floor(warmup, floor, steps):
    for schedule in (Cosine, Linear, Wsd):
        last = schedule(warmup=warmup, floor=floor)(steps - 1, steps)
        assert last == pytest.approx(floor, abs=1e-12)


def test_the_first_step_already_learns_and_warmup_ends_at_1():
    schedule = Constant(warmup=0.1)
    assert schedule(0, 100) == pytest.approx(0.1)
    assert schedule(9, 100) == 1.0


def test_wsd_is_flat_until_it_decays():
    schedule = Wsd(warmup=0.1, decay=0.2)
    assert {schedule(step, 100) for step in range(10, 81)} == {1.0}
    assert schedule(90, 100) == pytest.approx(1 - 10 / 19)


def test_cosine_is_half_way_down_in_the_middle():
    assert Cosine(warmup=0, floor=0)(50, 101) == pytest.approx(0.5)
