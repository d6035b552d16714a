"""The noise model's parameters, fitted to stored launches of a stack that did not change.

What a campaign on a real GPU yields is to replace what ``noise`` assumes: sub-windows and
warming up as ``noise_within`` says; then, of the launches' levels, what launches and sessions
add. Launches of one point on one board are compared with each other only.

Source:
    Intervals of the two variance components: Thomas & Hultquist, Annals of Statistics 6
    (1978), for unequal sessions; Williams, Biometrika 49 (1962), for the sessions' share. Of
    shares: Wilson, Journal of the American Statistical Association 22 (1927).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtri

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.gate.launch_value import (
    CLIP_AT_SIGMAS,
    MAD_TO_SIGMA,
    MAX_CLIPPED_SHARE,
    launch_value,
    worked,
)
from pytest_joules.gate.noise import Noise
from pytest_joules.gate.noise_within import (
    LEVEL,
    NORMAL,
    Array,
    Interval,
    Series,
    Within,
    fit_within,
)
from pytest_joules.result import Result

__tracebackhide__ = is_expected

Mask = NDArray[np.bool_]

FEWEST_LAUNCHES = 4
FEWEST_SUB_WINDOWS = 7
"""Of which the first and the last are left out: the window's edges are read there."""

_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True, kw_only=True)
class Run:
    """One launch of one point, with what says whom it may be compared with."""

    group: tuple[str, ...]
    """Point, stack and boards: only runs of one group have one expected level."""

    session: str
    launch_id: str
    value: float
    """ln of the launch's joules per work unit, as the gate takes it."""

    series: Series


@dataclass(frozen=True, kw_only=True)
class NoiseFit:
    """Fitted parameters, in natural-log units as ``Noise``'s."""

    num_groups: int
    num_launches: int
    num_sessions: int
    launch: Interval | None
    """Between launches of a session, beside what their sub-windows explain; how differently
    they warm up is in it. ``None`` where no session holds two."""

    session: Interval | None
    """Between sessions; ``None`` where no point has runs of two."""

    gate_launch: Interval | None
    """Between launches of a session as the gate sees them, windows' noise included: what
    ``Design.prior_sd`` assumes."""

    within: Within
    outlier_share: Interval
    """Of sub-windows of launches that were not disturbed."""

    incident_share: Interval
    """Of launches: those that the gate would repeat."""

    def noise(self, name: str) -> Noise:
        """Return a scenario of these values, for simulations; what is not known is 0."""
        within = self.within
        return Noise(
            name=name,
            launch=self.launch.value if self.launch else 0.0,
            session=self.session.value if self.session else 0.0,
            sub_window=within.sub_window.value,
            autocorrelation=within.autocorrelation.value,
            thermal=within.thermal.value,
            thermal_spread=within.thermal_spread.value,
            incident_share=self.incident_share.value,
        )


def runs_of(results: Sequence[Result]) -> list[Run]:
    """Return the launches that the fit can use: valid ones with a series that is long."""
    return [run for result in results if (run := _run_of(result)) is not None]


def _run_of(result: Result) -> Run | None:
    evidence, value = result.evidence, launch_value(result)
    if evidence is None or not (result.is_valid and value.is_finite) or value.from_mean:
        return None
    energy_j, units = worked(evidence.series_energy_j, evidence.series_work_units)
    if len(units) < FEWEST_SUB_WINDOWS:
        return None
    context = result.provenance.context
    step_s = evidence.window_s / len(units)
    begun_s = result.timeline.window_start_s if result.timeline else 0.0
    return Run(
        group=(result.point.id, result.gpu, context.stack, *context.gpu_uuids),
        session=context.session,
        launch_id=evidence.launch_id,
        value=value.log_energy,
        series=Series(
            log_x=np.log(energy_j / units),
            time_s=begun_s + step_s * (np.arange(len(units), dtype=np.float64) + 0.5),
        ),
    )


def fit_noise(runs: Sequence[Run]) -> NoiseFit:
    """Fit the noise of launches among which nothing changed.

    Raises:
        ConfigurationError: There are too few.
    """
    inner = [_inner(run) for run in runs]
    outliers = _outliers(inner)
    disturbed = [
        float(found.mean()) > MAX_CLIPPED_SHARE and found.sum() > 1 for found in outliers
    ]
    kept = [i for i, is_off in enumerate(disturbed) if not is_off]
    if len(kept) < FEWEST_LAUNCHES:
        raise ConfigurationError(
            f"{len(kept)} undisturbed launches with at least {FEWEST_SUB_WINDOWS} sub-windows "
            f"are too few to fit noise to; measure {FEWEST_LAUNCHES} and more, better 20."
        )
    calm = [runs[i] for i in kept]
    within = fit_within([_mended(inner[i].series, outliers[i]) for i in kept])
    levels = Levels.of(calm, within.levels)
    return NoiseFit(
        num_groups=len({run.group for run in calm}),
        num_launches=len({run.launch_id for run in calm}),
        num_sessions=len({run.session for run in calm}),
        launch=levels.launch(float(within.level_variances.mean())),
        session=levels.session(),
        gate_launch=Levels.of(calm, np.array([run.value for run in calm])).launch(0.0),
        within=within,
        outlier_share=share(
            sum(int(outliers[i].sum()) for i in kept), sum(len(outliers[i]) for i in kept)
        ),
        incident_share=share(sum(disturbed), len(runs)),
    )


