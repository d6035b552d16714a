"""What a comparison promises, and the looks that follow from it.

A ``Design`` holds every number a verdict depends on besides the data. ``looks`` turns it
into the order of launches and the critical value of each look.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pytest_joules.errors import ConfigurationError
from pytest_joules.gate.boundaries import (
    critical_values,
    spent_hwang_shih_decani,
    spent_pocock,
)
from pytest_joules.gate.distributions import normal_cdf, student_quantile
from pytest_joules.gate.launch_value import PooledNoise

OLD, NEW = "A", "B"
SMALL_BASELINE = 2
"""Stored launches that are too few to start from."""

_BEYOND = 700.0  # its exponential is no number any more; nothing measured scatters so
FOUND = 0.95
"""How surely the quoted detectable change would have been found."""


_COIN = 0.5


@dataclass(frozen=True, kw_only=True)
class Design:
    """Error rates, tolerance, noise known beforehand and budget of one comparison.

    Raises:
        ConfigurationError: A number is out of range; the message has value and remedy.
    """

    tolerance: float = 0.03
    """Relative rise that must be found; a rise proven smaller is ``unchanged``."""

    alpha: float = 0.006
    """Bound on the chance of ``regression`` when nothing changed, and as much for
    ``improvement``. About half of it is used up, because ``unchanged`` stops most runs."""

    beta: float = 0.038
    """Bound on the chance of ``unchanged`` when energy rose by the tolerance."""

    prior_sd: float = 0.015
    """Noise between launches, in ln, assumed before any is seen: ``s0``."""

    prior_df: float = 1.0
    """How many degrees of freedom that assumption is worth: ``d0``."""

    session_sd: float = 0.005
    """Noise between sessions, in ln: ``ss``."""

    min_launches_red: int = 2
    """New launches before a change is called: the first finding is confirmed afresh."""

    max_launches: int = 24
    """Launches of one comparison with a baseline, both stacks together."""

    max_pairs: int = 12
    """Pairs of launches without a usable baseline."""

    max_repeats: int = 4
    """Launches set aside as disturbed before the comparison is given up."""

    gamma: float = 1.0
    """Hwang-Shih-DeCani parameter of ``alpha``'s spending: 1 spends early, -1 late. Early
    finds a rise with fewer launches; the second launch keeps one alone from being red."""

    def __post_init__(self) -> None:
        for name in ("tolerance", "alpha", "beta", "prior_sd", "prior_df", "session_sd"):
            _require_positive(name, getattr(self, name))
        for name in ("alpha", "beta"):
            if getattr(self, name) >= _COIN:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r}: give an error rate below 0.5."
                )
        if self.max_launches < self.min_launches_red or self.max_pairs < 1:
            raise ConfigurationError(
                f"max_launches={self.max_launches}, max_pairs={self.max_pairs}: at least "
                f"{self.min_launches_red} launches and one pair are needed for a verdict."
            )

    @property
    def delta(self) -> float:
        """The tolerance in ln."""
        return math.log1p(self.tolerance)

    def divided(self, num_comparisons: int) -> "Design":
        """Share alpha over the comparisons of a session (Bonferroni).

        The chance that any comparison of the session is falsely red stays below alpha,
        whatever their dependence and however each one is stopped. Passing alpha on from
        rejected comparisons (Maurer & Bretz, Multiple testing in group sequential trials
        using graphical approaches, 2013) would keep it too, but helps only after a first
        red, when the session is red already; Holm's procedure needs all p-values at one
        moment, which sequential stopping does not give.
        """
        return replace(self, alpha=self.alpha / max(1, num_comparisons))


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name}={value!r}: give a number above 0.")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One moment of decision: how many launches there are, and what each error may be."""

    num_old: int
    num_new: int
    p_change: float
    """One-sided level of ``regression`` and of ``improvement``."""

    p_unchanged: float
    """One-sided level of ``unchanged``, and of each bound of the interval."""


def order(design: Design, num_baseline: int, *, has_old: bool) -> str:
    """Return the launches of a comparison in order, ``A`` old and ``B`` new.

    With a baseline four new launches come first, then pairs; a baseline of one or two
    launches is too little to start from and none at all leaves only pairs, in the order
    ABBA so that a linear drift cancels. Without an old stack all launches are new.
    """
    if not has_old:
        return NEW * design.max_launches if num_baseline else ""
    if num_baseline == 0:
        return ("ABBA" * design.max_pairs)[: 2 * design.max_pairs]
    lead = NEW * 4 if num_baseline > SMALL_BASELINE else NEW
    return (lead + (OLD + NEW) * design.max_launches)[: design.max_launches]


def variance(
    design: Design, launch_variance: Any, *, num_baseline: int, num_old: int, num_new: int
) -> Any:
    """Return the variance of the estimated change, for a number or an array of them."""
    between = design.session_sd**2
    weight = (
        num_baseline / (launch_variance + num_baseline * between) + num_old / launch_variance
    )
    return launch_variance / num_new + 1 / weight


