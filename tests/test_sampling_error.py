"""Intervals of percentiles, against sums by hand and against the binomial law itself."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.assess.sampling_error import latency_intervals, of_clusters, of_independent
from pytest_joules.report.text import sampled

QUANTILES = (0.5, 0.9, 0.95, 0.99)


def clusters(*values):
    return [np.array(each, dtype=float) for each in values]


@pytest.mark.parametrize(
    ("number", "q", "expected"),
    [
        # Medians: 2 x 0.5**5 = 6.3 % lie all on one side, 2 x 0.5**6 = 3.1 %.
        pytest.param(5, 0.5, (0.0, None), id="five-cannot-bound-a-median"),
        pytest.param(6, 0.5, (1.0, 6.0), id="six-can"),
        # 1 + 16 + 120 + 560 = 697 of 65536 are 1.1 % of samples, 1820 more would be 3.8 %.
        pytest.param(16, 0.5, (4.0, 13.0), id="median-of-16"),
        # 0.99**16 = 85 %; 14 or fewer are below in 1.1 %, as 16 * 0.01 * 0.99**15 = 13.8 %.
        pytest.param(16, 0.99, (15.0, None), id="p99-of-16"),
        # 0.99**367 = 2.501 %, 0.99**368 = 2.476 %
        pytest.param(367, 0.99, (359.0, None), id="p99-of-367"),
        pytest.param(368, 0.99, (360.0, 368.0), id="p99-of-368"),
        pytest.param(1, 0.5, (0.0, None), id="median-of-one"),
        pytest.param(1, 0.99, (1.0, None), id="one-is-seldom-above-p99"),
    ],
)
def test_independent_values_by_hand(number, q, expected):
    low, high = of_independent(range(1, number + 1), q)

    assert (low, high) == expected


@given(number=st.integers(3, 80), q=st.sampled_from(QUANTILES))
def test_ranks_are_those_of_the_binomial_law(number, q):
    """The best ranks with at most 2.5 % on each side, summed term by term."""
    share = [comb(number, k) * q**k * (1 - q) ** (number - k) for k in range(number + 1)]
    ranks = range(1, number + 1)
    low = max((r for r in ranks if sum(share[:r]) <= 0.025), default=0.0)
    high = min((r for r in ranks if sum(share[r:]) <= 0.025), default=None)

    assert of_independent(ranks, q) == (low, high)


def test_gaps_that_are_the_requests_count_as_the_requests():
    """Sixteen requests, each of ten equal gaps.

    Eight lie below the median 8 (with it) and eight above: each is 5 gaps from the half of its
    10, so the variance of the share is 16/15 * 16 * 25 / 160**2 = 1/60 and the effective
    number 15 before, 15 * (1.975 / 2.131)**2 = 12.9 after Student's factors. Of that many the
    3rd and the 11th enclose the median: of 13, 92 of 8192 lie beyond each (1.1 %). They are
    gaps 3 / 12.9 * 160 = 37 and 11 / 12.9 * 160 = 137, of the 4th and the 14th request.
    """
    requests = clusters(*([i] * 10 for i in range(1, 17)))

    assert of_clusters(requests, [0.5]) == [(4.0, 14.0)]


def test_gaps_alike_in_all_requests_count_one_by_one():
    alike = clusters(*([i + j / 16 for i in range(100)] for j in range(16)))
    pooled = np.concatenate(alike)

    assert of_clusters(alike, [0.5]) == [of_independent(pooled, 0.5)]


def test_a_tail_counts_for_no_more_than_the_median():
    """Half of the requests are slow; the few longest gaps are spread evenly over all."""
    body = clusters(
        *([1.0 + i % 2 + j / 1000 for j in range(97)] + [9.0] * 3 for i in range(16))
    )

    median, p99 = of_clusters(body, (0.5, 0.99))

    assert median[0] < 1.1
    assert median[1] > 2.0
    assert p99[1] is None


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        pytest.param([], None, id="no-request"),
        pytest.param([[1.0, 2.0, 3.0] * 200], (0.0, None), id="one-request"),
        pytest.param([[1.0], [2.0]], (0.0, None), id="fewer-than-needed"),
        pytest.param([[2.0] * 50] * 16, (2.0, 2.0), id="all-equal"),
    ],
)
def test_boundaries(gaps, expected):
    assert of_clusters(clusters(*gaps), [0.5]) == [expected]


def test_no_sample_has_no_intervals():
    assert latency_intervals([(), ()], []) is None
    assert of_independent([], 0.5) is None


def test_each_percentile_has_its_own():
    found = latency_intervals([(1.0, 2.0) * 40, (), (2.0, 3.0) * 40], range(1, 17))

    assert (found.num_itl_requests, found.num_ttft_requests) == (2, 16)
    assert found.median_itl_s == (0.0, None)
    assert found.median_ttft_s == (4.0, 13.0)
    assert found.p99_ttft_s == (15.0, None)


durations = st.floats(1e-4, 1e3)
samples = st.lists(st.lists(durations, min_size=1, max_size=40), min_size=1, max_size=20)


@given(sample=samples)
def test_an_interval_holds_the_estimate(sample):
    pooled = np.concatenate(clusters(*sample))
    for q, (low, high) in zip(
        QUANTILES, of_clusters(clusters(*sample), QUANTILES), strict=True
    ):
        assert low <= np.quantile(pooled, q)
        assert high is None or np.quantile(pooled, q) <= high
        exact_low, exact_high = of_independent(pooled, q)
        assert exact_low <= np.quantile(pooled, q)
        assert exact_high is None or np.quantile(pooled, q) <= exact_high


@given(sample=samples, power=st.integers(-8, 8))
def test_an_interval_is_in_the_unit_of_its_values(sample, power):
    factor = 2.0**power  # exact in binary
    scaled = of_clusters([factor * each for each in clusters(*sample)], QUANTILES)

    for (low, high), (was_low, was_high) in zip(
        scaled, of_clusters(clusters(*sample), QUANTILES), strict=True
    ):
        assert low == factor * was_low
        assert high == (None if was_high is None else factor * was_high)


@given(sample=samples, data=st.data())
def test_the_order_of_requests_and_gaps_does_not_matter(sample, data):
    shuffled = [data.draw(st.permutations(each)) for each in data.draw(st.permutations(sample))]

    again, found = (of_clusters(clusters(*each), QUANTILES) for each in (shuffled, sample))
    for (low, high), (was_low, was_high) in zip(again, found, strict=True):
        assert low == was_low
        assert high == was_high


@pytest.mark.parametrize(
    ("value_s", "interval", "expected"),
    [
        (None, None, ""),
        (0.02, None, "20.0 ms"),
        (0.02, (0.01, 0.03), "20.0 ms (10.0 ms to 30.0 ms)"),
        (1.5, (0.0, None), "1.50 s (0 s or more)"),
    ],
)
def test_a_percentile_is_told_with_its_error(value_s, interval, expected):
    assert sampled(value_s, interval) == expected
