"""The noise that experiments assume, in one place; nothing here measures anything.

One model, per sub-window of one second and with every term in natural-log units::

    ln x(launch, t) = gpu + session + launch + drift + ar1(t) - A exp(-t / 60 s) + change

The numbers are assumptions until real GPUs have been measured (see ``docs/gate.md``);
``joules fit noise`` finds them from stored sessions. They are not to be tuned to make a gate
look better.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]

DISCARDED_S = 30
"""Seconds of every launch that are never measured."""

MEASURED_S = 60
"""Sub-windows of one second in one measured window."""

THERMAL_S = 60.0
"""Time constant of the warm-up transient."""

_STALENESS_S = 0.1
_OUTLIER_SHARE = 0.005
_DRIFT = 0.0005


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of one scenario, as ratios (0.01 is 1 %)."""

    name: str
    launch: float
    """Between server starts of one session."""

    session: float
    """Between sessions; common to every launch of a session."""

    sub_window: float
    """Of one second inside a window."""

    autocorrelation: float
    """Lag-1 correlation of consecutive seconds (AR(1))."""

    thermal: float
    """Mean amplitude ``A`` of the warm-up transient."""

    thermal_spread: float
    gpu: float = 0.0
    """Between boards of one model."""

    incident_share: float = 0.0
    """Share of launches that hold a burst of 5 to 20 s at +20 to +50 %."""

    launch_df: float | None = None
    """Degrees of freedom of t-distributed launch effects; ``None`` means normal."""

    def but(self, **changes: Any) -> "Noise":
        """Return this scenario with some fields changed."""
        return replace(self, **changes)

    def scaled(self, factor: float) -> "Noise":
        """Return it with launch, session and sub-window noise multiplied."""
        return self.but(
            name=f"{self.name} x {factor:g}",
            launch=self.launch * factor,
            session=self.session * factor,
            sub_window=self.sub_window * factor,
            thermal_spread=self.thermal_spread * factor,
        )


QUIET = Noise(
    name="quiet",
    launch=0.004,
    session=0.002,
    sub_window=0.02,
    autocorrelation=0.5,
    thermal=0.010,
    thermal_spread=0.003,
)
TYPICAL = Noise(
    name="typical",
    launch=0.010,
    session=0.004,
    sub_window=0.03,
    autocorrelation=0.7,
    thermal=0.020,
    thermal_spread=0.007,
)
NOISY = Noise(
    name="noisy",
    launch=0.020,
    session=0.008,
    sub_window=0.05,
    autocorrelation=0.85,
    thermal=0.030,
    thermal_spread=0.010,
)
OTHER_GPU = TYPICAL.but(name="other GPU", gpu=0.03)
INCIDENT = TYPICAL.but(name="incident", incident_share=0.05, launch_df=4.0)

SCENARIOS = {noise.name: noise for noise in (QUIET, TYPICAL, NOISY, OTHER_GPU, INCIDENT)}


def log_series(
    noise: Noise, rng: Generator, shape: tuple[int, ...], *, num: int = MEASURED_S
) -> Array:
    """Draw the sub-windows of launches, without launch, session and board effects.

    Args:
        noise: The scenario.
        rng: Where the randomness comes from; the caller seeds it.
        shape: Launches asked for.
        num: Sub-windows per launch, starting ``DISCARDED_S`` after the load began.

    Returns:
        ln of joules per work unit relative to the launch's level, shape ``(*shape, num)``.
    """
    series = sub_windows(noise, rng, (*shape, num), start_s=DISCARDED_S)
    _add_stale_edges(series, rng)
    return series


def whole_launch(noise: Noise, rng: Generator, num: int) -> Array:
    """Draw every second of one launch from its beginning, with the launch's own level.

    The counter's staleness is left out: whoever simulates a counter has one that ticks.
    """
    level = float(launch_effects(noise, rng, (1,))[0])
    return level + sub_windows(noise, rng, (num,), start_s=0)


def sub_windows(
    noise: Noise, rng: Generator, shape: tuple[int, ...], *, start_s: float
) -> Array:
    """Draw the sub-windows of launches as ``log_series`` does, from ``start_s`` on.

    The counter's staleness is left out.
    """
    *launches, num = shape
    series = _ar1(noise, rng, shape)
    amplitude = rng.normal(noise.thermal, noise.thermal_spread, (*launches, 1))
    series -= amplitude * np.exp(-(start_s + 0.5 + np.arange(num)) / THERMAL_S)
    outlier = rng.random(series.shape) < _OUTLIER_SHARE
    series[outlier] += rng.uniform(0.2, 0.7, int(outlier.sum()))
    if noise.incident_share:
        series += _incidents(noise, rng, shape)
    return series


def launch_effects(noise: Noise, rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw what server starts of one session differ by, drift included on the last axis."""
    if noise.launch_df is None:
        effects = rng.normal(0.0, noise.launch, shape)
    else:
        df = noise.launch_df
        effects = noise.launch * rng.standard_t(df, shape) / np.sqrt(df / (df - 2))
    return np.asarray(effects + np.cumsum(rng.normal(0.0, _DRIFT, shape), axis=-1))


def session_effects(noise: Noise, rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw what sessions differ by."""
    return rng.normal(0.0, noise.session, shape)


def gpu_effects(noise: Noise, rng: Generator, shape: tuple[int, ...]) -> Array:
    """Draw what boards of one model differ by."""
    return rng.normal(0.0, noise.gpu, shape)


def _ar1(noise: Noise, rng: Generator, shape: tuple[int, ...]) -> Array:
    phi = noise.autocorrelation
    series = rng.normal(0.0, noise.sub_window, shape)
    innovation = np.sqrt(1 - phi**2)
    for t in range(1, shape[-1]):
        series[..., t] = phi * series[..., t - 1] + innovation * series[..., t]
    return series


def _incidents(noise: Noise, rng: Generator, shape: tuple[int, ...]) -> Array:
    *launches, num = shape
    seconds = rng.uniform(5.0, 20.0, (*launches, 1))
    first = rng.uniform(0.0, 1.0, (*launches, 1)) * (num - seconds)
    height = np.log1p(rng.uniform(0.2, 0.5, (*launches, 1)))
    happens = rng.random((*launches, 1)) < noise.incident_share
    t = np.arange(num)
    return np.where(happens & (t >= first) & (t < first + seconds), height, 0.0)


def _add_stale_edges(series: Array, rng: Generator) -> None:
    """Move up to 0.1 s of energy over each edge of the window, as a stale counter does."""
    for edge, sign in ((0, 1.0), (-1, -1.0)):
        stale_s = rng.uniform(0.0, _STALENESS_S, series.shape[:-1])
        series[..., edge] += np.log1p(sign * stale_s)
