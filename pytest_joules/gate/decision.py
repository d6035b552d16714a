"""The rule of the verdict: a change, its variance, and what may be said of it.

Every function takes numbers or arrays alike, so the experiments of ``tests/perf`` run the
rule that users get. ``gate.judge`` wraps it for one comparison.

Source:
    Jennison & Turnbull, Group Sequential Methods (2000); DESIGN, section 7.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_joules.gate.design import Design, Look, variance
from pytest_joules.gate.distributions import student_quantile

Number = Any
"""A float, or an array of them in experiments."""

GROWN = 1.5
"""Ratio from which noise counts as grown: of variances between launches, or of the spread
inside windows."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Counts, means and sums of squares of one comparison's launches, in ln."""

    num_baseline: int
    num_old: int
    num_new: int
    mean_baseline: Number = 0.0
    mean_old: Number = 0.0
    mean_new: Number = 0.0
    squares_baseline: Number = 0.0
    squares_old: Number = 0.0
    squares_new: Number = 0.0
    spread_ratio: Number = 1.0
    """Spread inside this session's windows over that inside the baseline's."""

    squares_elsewhere: Number = 0.0
    """Sum of squares of this session's launches of other points, about each one's mean."""

    df_elsewhere: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The change in ln, and how well it is known."""

    change: Number
    launch_variance: Number
    variance: Number
    """Of ``change``."""

    cautious_variance: Number
    """The same with the noise of this session where that has grown."""

    df: float


def estimate(sums: Sums, design: Design) -> Estimate:
    """Estimate the change and its variance from what is there.

    The variance between launches is pooled over baseline, old and new launches with a
    prior. Two checks guard the pooling: where the spread inside windows has grown, it is
    scaled with it; where this session's launches vary more than the pool, a change must be
    shown against their variance.
    """
    own_df = max(sums.num_old - 1, 0) + max(sums.num_new - 1, 0)
    df = design.prior_df + max(sums.num_baseline - 1, 0) + own_df
    own = sums.squares_old + sums.squares_new
    pooled = (design.prior_df * design.prior_sd**2 + sums.squares_baseline + own) / df
    pooled = pooled * np.where(sums.spread_ratio > GROWN, sums.spread_ratio, 1.0) ** 2
    seen = (own + sums.squares_elsewhere) / np.maximum(own_df + sums.df_elsewhere, 1.0)
    cautious = np.where(seen > GROWN * pooled, seen, pooled)
    return Estimate(
        change=sums.mean_new - _reference(sums, design, pooled),
        launch_variance=pooled,
        variance=_variance(sums, design, pooled),
        cautious_variance=_variance(sums, design, cautious),
        df=df,
    )


def _reference(sums: Sums, design: Design, launch_variance: Number) -> Number:
    k = sums.num_baseline
    of_baseline = k / (launch_variance + k * design.session_sd**2)
    of_old = sums.num_old / launch_variance
    weighted = of_baseline * sums.mean_baseline + of_old * sums.mean_old
    return weighted / (of_baseline + of_old)


def _variance(sums: Sums, design: Design, launch_variance: Number) -> Number:
    return variance(
        design,
        launch_variance,
        num_baseline=sums.num_baseline,
        num_old=sums.num_old,
        num_new=sums.num_new,
    )


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Which of the three statements the data support at one look."""

    regression: Number
    improvement: Number
    unchanged: Number


def decide(seen: Estimate, look: Look, design: Design) -> Claims:
    """Tell what may be said at this look; at most one claim is true.

    A change is claimed when it is significant, not proven smaller than the tolerance, and
    seen in more than one launch. ``unchanged`` means that a rise by the tolerance is
    excluded and that the estimate is no fall by the tolerance either.
    """
    for_change = -student_quantile(seen.df, look.p_change) * np.sqrt(seen.cautious_variance)
    for_same = half_width(seen, look)
    no_rise = design.delta - seen.change >= for_same
    no_fall = design.delta + seen.change >= for_same
    confirmed = look.num_new >= design.min_launches_red
    up = (seen.change >= for_change) & ~no_rise & confirmed
    down = (-seen.change >= for_change) & ~no_fall & confirmed
    near = (seen.change >= -design.delta) | no_fall
    return Claims(regression=up, improvement=down, unchanged=no_rise & near & ~down)


def half_width(seen: Estimate, look: Look) -> Number:
    """Return half the interval of the change: what ``unchanged`` is judged by."""
    return -student_quantile(seen.df, look.p_unchanged) * np.sqrt(seen.variance)