def _inner(run: Run) -> Run:
    series = run.series
    return replace(run, series=Series(log_x=series.log_x[1:-1], time_s=series.time_s[1:-1]))


def _outliers(runs: Sequence[Run]) -> list[Mask]:
    """Mark sub-windows far above their launch's median, by the spread that groups share.

    Above only: what is far below as a launch begins is its warming up.
    """
    away = [run.series.log_x - np.median(run.series.log_x) for run in runs]
    by_group: dict[tuple[str, ...], list[Array]] = {}
    for run, each in zip(runs, away, strict=True):
        by_group.setdefault(run.group, []).append(each)
    limit = {
        group: CLIP_AT_SIGMAS * MAD_TO_SIGMA * float(np.median(np.abs(np.concatenate(each))))
        for group, each in by_group.items()
    }
    return [each > limit[run.group] for run, each in zip(runs, away, strict=True)]


def _mended(series: Series, outlier: Mask) -> Series:
    """Put a line between the neighbours in an outlier's place."""
    good = ~outlier
    log_x = np.interp(series.time_s, series.time_s[good], series.log_x[good])
    return replace(series, log_x=log_x)


def share(count: int, number: int) -> Interval:
    """Return a share with Wilson's interval."""
    z2 = NORMAL**2
    share = count / number
    centre = (share + z2 / (2 * number)) / (1 + z2 / number)
    half = math.sqrt(z2 * (share * (1 - share) / number + z2 / (4 * number**2))) / (
        1 + z2 / number
    )
    low = centre - half if count else 0.0
    return Interval(value=share, low=low, high=min(1.0, centre + half))


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Sums of squares of levels within and between sessions, pooled over groups."""

    within: float
    within_df: float
    between: float
    between_df: float
    per_session: float
    """Harmonic mean of a session's launches."""

    shared: float
    """Distinct launches over runs: points of one launch are not independent of each other."""

    @classmethod
    def of(cls, runs: Sequence[Run], levels: Array) -> "Levels":
        cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
        for run, level in zip(runs, levels, strict=True):
            cells.setdefault(run.group, {}).setdefault(run.session, []).append(float(level))
        sessions = [values for group in cells.values() for values in group.values()]
        means = [[float(np.mean(v)) for v in group.values()] for group in cells.values()]
        return cls(
            within=sum(float(np.var(values)) * len(values) for values in sessions),
            within_df=sum(len(values) - 1 for values in sessions),
            between=sum(float(np.var(group)) * len(group) for group in means),
            between_df=sum(len(group) - 1 for group in means),
            per_session=len(sessions) / sum(1 / len(values) for values in sessions),
            shared=len({run.launch_id for run in runs}) / len(runs),
        )

    def launch(self, explained: float) -> Interval | None:
        """Return the launches' own deviation, beside a variance that is explained."""
        if not self.within_df:
            return None
        df = self.within_df * self.shared
        square = self.within / self.within_df
        lowest = df * square / float(chdtri(df, _TAIL))
        highest = df * square / float(chdtri(df, 1 - _TAIL))
        return _root(square - explained, lowest - explained, highest - explained)

    def session(self) -> Interval | None:
        """Return the sessions' deviation, beside what launches make of a session's mean."""
        if not (self.within_df and self.between_df):
            return None
        df, other = self.between_df * self.shared, self.within_df * self.shared
        between = self.between / self.between_df
        launches = self.within / self.within_df / self.per_session
        low = between - launches * float(fdtri(df, other, 1 - _TAIL))
        high = between - launches * float(fdtri(df, other, _TAIL))
        return _root(
            between - launches,
            df * low / float(chdtri(df, _TAIL)),
            df * high / float(chdtri(df, 1 - _TAIL)),
        )


def _root(value: float, low: float, high: float) -> Interval:
    return Interval(
        value=math.sqrt(max(0.0, value)),
        low=math.sqrt(max(0.0, low)),
        high=math.sqrt(max(0.0, high)),
    )
