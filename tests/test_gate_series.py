"""What sub-windows may do to a verdict, from stored series to the answer, row by row."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from pytest_joules.gate import judge
from pytest_joules.gate.design import Design
from pytest_joules.gate.launch_value import launch_value
from pytest_joules.gate.launches import Launches
from pytest_joules.verdict import Verdict
from tests.fakes.results import make_evidence, make_result

DESIGN = Design()
SECONDS = np.arange(60)
STEADY = 1.0 + 0.01 * np.sin(SECONDS)
"""Sixty sub-windows around 1 J per work unit, each unlike its neighbour."""

SLOW = 1.0 + 0.03 * np.sin(2 * math.pi * SECONDS / 60)
"""One wave a window: neighbours are alike (lag-1 correlation 0.99), the mean is 1."""

LEVELS = (0.993, 0.995, 0.998, 1.0, 1.0, 1.002, 1.005, 1.007)
"""What eight launches of the baseline differ by."""


def of(series, units=1.0):
    evidence = make_evidence(
        series_energy_j=tuple(units * float(ratio) for ratio in series),
        series_work_units=(units,) * len(series),
    )
    return launch_value(make_result(evidence=evidence))


def risen(series, count=2):
    """Launches 10 % up; a change needs a second one."""
    return [1.1 * np.asarray(series)] * count


def one_far(series, factor, count=1):
    changed = np.array(series)
    changed[:: max(1, len(changed) // count)][:count] *= factor
    return changed


def with_value(value):
    return [*STEADY[:-1], value]


BASELINE = tuple(of(level * STEADY) for level in LEVELS)
WAVES = tuple(of(level * SLOW) for level in LEVELS)
EVEN = (of(np.ones(60)),) * 8
UNCHANGED, REGRESSION, INVALID = Verdict.UNCHANGED, Verdict.REGRESSION, Verdict.INVALID
ROWS = {
    "same": (BASELINE, [STEADY], UNCHANGED),
    "rise": (BASELINE, risen(STEADY), REGRESSION),
    "autocorrelated": (WAVES, [SLOW], UNCHANGED),
    "autocorrelated-rise": (WAVES, risen(SLOW), REGRESSION),
    "one-outlier": (BASELINE, [one_far(STEADY, 10.0)], UNCHANGED),
    "one-outlier-downwards": (BASELINE, [one_far(STEADY, 0.1)], UNCHANGED),
    "a-burst-is-measured-again": (BASELINE, [one_far(STEADY, 10.0, count=4)], "B"),
    "drift-within-the-window": (BASELINE, [np.linspace(0.985, 1.015, 60)], UNCHANGED),
    "no-variance-at-all": (EVEN, [np.ones(60)], UNCHANGED),
    "no-variance-and-a-rise": (EVEN, risen(np.ones(60)), REGRESSION),
    "a-window-of-one-second": (BASELINE, [[1.0]], UNCHANGED),
    "baseline-of-one-launch": (BASELINE[:1], [STEADY], "A"),
    "nan": (BASELINE, [with_value(math.nan)], INVALID),
    "nan-in-the-baseline": ([of(with_value(math.nan))], [STEADY], INVALID),
    "infinite": (BASELINE, [with_value(math.inf)], INVALID),
    "energy-that-falls": (BASELINE, [with_value(-1.0)], INVALID),
    "a-second-without-energy": (BASELINE, [with_value(0.0)], INVALID),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_series_has_its_answer(name):
    """The answer is a verdict, or the stack to launch next."""
    baseline, new, answer = ROWS[name]

    decision = judge(
        Launches(baseline=baseline, new=[of(series) for series in new], has_old=True), DESIGN
    )

    assert (decision.verdict or decision.next_stack) == answer


def test_sub_windows_that_agree_are_no_evidence_of_a_change():
    """A launch 0.7 % up, as launches are: a test over its sub-windows is sure, and wrong."""
    old, new = 0.993 * STEADY, 1.007 * STEADY

    assert ttest_ind(old, new).pvalue < 1e-6
    seen = Launches(baseline=BASELINE, new=[of(new)] * 4, has_old=True)
    assert judge(seen, DESIGN).verdict is Verdict.UNCHANGED


def test_a_published_mean_stands_for_a_launch_and_is_noted():
    one = launch_value(make_result(1.0))

    decision = judge(Launches(baseline=[one], new=[of(STEADY)], has_old=False), DESIGN)

    assert "from-mean" in [note.code for note in decision.notes]
    assert decision.verdict is not Verdict.REGRESSION


@pytest.mark.parametrize("units", [0.25, 1.0, 4096.0])
def test_the_work_of_a_second_does_not_matter_where_all_are_alike(units):
    assert of(STEADY, units).log_energy == pytest.approx(of(STEADY).log_energy, abs=1e-12)
