"""An ablation's protocol: who is compared with whom, at which rate, over which seeds."""

from __future__ import annotations

import math
import statistics

import pytest

from builder.ablation.experiment import MOST_SEEDS, announced, estimate, pick_seeds
from builder.ablation.matching import Matched
from builder.ablation.metrics import Metric, lengths_in, metric_of
from builder.ablation.named import SEEDS
from builder.ablation.outcome import Ask
from builder.ablation.rehearse import Rehearsal, rehearse
from builder.ablation.swaps import BASE, Variant, variants
from builder.ablation.trial import CHOOSING, SHIFTED, Trial
from builder.errors import InputError, NumbersError
from builder.measure import measure
from tests.ablations import Imagined, came_to, settled

ALIBI, NONE = "position=alibi", "position=none"
LOSS = Metric("loss", "nats", lower=True, margin=0.01)
EFFECTS = {BASE: 0.0, ALIBI: -0.3, NONE: 0.4}


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return settled(tmp_path)


def rows_of(path, *more, cross=False):
    swaps = ["blocks.decoder.attention.position=alibi,none", *more]
    found = variants([path], (), swaps, cross)
    costs = measure(found[0].recipe)
    return [Matched(one, costs) for one in found]


def trial_of(path, result, looks=(4,), metric=LOSS, lr_sweep=0, rows=None, **given):
    ask = Ask((path,), lr_sweep=lr_sweep)
    return Trial(ask, metric, rows or rows_of(path), looks, Imagined(result), **given)


def noise(cell):
    """What chance adds, by seed: the same in every row, and a little of its own."""
    return math.sin(cell.seed) + 0.01 * math.sin(cell.seed + len(cell.variant.name))


def by_row(cell):
    return came_to(3 + EFFECTS.get(cell.variant.name, 0.0) + noise(cell))


# Seeds


def test_differences_are_paired_by_seed(path):
    found = trial_of(path, by_row).outcome()
    rows = {row.name: row.shared for row in found.rows}
    assert {name: one.verdict.word for name, one in rows.items()} == {
        ALIBI: "better",
        NONE: "worse",
    }
    assert rows[ALIBI].seeds == (0, 1, 2, 3) == found.seeds
    assert statistics.mean(rows[ALIBI].differences) == pytest.approx(-0.3, abs=0.02)
    assert statistics.stdev(rows[ALIBI].values) > 20 * rows[ALIBI].verdict.found.sd


def test_the_noise_floor_is_the_base_against_its_twins(path):
    trial = trial_of(path, by_row)
    found = trial.outcome()
    twins = {cell.seed for cell in trial.queue.asked if cell.seed >= SHIFTED}
    assert twins == {SHIFTED, SHIFTED + 1, SHIFTED + 2, SHIFTED + 3}
    assert found.noise.sd > 0.1 and found.noise.low < 0 < found.noise.high
    assert trial_of(path, by_row, twins=False).outcome().noise is None


def test_every_cell_is_asked_for_once(path):
    trial = trial_of(path, by_row, lr_sweep=3)
    trial.outcome()
    keys = [cell.key for cell in trial.queue.asked]
    reported = [cell.key for cell in trial.queue.asked if cell.seed < SHIFTED]
    assert len(reported) == len(set(reported)) and len(keys) == len(set(keys))


def test_only_rows_that_are_open_get_more_seeds(path):
    """The declared rule: a second look, at half the error each, for what the first leaves open."""

    def result(cell):
        wild = 0.5 * math.cos(7 * cell.seed) if cell.variant.name == NONE else 0.0
        return came_to(by_row(cell).numbers["loss"] + wild)

    trial = trial_of(path, result, looks=(3, 8))
    found = {row.name: row.shared for row in trial.outcome().rows}
    assert len(found[ALIBI].seeds) == 3 and len(found[NONE].seeds) == 8
    assert found[ALIBI].verdict.alpha == found[NONE].verdict.alpha == 0.025
    sure = trial_of(path, by_row, looks=(3, 8))
    assert all(len(row.shared.seeds) == 3 for row in sure.outcome().rows)


def test_seeds_begin_at_the_recipe_s(path):
    found = rows_of(path)
    base = [Matched(one.variant.with_settings("train.seed=40"), one.costs) for one in found]
    assert trial_of(path, by_row, rows=base).outcome().seeds == (40, 41, 42, 43)


# What fails, and what diverges


