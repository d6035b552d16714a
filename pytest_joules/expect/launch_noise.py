"""How far two measurements of the same thing lie apart by chance.

Launches, not sub-windows, are the independent samples. One launch's value varies by the
larger of two things: what its own window shows (batch means over the 1 s series, which
allow for autocorrelation), and what launches do, which is pooled over all points of a
comparison that were launched more than once, together with an assumed 1.5 % that weighs as
much as four launches. Results without evidence, such as published ones, have unknown noise.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

from pytest_joules.errors import InvalidMeasurement, is_expected
from pytest_joules.expect.quantity import number
from pytest_joules.gate.design import Design
from pytest_joules.gate.distributions import student_quantile
from pytest_joules.result import Evidence, Result

__tracebackhide__ = is_expected

LAUNCH_NOISE = Design.prior_sd
"""Assumed relative standard deviation between launches: the gate's prior."""

PRIOR_WEIGHT = 4
"""Degrees of freedom that the assumption is worth."""

CONFIDENCE = 0.95
"""One-sided, for each comparison."""

_SHORTEST_SERIES = 16  # four batches of four; fewer say nothing about their own spread

Sample = tuple[Result, ...]
"""The results of one point; of several launches where it was launched several times."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of all samples of one comparison."""

    quantity: str
    launch_variance: float
    """Relative, of one launch."""

    quantile: float
    given: bool = False
    """Whether the user gave the noise, so that it also holds for published results."""

    def half_width(self, *samples: Sample) -> float:
        """Return how far the samples' log ratio may be off; 0 where noise is unknown."""
        return self.quantile * math.sqrt(sum(self._variance(sample) for sample in samples))

    def _variance(self, sample: Sample) -> float:
        num_launches = len(_launches(sample))
        if self.given:
            return self.launch_variance / num_launches
        windows = [result.evidence for result in sample if result.evidence]
        if len(windows) < len(sample):
            return 0.0
        own = fmean(_within(window, self.quantity) ** 2 for window in windows)
        return max(self.launch_variance, own) / num_launches


def center(sample: Sample, quantity: str) -> float:
    """Return the mean of the logarithms, launches weighing alike."""
    return fmean(_launch_values(sample, quantity))


def noise_of(samples: Iterable[Sample], quantity: str, given: float | None = None) -> Noise:
    """Estimate the noise of one launch from all samples of a comparison.

    Args:
        samples: One for each point.
        quantity: What is compared.
        given: Relative standard deviation of one launch, where the user knows it.
    """
    if given is not None:
        quantile = NormalDist().inv_cdf(CONFIDENCE)
        return Noise(quantity=quantity, launch_variance=given**2, quantile=quantile, given=True)
    measured = [sample for sample in samples if all(r.evidence for r in sample)]
    if not measured:
        return Noise(quantity=quantity, launch_variance=0.0, quantile=0.0)
    squares, freedom = PRIOR_WEIGHT * LAUNCH_NOISE**2, PRIOR_WEIGHT
    for values in (_launch_values(sample, quantity) for sample in measured):
        squares += math.fsum((value - fmean(values)) ** 2 for value in values)
        freedom += len(values) - 1
    return Noise(
        quantity=quantity,
        launch_variance=squares / freedom,
        quantile=float(student_quantile(freedom, CONFIDENCE)),
    )


def _launches(sample: Sample) -> Sequence[Sequence[Result]]:
    """Split by server start; results without evidence count as one launch each."""
    found: dict[object, list[Result]] = {}
    for index, result in enumerate(sample):
        key = result.evidence.launch_id if result.evidence else index
        found.setdefault(key, []).append(result)
    return list(found.values())


def _launch_values(sample: Sample, quantity: str) -> Sequence[float]:
    return [
        fmean(math.log(number(result, quantity)) for result in launch)
        for launch in _launches(sample)
    ]


def _within(evidence: Evidence, quantity: str) -> float:
    """Relative standard error of energy over work in one window, by batch means.

    0 for quantities that have no series, and for series too short to tell.

    Raises:
        InvalidMeasurement: The series holds no energy or no work.

    Source:
        Batch means with about sqrt(n) batches of sqrt(n): Law, Simulation Modeling and
        Analysis, section 9.5.3; of a ratio, by its linearisation.
    """
    energy, work = evidence.series_energy_j, evidence.series_work_units
    if not quantity.startswith("energy_per_") or len(energy) < _SHORTEST_SERIES:
        return 0.0
    if min(math.fsum(energy), math.fsum(work)) <= 0:
        raise InvalidMeasurement(
            f"launch {evidence.launch_id}: the series holds {math.fsum(energy):g} J and "
            f"{math.fsum(work):g} work units, so it has no noise; measure the point again."
        )
    ratio = math.fsum(energy) / math.fsum(work)
    residuals = [e - ratio * n for e, n in zip(energy, work, strict=True)]
    size = math.isqrt(len(residuals))
    batches = [fmean(residuals[i * size : (i + 1) * size]) for i in range(size)]
    return math.sqrt(variance(batches) / size) / fmean(energy)
