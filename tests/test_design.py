"""Designs: what may be asked, the order of launches, and what can be found."""

import math
import re

import pytest
from scipy.stats import norm

from pytest_joules.errors import ConfigurationError
from pytest_joules.gate.design import (
    Design,
    detectable_change,
    known_noise,
    looks,
    order,
    require_tolerance,
    variance,
)
from pytest_joules.gate.launch_value import PooledNoise


@pytest.mark.parametrize(
    "wrong",
    [
        {"tolerance": 0.0},
        {"tolerance": -0.03},
        {"tolerance": math.nan},
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"beta": 1.0},
        {"prior_sd": 0.0},
        {"session_sd": math.inf},
        {"max_launches": 1},
        {"max_pairs": 0},
    ],
    ids=str,
)
def test_a_design_that_promises_nonsense_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Design(**wrong)


@pytest.mark.parametrize(
    ("num_baseline", "has_old", "expected"),
    [
        pytest.param(8, True, "BBBBABABAB", id="baseline"),
        pytest.param(3, True, "BBBBABABAB", id="three-suffice"),
        pytest.param(2, True, "BABABABABA", id="two-do-not"),
        pytest.param(1, True, "BABABABABA", id="one-launch"),
        pytest.param(0, True, "ABBAABBA", id="side-by-side"),
        pytest.param(8, False, "BBBBBBBBBB", id="no-old-stack"),
        pytest.param(1, False, "BBBBBBBBBB", id="one-launch-and-no-old-stack"),
        pytest.param(0, False, "", id="nothing"),
    ],
)
def test_the_order_of_launches(num_baseline, has_old, expected):
    design = Design(max_launches=10, max_pairs=4)

    assert order(design, num_baseline, has_old=has_old) == expected


def test_the_variance_worked_by_hand():
    """s2 = 2.2e-4, k = 4, ss2 = 2.5e-5: 1.1e-4 + (5.5e-5 + 2.5e-5) = 1.9e-4."""
    v = variance(Design(), 2.2e-4, num_baseline=4, num_old=0, num_new=2)

    assert v == pytest.approx(1.9e-4)


def test_without_a_baseline_the_variance_is_that_of_two_means():
    v = variance(Design(), 4e-4, num_baseline=0, num_old=2, num_new=4)

    assert v == pytest.approx(4e-4 / 2 + 4e-4 / 4)


def test_every_look_follows_the_order_and_spends_less_than_everything():
    design = Design()

    every = looks(design, 8, has_old=True)

    assert [(x.num_old, x.num_new) for x in every[:6]] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (1, 4),
        (1, 5),
    ]
    assert len(every) == design.max_launches
    assert all(0 < look.p_change < design.alpha for look in every)
    assert all(0 < look.p_unchanged < design.beta for look in every)


def test_pairs_have_their_first_look_after_one_of_each():
    every = looks(Design(max_pairs=2), 0, has_old=True)

    assert [(x.num_old, x.num_new) for x in every] == [(1, 1), (1, 2), (2, 2)]


def test_one_look_has_the_whole_error():
    design = Design(max_pairs=1)

    (only,) = looks(design, 0, has_old=True)

    assert only.p_change == pytest.approx(design.alpha, rel=1e-6)
    assert only.p_unchanged == pytest.approx(design.beta, rel=1e-6)


def test_dividing_alpha_leaves_the_rest():
    assert Design(alpha=0.01).divided(50) == Design(alpha=0.0002)
    assert Design().divided(0) == Design()


def test_the_detectable_change_by_the_normal_formula():
    """Two means of one launch each, sd 1 %: sqrt(2) % times the two normal quantiles."""
    design = Design(max_pairs=1, alpha=0.01)
    (only,) = looks(design, 0, has_old=True)

    found = detectable_change(design, only, num_baseline=0, launch_sd=0.01, df=1e9)

    quantiles = norm.isf(0.01) + norm.ppf(0.95)
    assert found == pytest.approx(math.expm1(quantiles * 0.01 * math.sqrt(2)), rel=1e-6)


def test_noise_without_measure_hides_any_rise_and_overflows_nowhere():
    """e to the power of 4,000 is no number of a machine any more."""
    design = Design(max_pairs=1, alpha=0.01)
    (only,) = looks(design, 0, has_old=True)

    found = detectable_change(design, only, num_baseline=0, launch_sd=1e3, df=1e9)

    assert found == math.inf


def test_a_tolerance_below_what_can_be_told_apart_is_refused_with_the_number():
    design = Design(tolerance=0.01)
    last = looks(design, 8, has_old=True)[-1]
    # 10 old and 14 new launches to come know the noise by 9 + 13 more degrees of freedom.
    assert (last.num_old, last.num_new) == (10, 14)
    smallest = detectable_change(design, last, num_baseline=8, launch_sd=0.03, df=42)

    with pytest.raises(ConfigurationError, match=f"{smallest:.1%}"):
        require_tolerance(design, num_baseline=8, has_old=True, launch_sd=0.03, df=20)


def refused(launch_sd):
    noise = {"has_old": False, "launch_sd": launch_sd}
    with pytest.raises(ConfigurationError) as caught:
        require_tolerance(Design(), num_baseline=8, df=8, **noise)
    return str(caught.value)


def test_the_refusal_names_the_smallest_baseline_that_would_do():
    """The number it names is accepted, and the next smaller one that it tries is not."""
    told = refused(launch_sd=0.0095)
    size = int(re.search(r"about (\d+) launches at this noise \(now 8\)", told)[1])
    design, noise = Design(), {"has_old": False, "launch_sd": 0.0095}

    require_tolerance(design, num_baseline=size, df=size, **noise)
    with pytest.raises(ConfigurationError):
        require_tolerance(design, num_baseline=size * 2 // 3, df=size * 2 // 3, **noise)


def test_the_refusal_does_not_promise_what_no_baseline_gives():
    assert "a baseline of 64 launches, now 8, would not do" in refused(launch_sd=0.05)


def test_a_tolerance_that_can_be_told_apart_is_accepted():
    require_tolerance(Design(), num_baseline=8, has_old=True, launch_sd=0.01, df=20)
    require_tolerance(Design(), num_baseline=0, has_old=False, launch_sd=9.0, df=1)


def test_history_moves_the_prior_worked_by_hand():
    """(1 x 2.25e-4 + 76e-4) / 20 = 3.9125e-4."""
    design = known_noise(
        Design(prior_sd=0.015, prior_df=1.0), PooledNoise(sum_squares=76e-4, df=19.0)
    )

    assert design.prior_sd == pytest.approx(math.sqrt(3.9125e-4))
    assert design.prior_df == 20.0


def test_history_weighs_no_more_than_its_limit():
    noise = PooledNoise(sum_squares=1.0, df=1e4)

    assert known_noise(Design(), noise, max_df=60).prior_df == 60
    assert known_noise(Design(), PooledNoise()) == Design()
