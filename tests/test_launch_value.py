"""One launch, one number: by hand, at the edges, and under scaling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.gate.launch_value import (
    LaunchValue,
    clip,
    launch_value,
    pooled_noise,
    sum_squares,
    worked,
)
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Evidence, Reason, Result

POINT = Point(model="org/model", batch_size=4, num_gpus=1)


def result(energy_j=(), work_units=(), *, mean_j=0.5, uuids=("GPU-1",), reasons=()):
    evidence = Evidence(
        launch_id="launch-1",
        window_s=float(len(energy_j)),
        gpu_energy_j=(math.fsum(energy_j),),
        work_units=math.fsum(work_units),
        series_energy_j=tuple(energy_j),
        series_work_units=tuple(work_units),
    )
    return Result(
        point=POINT,
        source="fake",
        gpu="fake",
        energy_per_work_unit_j=mean_j,
        throughput_work_units_per_s=100.0,
        provenance=Provenance(
            identity=Identity(gpu_model="Fake", num_gpus=1), context=Context(gpu_uuids=uuids)
        ),
        evidence=evidence if energy_j else None,
        reasons=reasons,
    )


def test_a_launch_worked_by_hand():
    """Ratios 2, 2, 3, 4, 4: nothing is far; (2+4+3+4+8) J over (1+2+1+1+2) units = 3."""
    value = launch_value(result((2.0, 4.0, 3.0, 4.0, 8.0), (1.0, 2.0, 1.0, 1.0, 2.0)))

    assert value.log_energy == pytest.approx(math.log(3.0))
    assert value.clipped_share == 0.0
    assert value.spread == pytest.approx(1.4826 / 3)
    assert not value.must_repeat
    assert value.gpu_uuids == ("GPU-1",)


def test_an_outlier_counts_as_four_sigmas_worked_by_hand():
    """Nine values 9..11 by steps and one 100: median 10.125, MAD 0.625, sigma 0.926625."""
    ratios = (9.0, 9.25, 9.5, 9.75, 10.0, 10.25, 10.5, 10.75, 11.0, 100.0)
    limit = 10.125 + 4 * 1.4826 * 0.625

    value = launch_value(result(ratios, (1.0,) * 10))

    assert value.energy_per_work_unit_j == pytest.approx((90.0 + limit) / 10)
    assert value.clipped_share == pytest.approx(0.1)
    assert not value.must_repeat


def test_where_most_values_are_equal_the_mean_deviation_is_the_scale():
    """59 ones and one 7: mean deviation 0.1, so the outlier counts as 1 + 4 x 0.12533."""
    clipped, share, _ = clip(np.array([1.0] * 59 + [7.0]))

    assert clipped[-1] == pytest.approx(1 + 4 * 1.2533 * 0.1)
    assert share == pytest.approx(1 / 60)


def test_counts_that_jump_between_two_values_are_not_called_outliers():
    _, share, _ = clip(np.array([10.0] * 40 + [11.0] * 20))

    assert share == 0.0


@pytest.mark.parametrize(
    ("energy_j", "work_units", "expected"),
    [
        pytest.param((1, 1, 1, 1), (0, 2, 0, 2), ([2, 2], [2, 2]), id="slow-images"),
        pytest.param((1, 1, 1), (2, 0, 0), ([3], [2]), id="tail-joins-the-last"),
        pytest.param((1, 1), (0, 0), ([], []), id="nothing-finished"),
        pytest.param((), (), ([], []), id="empty"),
    ],
)
def test_energy_before_a_unit_finishes_belongs_to_it(energy_j, work_units, expected):
    joules, units = worked(energy_j, work_units)

    assert (joules.tolist(), units.tolist()) == expected


@pytest.mark.parametrize(
    ("energy_j", "work_units"),
    [
        pytest.param((1.0, math.nan), (1.0, 1.0), id="nan"),
        pytest.param((1e308, 1.0), (1e-300, 1.0), id="by-hardly-any-work"),
        pytest.param((1.0, math.inf), (1.0, 1.0), id="infinite"),
        pytest.param((1.0, -1.0), (1.0, 1.0), id="negative-energy"),
        pytest.param((1.0, 1.0), (1.0, -1.0), id="negative-work"),
        pytest.param((0.0, 0.0), (1.0, 1.0), id="zero-energy"),
        pytest.param((1.0, 1.0), (0.0, 0.0), id="no-work"),
    ],
)
def test_readings_that_are_no_energies_give_no_number(energy_j, work_units):
    value = launch_value(result(energy_j, work_units))

    assert math.isnan(value.log_energy)
    assert not value.is_finite


def test_a_published_result_counts_with_its_mean_and_says_so():
    value = launch_value(result(mean_j=0.25))

    assert value.log_energy == math.log(0.25)
    assert value.from_mean
    assert value.spread is None


def test_a_result_that_broke_the_contract_stays_marked():
    broken = (Reason(code="counter-frozen", text="stood still"),)

    assert not launch_value(result((1.0,), (1.0,), reasons=broken)).is_valid


@pytest.mark.parametrize(("far", "repeated"), [(3, False), (4, True)])
def test_more_than_six_percent_of_sixty_sub_windows_means_again(far, repeated):
    """3 of 60 are 5 %, 4 are 6.7 %."""
    ratios = [1.0 + 0.01 * (i % 5) for i in range(60 - far)] + [9.0] * far

    assert launch_value(result(ratios, [1.0] * 60)).must_repeat is repeated


@pytest.mark.parametrize(
    ("num", "far", "repeated"), [(10, 1, False), (10, 2, True), (40, 2, False), (33, 2, True)]
)
def test_a_single_clipped_sub_window_of_a_short_window_is_no_burst(num, far, repeated):
    """1 of 10 is 10 % and yet one outlier; 2 of 40 are 5 %, 2 of 33 are 6.06 %."""
    ratios = [1.0 + 0.01 * (i % 5) for i in range(num - far)] + [9.0] * far

    value = launch_value(result(ratios, [1.0] * num))

    assert value.clipped_share == pytest.approx(far / num)
    assert value.must_repeat is repeated


@given(
    st.lists(st.floats(0.5, 2.0), min_size=3, max_size=30),
    st.sampled_from([0.25, 0.5, 2.0, 1024.0]),
)
def test_scaling_the_energy_shifts_the_value_and_nothing_else(ratios, factor):
    one = launch_value(result(ratios, [3.0] * len(ratios)))
    other = launch_value(result([factor * r for r in ratios], [3.0] * len(ratios)))

    assert other.log_energy - one.log_energy == pytest.approx(math.log(factor), abs=1e-12)
    assert other.clipped_share == one.clipped_share
    assert other.spread == pytest.approx(one.spread)


def test_noise_is_pooled_within_boards_and_without_disturbed_launches():
    """(1, 3) and (2, 6) on one board: 2 + 8 on 2 df; the rest must not count."""

    def at(value, board="GPU-1", **more):
        return LaunchValue(log_energy=value, gpu_uuids=(board,), **more)

    noise = pooled_noise(
        [
            (at(1.0), at(3.0), at(90.0, "GPU-2"), at(80.0, clipped_share=0.5)),
            (at(2.0), at(6.0), at(70.0, is_valid=False), at(math.nan)),
            (),
        ]
    )

    assert (noise.sum_squares, noise.df) == (10.0, 2.0)


def test_sums_of_squares_by_hand():
    assert sum_squares([1.0, 2.0, 3.0]) == 2.0
    assert sum_squares([5.0]) == 0.0
    assert sum_squares([]) == 0.0