def test_failed_seeds_are_counted_and_leave_the_others(path):
    def result(cell):
        failed = cell.variant.name == ALIBI and cell.seed == 2
        return came_to(0.0, "failed") if failed else by_row(cell)

    found = trial_of(path, result).outcome()
    rows = {row.name: row.shared for row in found.rows}
    assert rows[ALIBI].seeds == (0, 1, 3) and rows[ALIBI].failed == 1
    assert rows[NONE].seeds == (0, 1, 2, 3) and rows[NONE].failed == 0
    assert any(ALIBI in note and "1 seeds, which failed" in note for note in found.notes)


def test_a_row_that_fails_whole_has_no_verdict_and_harms_no_other(path):
    def result(cell):
        return came_to(0.0, "failed") if cell.variant.name == ALIBI else by_row(cell)

    rows = {row.name: row.shared for row in trial_of(path, result).outcome().rows}
    assert rows[ALIBI].verdict is None and rows[NONE].verdict.word == "worse"


def test_diverged_runs_stay_in_the_mean_and_are_told(path):
    def result(cell):
        diverged = cell.variant.name == ALIBI and cell.seed == 1
        return came_to(9.0, "diverged") if diverged else by_row(cell)

    found = trial_of(path, result).outcome()
    row = next(row for row in found.rows if row.name == ALIBI)
    assert row.shared.diverged == (1, 0) and max(row.shared.values) == 9.0
    assert any("1 of 4 runs diverged" in note for note in found.notes)


# Rates


def bowl(best):
    """A loss that is least at a rate of each row."""

    def result(cell):
        far = math.log10(cell.rate / best[cell.variant.name])
        return came_to(3 + far**2 + 0.001 * noise(cell))

    return result


def test_each_row_is_tuned_by_as_many_rates_on_other_seeds(path):
    trial = trial_of(path, bowl({BASE: 0.01, ALIBI: 0.01, NONE: 0.0316}), lr_sweep=5)
    found = trial.outcome()
    assert {len(losses) for losses in found.curves.values()} == {5}
    tuning = [record for record in found.records if record.use == "rate"]
    assert {record.cell.seed for record in tuning} == {CHOOSING} and len(tuning) == 15
    assert trial.rates == {BASE: 0.01, ALIBI: 0.01, NONE: 0.0316}
    rates = {row.name: (row.shared.rate, row.best.rate) for row in found.rows}
    assert rates == {ALIBI: (0.01, 0.01), NONE: (0.01, 0.0316)}


def test_a_sweep_is_extended_for_all_while_any_has_its_best_at_the_edge(path):
    trial = trial_of(path, bowl({BASE: 0.01, ALIBI: 0.001, NONE: 0.3}), lr_sweep=3)
    found = trial.outcome()
    tried = sorted(next(iter(found.curves.values())))
    assert tried == [0.000316, 0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316, 1.0]
    assert {tuple(sorted(losses)) for losses in found.curves.values()} == {tuple(tried)}
    assert trial.rates == {BASE: 0.01, ALIBI: 0.001, NONE: 0.316}
    assert not any("edge" in note for note in found.notes)


def test_a_best_rate_that_stays_at_the_edge_is_told(path):
    trial = trial_of(path, bowl({BASE: 0.01, ALIBI: 0.01, NONE: 1e9}), lr_sweep=3)
    found = trial.outcome()
    assert [note for note in found.notes if "edge" in note] == [
        "position=none: the best rate lies at the edge of those tried, 0.00316 to 3.16"
    ]


def test_a_sign_that_turns_with_tuning_is_told(path):
    """The base does worse at the shared rate, and better at its own best."""

    def result(cell):
        base = cell.variant.name == BASE
        loss = (3.0 if base else 3.1) if cell.rate < 0.01 else (3.5 if base else 3.2)
        return came_to(loss + 0.001 * noise(cell))

    found = trial_of(path, result, lr_sweep=3).outcome()
    assert all(row.turns for row in found.rows)
    assert sum("sign" in note for note in found.notes) == 2
    assert found.rows[0].shared.verdict.word == "better"
    assert found.rows[0].best.verdict.word == found.rows[0].chief.verdict.word == "worse"


def test_rates_are_not_chosen_by_what_is_reported(path):
    def result(cell):
        return came_to(5.0 - cell.rate, choosing=abs(math.log10(cell.rate / 0.01)))

    trial = trial_of(path, result, lr_sweep=3)
    trial.outcome()
    assert set(trial.rates.values()) == {0.01}


# Combinations


