"""How far a sample's percentiles may lie from those of all requests: distribution-free.

Only a sample of a load's requests streams, so latencies between tokens and to the first token
are known of these alone. An interval here says where the percentile of *all* requests of this
launch lies. It does not say how much the next launch will differ.

Of independent values, as first-token latencies of different requests are taken to be, two
order statistics enclose the percentile ``q`` by the binomial law, exactly and whatever the
distribution. The gaps between one request's tokens resemble each other, so there the values
are counted as fewer than they are: as many independent ones as would make the share below the
percentile as uncertain as it is seen to be from request to request.

A sample too small to enclose the percentile says so: the upper bound is ``None``, the lower
one 0 s.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, stdtrit

from pytest_joules.intervals import Interval, LatencyIntervals

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2

Values = NDArray[np.float64]


def latency_intervals(
    gaps_s: Sequence[Sequence[float]], firsts_s: Sequence[float]
) -> LatencyIntervals | None:
    """Return the intervals of all percentiles of a ``Latency``; ``None`` without a sample.

    Args:
        gaps_s: Inter-token latencies, a sequence for each request.
        firsts_s: Times to the first token, one for each request.
    """
    known = [np.asarray(each, dtype=float) for each in gaps_s if len(each)]
    if not known and not len(firsts_s):
        return None
    median, p90, p95, p99 = of_clusters(known, (0.5, 0.9, 0.95, 0.99))
    return LatencyIntervals(
        num_itl_requests=len(known),
        num_ttft_requests=len(firsts_s),
        median_itl_s=median,
        p90_itl_s=p90,
        p95_itl_s=p95,
        p99_itl_s=p99,
        median_ttft_s=of_independent(firsts_s, 0.5),
        p99_ttft_s=of_independent(firsts_s, 0.99),
    )


def of_independent(values: Sequence[float], q: float) -> Interval | None:
    """Return the exact interval of a quantile; ``None`` without values.

    >>> of_independent([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], 0.5)  # 2 x 0.5**6 = 3.1 % outside
    (1.0, 6.0)
    >>> of_independent(range(1, 17), 0.99)  # 0.99**16 = 85 % lie all below it
    (15.0, None)

    Source:
        W. J. Conover, Practical Nonparametric Statistics, 3rd edition, section 3.2.
    """
    return _between(np.sort(np.asarray(values, dtype=float)), q, float(len(values)))


def of_clusters(
    clusters: Sequence[Values], quantiles: Sequence[float]
) -> list[Interval | None]:
    """Return an interval for each quantile of the pooled values; ``None`` without values.

    No cluster may be empty. Order statistics of the effective number of values, of which a
    quantile has never more than the median: in a tail few clusters tell how much clusters
    differ, and those that would tell most may be missing
    (``tests/perf/percentile_coverage.py``). Of one cluster nothing is known about others: it
    bounds nothing.

    Source:
        E. L. Korn and B. I. Graubard, Confidence intervals for proportions with small expected
        number of positive counts estimated from survey data, Survey Methodology 24 (1998)
        193-201, inverted as by R. S. Woodruff, Confidence intervals for medians and other
        position measures, JASA 47 (1952) 635-646. The limit by the median's number is our own,
        chosen by simulation.
    """
    if not clusters:
        return [None] * len(quantiles)
    if len(clusters) == 1:
        return [(0.0, None)] * len(quantiles)
    ordered = np.sort(np.concatenate(clusters))
    sizes = [_effective_size(clusters, ordered, q) for q in (0.5, *quantiles)]
    return [
        _between(ordered, q, min(size, sizes[0]))
        for q, size in zip(quantiles, sizes[1:], strict=True)
    ]


def _effective_size(clusters: Sequence[Values], ordered: Values, q: float) -> float:
    """Return how many independent values tell as much of a quantile as two or more clusters.

    ``q (1 - q)`` over the linearised variance of the share below the quantile, times the
    squared ratio of Student's factors that pays for a variance from few clusters; never more
    than there are values. Values equal to the quantile are split, so that ``q`` of all lie
    below it.
    """
    sizes = np.array([len(each) for each in clusters], dtype=float)
    starts = np.cumsum(sizes, dtype=int) - sizes.astype(int)
    values, total, number = np.concatenate(clusters), float(len(ordered)), len(clusters)
    point = _at(ordered, q * total)
    below = np.add.reduceat(values < point, starts, dtype=float)
    equal = np.add.reduceat(values == point, starts, dtype=float)
    below += equal * (q * total - below.sum()) / equal.sum()
    variance = number / (number - 1) * np.sum((below - q * sizes) ** 2) / total**2
    student = stdtrit(total - 1, 1 - _TAIL) / stdtrit(number - 1, 1 - _TAIL)
    known = q * (1 - q) * student**2
    return float(known / variance) if variance * total > known else total


def _between(ordered: Values, q: float, size: float) -> Interval | None:
    """Return two of the ordered values, which count as ``size`` independent ones."""
    if not len(ordered):
        return None
    first, last = _ranks(q, size)
    each = len(ordered) / size
    low = 0.0 if first is None else _at(ordered, math.floor(first * each))
    high = None if last is None else _at(ordered, last * each)
    # Of very few effective values the lower one may pass the percentile itself.
    point = float(np.quantile(ordered, q))
    return min(low, point), None if high is None else max(high, point)


def _ranks(q: float, size: float) -> tuple[int | None, int | None]:
    """Return the ranks of an interval's ends; ``None`` where too few values bound it.

    The lower is the greatest that is above the quantile in at most 2.5 % of samples, the upper
    the least that is below it. The beta function goes on with the binomial law between whole
    sizes.
    """
    ranks = np.arange(1, int(size) + 1)
    is_below = betainc(ranks, size - ranks + 1, q)
    firsts, lasts = ranks[1 - is_below <= _TAIL], ranks[is_below <= _TAIL]
    return (int(firsts[-1]) if len(firsts) else None, int(lasts[0]) if len(lasts) else None)


def _at(ordered: Values, rank: float) -> float:
    return float(ordered[min(max(math.ceil(rank), 1), len(ordered)) - 1])
