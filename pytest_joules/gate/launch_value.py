"""What one launch is worth to the gate: one number, and how far to trust it.

A launch is the independent sample: sub-windows inside one run resemble each other, so
intervals made of them are too narrow (DESIGN, section 7).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pytest_joules.result import Evidence, Result

CLIP_AT_SIGMAS = 4.0
"""Sub-windows are clipped this many robust sigmas from their median."""

MAX_CLIPPED_SHARE = 0.06
"""Above it something other than the workload ran: the launch is repeated. A single clipped
sub-window is none too many, for in a short window it alone is a larger share."""

FINEST_SPREAD = 0.005
"""Relative spread below which sub-windows are equal: their edges are read up to one reading
period late, which alone moves 1 s by about 1 %. Steadier series have no outliers."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation over median absolute deviation of a normal distribution."""

_MEAN_DEVIATION_TO_SIGMA = 1.2533

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LaunchValue:
    """One launch, reduced to what comparisons use."""

    log_energy: float
    """Natural log of joules per work unit; NaN where the launch holds no number."""

    clipped_share: float = 0.0
    num_sub_windows: int | None = None
    """What the clipped ones are a share of; ``None`` without a series."""

    spread: float | None = None
    """Robust relative spread of the sub-windows; ``None`` without a series."""

    launch_id: str = ""
    gpu_uuids: tuple[str, ...] = ()
    power_limit_w: float | None = None
    mig: bool | None = None
    from_mean: bool = False
    """Made of the published mean because no sub-windows were stored."""

    is_valid: bool = True
    """Whether the measurement met the validity contract."""

    @property
    def is_finite(self) -> bool:
        """Whether the value can be computed with."""
        return math.isfinite(self.log_energy)

    @property
    def must_repeat(self) -> bool:
        """Whether so many sub-windows were clipped that the launch does not count."""
        if self.num_sub_windows and round(self.clipped_share * self.num_sub_windows) == 1:
            return False
        return self.clipped_share > MAX_CLIPPED_SHARE

    @property
    def energy_per_work_unit_j(self) -> float:
        """The value in joules."""
        return math.exp(self.log_energy)


def launch_value(result: Result) -> LaunchValue:
    """Reduce a result to ``ln(sum N_t x'_t / sum N_t)``, x' being clipped sub-windows.

    A result without sub-windows (published data) counts with its mean, and says so. A
    result with readings that are no positive numbers gives NaN, which ``judge`` calls
    invalid.
    """
    evidence, identity = result.evidence, result.provenance.identity
    bare = LaunchValue(
        log_energy=_log(result.energy_per_work_unit_j),
        launch_id=evidence.launch_id if evidence else "",
        gpu_uuids=result.provenance.context.gpu_uuids,
        power_limit_w=identity.power_limit_w,
        mig=identity.mig,
        from_mean=True,
        is_valid=result.is_valid,
    )
    if evidence is None or not evidence.series_energy_j:
        return bare
    return _with_series(bare, evidence)


def _with_series(bare: LaunchValue, evidence: Evidence) -> LaunchValue:
    energy_j, work_units = worked(evidence.series_energy_j, evidence.series_work_units)
    is_positive = bool(work_units.size) and _all_positive(energy_j, work_units)
    with np.errstate(over="ignore"):  # by hardly any work; infinite is no number either
        ratios = energy_j / work_units if is_positive else energy_j
    if not (is_positive and _all_positive(ratios)):
        return replace(bare, log_energy=math.nan, from_mean=False)
    clipped, share, spread = clip(ratios)
    energy_per_work_unit_j = math.fsum(clipped * work_units) / math.fsum(work_units)
    return replace(
        bare,
        log_energy=_log(energy_per_work_unit_j),
        clipped_share=float(share),
        num_sub_windows=len(clipped),
        spread=float(spread),
        from_mean=False,
    )


def _all_positive(*series: Array) -> bool:
    return all(bool(np.all(np.isfinite(values) & (values > 0))) for values in series)


def worked(energy_j: Sequence[float], work_units: Sequence[float]) -> tuple[Array, Array]:
    """Merge sub-windows in which nothing finished into the next in which something did.

    An image takes longer than a second; its energy belongs to it all the same. What comes
    after the last finished unit is added to that unit's sub-window.
    """
    energies: list[float] = []
    units: list[float] = []
    carried_j = 0.0
    for joules, done in zip(energy_j, work_units, strict=True):
        carried_j += joules
        if done != 0:
            energies.append(carried_j)
            units.append(done)
            carried_j = 0.0
    if energies:
        energies[-1] += carried_j
    return np.asarray(energies, dtype=float), np.asarray(units, dtype=float)


def clip(ratios: Array) -> tuple[Array, Array, Array]:
    """Clip the last axis at median +- 4 robust sigmas.

    Sigma is 1.4826 times the median absolute deviation (MAD); where more than half of the
    values are equal that is zero, and 1.2533 times the mean absolute deviation stands in.
    It is never taken below ``FINEST_SPREAD``.

    Returns:
        Clipped values, share clipped, and sigma over median; the latter two without the
        last axis.

    Source:
        Iglewicz & Hoaglin, How to Detect and Handle Outliers (1993), for both scales.
    """
    median = np.median(ratios, axis=-1, keepdims=True)
    deviation = np.abs(ratios - median)
    sigma = MAD_TO_SIGMA * np.median(deviation, axis=-1, keepdims=True)
    mean_deviation = deviation.mean(axis=-1, keepdims=True)
    sigma = np.where(sigma > 0, sigma, _MEAN_DEVIATION_TO_SIGMA * mean_deviation)
    sigma = np.maximum(sigma, FINEST_SPREAD * median)
    limit = CLIP_AT_SIGMAS * sigma
    clipped = np.clip(ratios, median - limit, median + limit)
    share = (deviation > limit).mean(axis=-1)
    return clipped, share, sigma[..., 0] / median[..., 0]


@dataclass(frozen=True, kw_only=True)
class PooledNoise:
    """Sum of squares of launches about their group's mean, over several groups."""

    sum_squares: float = 0.0
    df: float = 0.0


def pooled_noise(groups: Iterable[Sequence[LaunchValue]]) -> PooledNoise:
    """Pool the noise between launches over points, or over the stacks of one session.

    Launches of different boards are never in one group, and launches that do not count are
    left out.
    """
    squares, df = [], 0
    for group in groups:
        by_board: dict[tuple[str, ...], list[float]] = {}
        for launch in group:
            if launch.is_finite and launch.is_valid and not launch.must_repeat:
                by_board.setdefault(launch.gpu_uuids, []).append(launch.log_energy)
        squares += [sum_squares(values) for values in by_board.values()]
        df += sum(len(values) - 1 for values in by_board.values())
    return PooledNoise(sum_squares=math.fsum(squares), df=float(df))


def mean(values: Sequence[float]) -> float:
    """Return the exactly rounded mean, 0 for no values."""
    return math.fsum(values) / len(values) if values else 0.0


def sum_squares(values: Sequence[float]) -> float:
    """Return the sum of squares about the mean."""
    middle = mean(values)
    return math.fsum((value - middle) ** 2 for value in values)


def _log(value: float) -> float:
    return math.log(value) if math.isfinite(value) and value > 0 else math.nan
