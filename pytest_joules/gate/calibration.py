"""A stack against itself: what a baseline's launches say about the gate's errors here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from statistics import median
from typing import Any

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.gate import judge
from pytest_joules.gate.design import Design, known_noise, planned_detectable
from pytest_joules.gate.launch_value import LaunchValue, pooled_noise
from pytest_joules.gate.launches import Launches
from pytest_joules.verdict import Verdict

__tracebackhide__ = is_expected

FEWEST = 4
"""Launches that a calibration needs at least; eight and more say something."""

MOST_NEW = 4
"""Launches of a split that play the new stack: what a verdict usually takes."""

MOST_SPLITS = 500
"""More are thinned out evenly; they say little that is new."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Noise, false alarms and detectable change of one point on one board."""

    tolerance: float
    num_launches: int
    """Launches that it rests on."""

    window_sd: float | None
    """Median relative standard deviation of the sub-windows; ``None`` without series."""

    launch_sd: float
    """Noise between launches, in ln."""

    launch_df: float
    num_splits: int
    """Ways to call some of the launches new that were judged; they share launches, so they
    are not so many independent trials."""

    num_false_alarms: int
    """Splits judged ``regression`` or ``improvement``, though nothing changed."""

    num_undecided: int
    """Splits whose launches were not enough to tell."""

    detectable_change: float
    """Rise that the whole budget finds 95 times in 100 against this baseline."""

    detectable_change_beside_old: float
    """The same where the old stack can be launched beside the new one."""

    def as_json(self) -> dict[str, float | None]:
        """Return it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Calibration":
        """Rebuild it; unknown or missing keys raise ``TypeError``."""
        return cls(**{"window_sd": None, **values})


def calibrate(launches: Sequence[LaunchValue], design: Design) -> Calibration:
    """Judge launches of one point, stack and board against each other.

    Raises:
        ConfigurationError: There are fewer than ``FEWEST``.
    """
    counted = [value for value in launches if value.is_finite and not value.must_repeat]
    if len(counted) < FEWEST:
        raise ConfigurationError(
            f"{len(counted)} launches that count are too few to calibrate with; measure at "
            f"least {FEWEST} (--joules-launches), better 8 and more."
        )
    verdicts = [_verdict(old, new, design) for old, new in splits(counted)]
    noise = pooled_noise([counted])
    known = known_noise(design, noise)
    spreads = [value.spread for value in counted if value.spread is not None]
    return Calibration(
        tolerance=design.tolerance,
        num_launches=len(counted),
        window_sd=median(spreads) if spreads else None,
        launch_sd=math.sqrt(noise.sum_squares / noise.df),
        launch_df=noise.df,
        num_splits=len(verdicts),
        num_false_alarms=sum(
            verdict in (Verdict.REGRESSION, Verdict.IMPROVEMENT) for verdict in verdicts
        ),
        num_undecided=verdicts.count(None),
        detectable_change=_detectable(known, len(counted), has_old=False),
        detectable_change_beside_old=_detectable(known, len(counted), has_old=True),
    )


def _detectable(known: Design, number: int, *, has_old: bool) -> float:
    return planned_detectable(
        known,
        num_baseline=number,
        has_old=has_old,
        launch_sd=known.prior_sd,
        df=known.prior_df,
    )


def splits(
    launches: Sequence[LaunchValue],
) -> list[tuple[list[LaunchValue], list[LaunchValue]]]:
    """Return ways to call some launches stored and the others new, each in order of time."""
    number = len(launches)
    num_new = min(MOST_NEW, number // 2)
    step = max(1, math.ceil(math.comb(number, num_new) / MOST_SPLITS))
    chosen = islice(combinations(range(number), num_new), 0, None, step)
    return [
        (
            [launches[i] for i in range(number) if i not in new],
            [launches[i] for i in new],
        )
        for new in chosen
    ]


def _verdict(
    old: Sequence[LaunchValue], new: Sequence[LaunchValue], design: Design
) -> Verdict | None:
    """Judge launch by launch, as a session does; ``None`` where all are not enough."""
    for count in range(1, len(new) + 1):
        verdict = judge(Launches(baseline=old, new=new[:count]), design).verdict
        if verdict is not None:
            return verdict
    return None