@cache
def looks(design: Design, num_baseline: int, *, has_old: bool) -> tuple[Look, ...]:
    """Return every look of a comparison, in order.

    Information is counted as if launches varied by ``prior_sd``, so that the boundaries do
    not depend on the data.

    Source:
        Jennison & Turnbull 2000, section 11.5: significance levels of a known-variance
        design applied to t statistics.
    """
    counts = _counts(order(design, num_baseline, has_old=has_old), num_baseline)
    if not counts:
        return ()
    planned = [
        variance(design, design.prior_sd**2, num_baseline=num_baseline, num_old=a, num_new=b)
        for a, b in counts
    ]
    information = [planned[-1] / v for v in planned]
    change = critical_values(
        information,
        [spent_hwang_shih_decani(t, design.alpha, design.gamma) for t in information],
    )
    same = critical_values(information, [spent_pocock(t, design.beta) for t in information])
    return tuple(
        Look(
            num_old=a,
            num_new=b,
            p_change=float(normal_cdf(-c)),
            p_unchanged=float(normal_cdf(-s)),
        )
        for (a, b), c, s in zip(counts, change, same, strict=True)
    )


def _counts(sequence: str, num_baseline: int) -> list[tuple[int, int]]:
    counts = [
        (sequence[: i + 1].count(OLD), sequence[: i + 1].count(NEW))
        for i in range(len(sequence))
    ]
    return [(a, b) for a, b in counts if b and (a or num_baseline)]


def detectable_change(
    design: Design, look: Look, *, num_baseline: int, launch_sd: float, df: float
) -> float:
    """Return the rise that would be found 95 times in 100 at this look.

    Args:
        design: The comparison.
        look: Usually the last one.
        num_baseline: Stored launches of the same GPU.
        launch_sd: Noise between launches, in ln.
        df: Degrees of freedom of that noise.
    """
    v = variance(
        design,
        launch_sd**2,
        num_baseline=num_baseline,
        num_old=look.num_old,
        num_new=look.num_new,
    )
    quantiles = -float(student_quantile(df, look.p_change)) + float(student_quantile(df, FOUND))
    log_rise = quantiles * math.sqrt(v)
    return relative(log_rise)


def relative(log_change: float) -> float:
    """Return a logarithmic change as a relative one; infinity where no float could hold it."""
    return math.expm1(log_change) if log_change < _BEYOND else math.inf


def planned_detectable(
    design: Design, *, num_baseline: int, has_old: bool, launch_sd: float, df: float
) -> float:
    """Return the rise that the whole budget finds 95 times in 100, before it is spent.

    Args:
        design: The comparison, with alpha undivided: what can be told apart should not
            depend on which other tests are selected.
        num_baseline: Stored launches of the same GPU.
        has_old: Whether an old stack can be launched.
        launch_sd: Noise between launches, in ln.
        df: Degrees of freedom of that noise; the launches to come add theirs.
    """
    last = looks(design, num_baseline, has_old=has_old)[-1]
    to_come = max(last.num_old - 1, 0) + max(last.num_new - 1, 0)
    return detectable_change(
        design, last, num_baseline=num_baseline, launch_sd=launch_sd, df=df + to_come
    )


def require_tolerance(
    design: Design, *, num_baseline: int, has_old: bool, launch_sd: float, df: float
) -> None:
    """Refuse a tolerance below what the whole budget could tell apart.

    Raises:
        ConfigurationError: With the smallest rise that could be found.
    """
    every = looks(design, num_baseline, has_old=has_old)
    if not every:
        return
    smallest = planned_detectable(
        design, num_baseline=num_baseline, has_old=has_old, launch_sd=launch_sd, df=df
    )
    if smallest > design.tolerance:
        needed = math.ceil(1000 * smallest) / 1000  # rounded down it would be refused, too
        enough = _enough(design, num_baseline, has_old=has_old, launch_sd=launch_sd, df=df)
        advice = "" if has_old else ", or compare side by side with --joules-against"
        raise ConfigurationError(
            f"tolerance={design.tolerance:.1%}: launches of this point vary by "
            f"{launch_sd:.1%}, so {every[-1].num_old + every[-1].num_new} launches find a "
            f"rise of {needed:.1%} 95 times in 100, and none smaller. Use a tolerance of at "
            f"least {needed:.1%}, a longer window, {enough}{advice}."
        )


_SIZES = (8, 12, 16, 24, 32, 48, 64)
"""Baselines that are proposed where the noise of a smaller one is too little known."""


def _enough(
    design: Design, num_baseline: int, *, has_old: bool, launch_sd: float, df: float
) -> str:
    """Say which baseline would allow the tolerance, were its noise that of the present one.

    Each stored launch adds a degree of freedom, and the assumed prior fades.
    """
    for size in (size for size in _SIZES if size > num_baseline):
        smallest = planned_detectable(
            design,
            num_baseline=size,
            has_old=has_old,
            launch_sd=launch_sd,
            df=df + size - num_baseline,
        )
        if smallest <= design.tolerance:
            return f"a baseline of about {size} launches at this noise (now {num_baseline})"
    return f"less noise (a baseline of {_SIZES[-1]} launches, now {num_baseline}, would not do)"


def known_noise(design: Design, history: PooledNoise, *, max_df: float = 60) -> Design:
    """Return the design with the noise of other points' baselines as its prior.

    The prior is worth at most ``max_df`` degrees of freedom: other points are alike, not
    equal. The point's own baseline must not be in ``history``; it is counted by itself.
    """
    total = design.prior_df + history.df
    squares = design.prior_df * design.prior_sd**2 + history.sum_squares
    return replace(design, prior_sd=math.sqrt(squares / total), prior_df=min(total, max_df))
