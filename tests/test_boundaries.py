"""Critical values against published tables and against an independent simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from pytest_joules.gate.boundaries import (
    critical_values,
    spent_hwang_shih_decani,
    spent_pocock,
)

unhurried = settings(deadline=None)  # the first integration of each size is slow
FIVE_LOOKS = (0.2, 0.4, 0.6, 0.8, 1.0)


def spent_obrien_fleming(information, total):
    """Lan & DeMets 1983, alpha-star 1: not what the gate spends, but a published check."""
    return 2 * float(ndtr(ndtri(total / 2) / math.sqrt(information)))


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        pytest.param(spent_obrien_fleming, (4.877, 3.357, 2.680, 2.290, 2.031), id="of"),
        pytest.param(spent_pocock, (2.438, 2.427, 2.410, 2.397, 2.386), id="pocock"),
    ],
)
def test_published_values_at_five_equal_looks(spending, published):
    values = critical_values(FIVE_LOOKS, [spending(t, 0.025) for t in FIVE_LOOKS])

    assert values == pytest.approx(published, abs=6e-4)


def test_one_look_is_the_normal_quantile():
    assert critical_values((1.0,), (0.025,)) == pytest.approx((1.959964,), abs=1e-6)


def test_hwang_shih_decani_worked_by_hand():
    """(1 - e^0.5) / (1 - e) = 0.648721 / 1.718282 = 0.377541."""
    assert spent_hwang_shih_decani(0.5, 0.01, -1.0) == pytest.approx(0.00377541, abs=1e-8)
    assert spent_hwang_shih_decani(0.5, 0.01, 0.0) == 0.005
    assert spent_hwang_shih_decani(1.0, 0.01, -1.0) == pytest.approx(0.01)
    assert spent_pocock(1.0, 0.05) == pytest.approx(0.05)


def test_the_stated_error_is_the_error_of_simulated_paths():
    looks = np.array([0.1, 0.15, 0.4, 0.45, 0.8, 1.0])
    spent = [spent_hwang_shih_decani(t, 0.05, -1.0) for t in looks]
    limits = np.array(critical_values(looks.tolist(), spent))
    rng = np.random.default_rng(7)
    steps = rng.normal(size=(200_000, 6)) * np.sqrt(np.diff(looks, prepend=0.0))
    z = np.cumsum(steps, axis=1) / np.sqrt(looks)

    crossed = np.maximum.accumulate(z >= limits, axis=1).mean(axis=0)

    assert crossed == pytest.approx(spent, abs=0.002)


@unhurried
@given(st.floats(0.001, 0.2), st.floats(-4.0, 4.0), st.lists(st.floats(0.01, 1), min_size=1))
def test_more_error_asks_for_less_evidence(total, gamma, steps):
    information = (np.cumsum(steps) / np.sum(steps)).tolist()

    def first(error):
        spent = [spent_hwang_shih_decani(t, error, gamma) for t in information[:3]]
        return critical_values(information[:3], spent)[0]

    assert first(total) < first(total / 2)


@pytest.mark.parametrize(
    ("information", "spent"),
    [((), ()), ((0.5, 0.5), (0.01, 0.02)), ((0.5, 1.0), (0.02, 0.01)), ((0.5,), (0.1, 0.2))],
)
def test_looks_that_do_not_advance_are_refused(information, spent):
    with pytest.raises(ValueError, match="must increase"):
        critical_values(information, spent)
