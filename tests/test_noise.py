"""The assumed noise has the moments that its table states."""

import math

import numpy as np
import pytest

from pytest_joules.gate.noise import (
    INCIDENT,
    MEASURED_S,
    QUIET,
    SCENARIOS,
    TYPICAL,
    gpu_effects,
    launch_effects,
    log_series,
    session_effects,
)

CALM = TYPICAL.but(thermal=0.0, thermal_spread=0.0)


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("noise", SCENARIOS.values(), ids=lambda noise: noise.name)
def test_the_same_seed_draws_the_same_launches(noise):
    one, other = (log_series(noise, rng(), (3, 4)) for _ in range(2))

    assert one.shape == (3, 4, MEASURED_S)
    assert np.array_equal(one, other)


def test_sub_windows_have_the_stated_spread_and_autocorrelation():
    series = log_series(CALM, rng(), (4000,))
    inner = series[:, 1:-1]
    calm = np.where(np.abs(inner) > 0.15, np.nan, inner)  # 5 sigma: the planted outliers

    assert np.nanstd(calm) == pytest.approx(0.03, rel=0.02)
    pairs = calm[:, :-1] * calm[:, 1:]
    assert np.nanmean(pairs) / np.nanvar(calm) == pytest.approx(0.7, abs=0.02)


def test_half_a_percent_of_sub_windows_are_multiplied():
    still = QUIET.but(sub_window=1e-4, thermal=0.0, thermal_spread=0.0)
    series = log_series(still, rng(), (20_000,))[:, 1:-1]

    raised = series[series > 0.19]

    assert len(raised) / series.size == pytest.approx(0.005, rel=0.05)
    assert raised.min() >= 0.199
    assert raised.max() <= 0.701


def test_the_thermal_transient_decays_with_a_minute():
    """A = 2 %: 30.5 s after the start 2 % e^(-30.5/60), 59 s later e^(-59/60) of that."""
    series = log_series(TYPICAL.but(thermal_spread=0.0), rng(), (60_000,))
    mean = np.median(series, axis=0)

    assert mean[1] == pytest.approx(-0.02 * math.exp(-31.5 / 60), abs=5e-4)
    assert mean[58] == pytest.approx(-0.02 * math.exp(-88.5 / 60), abs=5e-4)


def test_one_launch_in_twenty_holds_an_incident():
    still = INCIDENT.but(sub_window=1e-4, thermal=0.0, thermal_spread=0.0)
    series = log_series(still, rng(), (20_000,))

    long_raised = (series > math.log(1.15)).sum(axis=1) >= 5

    assert long_raised.mean() == pytest.approx(0.05, abs=0.006)


def test_effects_have_the_stated_spread():
    assert session_effects(TYPICAL, rng(), (50_000,)).std() == pytest.approx(0.004, rel=0.02)
    other_gpu = SCENARIOS["other GPU"]
    assert gpu_effects(other_gpu, rng(), (50_000,)).std() == pytest.approx(0.03, rel=0.02)
    assert gpu_effects(TYPICAL, rng(), (50_000,)).std() == 0.0
    first = launch_effects(TYPICAL, rng(), (50_000, 1))
    assert first.std() == pytest.approx(0.01, rel=0.02)


def test_heavy_tailed_launches_have_the_same_variance():
    drawn = launch_effects(INCIDENT, rng(), (400_000, 1))

    assert drawn.std() == pytest.approx(0.01, rel=0.05)
    assert (np.abs(drawn) > 0.04).mean() > 10 * 6.3e-5  # ten times the normal tail


def test_scaling_multiplies_what_varies():
    double = TYPICAL.scaled(2.0)

    assert (double.launch, double.session, double.sub_window) == (0.02, 0.008, 0.06)
    assert double.thermal == TYPICAL.thermal
    assert double.autocorrelation == TYPICAL.autocorrelation