def test_a_combination_is_held_against_the_sum_of_its_parts(path):
    both, apart = f"{ALIBI}, ff=40", {ALIBI: -0.3, "ff=40": -0.2}

    def result(joint):
        effects = {**apart, both: joint}
        return lambda cell: came_to(3 + effects.get(cell.variant.name, 0.0) + 0.1 * noise(cell))

    rows = rows_of(path, "dims.ff=40", cross=True)
    assert both in {row.variant.name for row in rows}
    for joint, inside in ((-0.5, True), (-0.2, False)):
        found = trial_of(path, result(joint), rows=rows).outcome()
        pair = next(row.interaction for row in found.rows if row.name == both)
        assert pair.mean == pytest.approx(joint + 0.5, abs=0.01)
        assert (pair.low <= 0 <= pair.high) == inside
        assert all(row.interaction is None for row in found.rows if row.name in apart)


# Metrics


def test_a_metric_may_be_the_difference_of_two():
    numbers = {"loss": 2.5, "loss@64": 2.0, "loss@256": 3.5}
    rise = Metric("loss@256 - loss@64", "nats", True, 0.01)
    assert rise.value(numbers) == 1.5 and rise.lengths == (256, 64)
    assert lengths_in("loss") == ()


def test_the_metric_suits_what_is_compared(path):
    base = variants([path], (), ["dims.ff=40"])[0].recipe
    bytes_ = Variant("b", path, ("tokenizer=bytes",)).recipe
    task = Variant("t", path, ("tokenizer=none", "data={mqar: {pairs: 2}}")).recipe
    assert metric_of("", [base, base]).name == "loss"
    assert metric_of("", [base, bytes_]).name == "bits_per_byte"
    assert metric_of("", [task, task]).name == "accuracy"
    assert metric_of("accuracy@16", [task]).lower is False
    assert metric_of("loss", [base], margin=0.5).margin == 0.5
    for name, recipes in (("los", [base]), ("accuracy", [base]), ("bits_per_byte", [task])):
        with pytest.raises(InputError) as caught:
            metric_of(name, recipes)
        assert caught.value.code == "unknown-metric"
    with pytest.raises(InputError, match="no metric"):
        metric_of("loss@64 - lss@3", [base])


# Before


def test_a_budget_picks_how_many_seeds(path):
    rows = rows_of(path)
    timed = {row.variant.name: Rehearsal(0.1, 10.0) for row in rows}

    def seeds(**asked):
        return pick_seeds(Ask((path,), **asked), rows, timed)

    assert seeds() == (SEEDS,)
    assert seeds(seeds=(5, 9)) == (5, 9)
    # each seed takes three rows and the base's twin, ten seconds each
    assert seeds(budget=205.0) == (5,)
    assert seeds(budget=1e6) == (MOST_SEEDS,)
    assert seeds(budget=205.0, seeds=(3, 9)) == (3, 5)
    # with a sweep, each row is trained at three rates, and each seed twice
    assert seeds(budget=300.0, lr_sweep=3) == (3,)
    with pytest.raises(InputError) as caught:
        seeds(budget=79.0)
    assert caught.value.code == "over-budget" and "1:20" in caught.value.message
    assert estimate(Ask((path,)), rows, timed, 2) == 80.0
    told = announced(Ask((path,), lr_sweep=3), rows, timed, (3, 9))
    assert "2 rows and the base, 3 seeds, up to 9" in told and "3 rates" in told


def test_a_rehearsal_times_a_row_and_looks_at_it(path):
    row = Variant("row", path, ("train.steps=5",))
    found = rehearse(row, (8,))
    assert 0 < found.step < found.cell < 60
    with pytest.raises(InputError) as caught:
        rehearse(Variant("row", path, (LEARNED,)), (48,))
    assert caught.value.code == "length-over-limit"
    with pytest.raises(InputError) as caught:
        rehearse(row, (2000,))
    assert caught.value.code == "nothing-to-measure" and "4002" in caught.value.message


LEARNED = "model=[token_embedding, learned_positions, {repeat: 1, block: decoder}, lm_head]"
LEAKY = '''
from torch import nn

from blocks.registry import register


@register("peek", kind="map")
class Peek(nn.Module):
    """The next token's stream. Shapes: ``(B, T, dim) -> (B, T, dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x):
        return x.roll(-1, 1)
'''


def test_a_row_that_sees_the_future_is_refused_before_anything_trains(path, tmp_path):
    plugin = tmp_path / "peek.py"
    plugin.write_text(LEAKY)
    settings = ("blocks.decoder.attention=[it, peek]",)
    with pytest.raises(InputError) as caught:
        rehearse(Variant("row", path, settings, (), (plugin,)))
    assert caught.value.code == "not-causal" and "'row'" in caught.value.message


def test_a_row_whose_numbers_are_bad_at_once_is_refused(path):
    with pytest.raises(NumbersError) as caught:
        rehearse(
            Variant("row", path, ("blocks.decoder.attention=[it, {scale: 1e30}, {scale: 1e30}]",))
        )
    assert caught.value.code == "not-finite"
