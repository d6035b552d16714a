"""A stack against itself: counted and computed by hand."""

import math
from dataclasses import replace
from itertools import combinations

import pytest

from pytest_joules.errors import ConfigurationError
from pytest_joules.gate.calibration import MOST_SPLITS, Calibration, calibrate, splits
from pytest_joules.gate.design import Design
from pytest_joules.gate.launch_value import LaunchValue

DESIGN = Design()


def values(*logs, **more):
    return [LaunchValue(log_energy=y, gpu_uuids=("GPU-0",), **more) for y in logs]


def test_steady_launches_worked_by_hand():
    """Eight values of +-0.004: variance 8 * 1.6e-5 / 7; C(8, 4) = 70 splits, all equal."""
    made = calibrate(values(*[0.004, -0.004] * 4, spread=0.02), DESIGN)

    assert made.num_launches == 8
    assert made.launch_df == 7
    assert made.launch_sd == pytest.approx(math.sqrt(8 * 1.6e-5 / 7))
    assert made.window_sd == 0.02
    assert (made.num_splits, made.num_false_alarms, made.num_undecided) == (70, 0, 0)
    assert 0.01 < made.detectable_change_beside_old < made.detectable_change < 0.03


def test_launches_of_two_kinds_give_false_alarms():
    """Half of the launches cost 20 % more: the split by kind looks like a change."""
    made = calibrate(values(*[0.0] * 4, *[0.2] * 4), replace(DESIGN, prior_sd=0.001))

    assert made.num_false_alarms > 0
    assert made.detectable_change > 0.1


def test_noisy_launches_are_undecided():
    made = calibrate(values(-0.1, 0.1, 0.05, -0.05, 0.08, -0.08, 0.02, -0.02), DESIGN)

    assert made.num_undecided > made.num_splits / 2
    assert made.detectable_change > DESIGN.tolerance


def test_every_split_keeps_the_order_of_time_and_uses_each_launch_once():
    made = splits(values(1, 2, 3, 4, 5))

    kept = [tuple(v.log_energy for v in new) for _, new in made]
    assert kept == list(combinations([1, 2, 3, 4, 5], 2))
    for old, new in made:
        assert sorted(v.log_energy for v in (*old, *new)) == [1, 2, 3, 4, 5]
        assert [v.log_energy for v in old] == sorted(v.log_energy for v in old)


def test_many_splits_are_thinned_evenly():
    # C(16, 4) = 1820, every fourth is 455.
    assert len(splits(values(*range(16)))) == 455 <= MOST_SPLITS


def test_launches_that_do_not_count_are_left_out():
    counted = values(*[0.004, -0.004] * 4)
    disturbed = values(0.5, clipped_share=0.5) + values(math.nan)

    assert calibrate(counted + disturbed, DESIGN) == calibrate(counted, DESIGN)
    with pytest.raises(ConfigurationError, match="3 launches that count are too few"):
        calibrate(counted[:3] + disturbed, DESIGN)


def test_json_keeps_every_field():
    made = calibrate(values(*[0.004, -0.004] * 4, spread=0.02), DESIGN)

    assert Calibration.from_json(made.as_json()) == made
    bare = {name: value for name, value in made.as_json().items() if name != "window_sd"}
    assert Calibration.from_json(bare).window_sd is None
