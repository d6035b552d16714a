"""Noise inside windows, fitted: how sub-windows vary, resemble each other and warm up.

Model of one launch i, sub-windows one after the other::

    ln x_i(t) = level_i - A_i exp(-t / tau) + ar1(t)

Each launch has its own level and amplitude. Spread, correlation and time constant come from
the restricted likelihood of what is left beside them; the mean and the spread of the amplitudes
from a random-effects analysis of the launches.

Source:
    Restricted likelihood: Patterson & Thompson, Biometrika 58 (1971). Spread of amplitudes and
    its interval: the Q profile of Viechtbauer, Statistics in Medicine 26 (2007). Interval of
    their mean: Hartung & Knapp, Statistics in Medicine 20 (2001).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import chdtri, stdtrit

from pytest_joules.gate.noise import THERMAL_S

Array = NDArray[np.float64]

LEVEL = 0.95
NORMAL = 1.959964
"""Its quantile of the normal distribution, two-sided."""

_STEP = 1e-2
_LOG_TAU = (math.log(5.0), math.log(600.0))
_UNTOLD = 0.35
"""Standard error of ln(tau) above which it is not told: its interval spans a factor of 4."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """One launch's sub-windows, outliers replaced."""

    log_x: Array
    """ln of joules per work unit, shape ``(n,)``."""

    time_s: Array
    """Middle of each sub-window since the load began, shape ``(n,)``."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """Noise inside windows."""

    sub_window: Interval
    autocorrelation: Interval
    thermal: Interval
    thermal_spread: Interval
    thermal_s: Interval | None
    """Time constant; ``None`` where the launches do not tell it: the assumed one is used."""

    levels: Array
    """Of each launch, warmed up; how its own amplitude differs from the mean is left in it."""

    level_variances: Array
    """What the sub-windows alone make of a level's variance."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Of each launch, products weighted by the inverse correlation; and its length."""

    n: Array
    one: Array
    z: Array
    one_z: Array
    one_x: Array
    z_x: Array
    x: Array

    @property
    def z_alone(self) -> Array:
        """``z'z`` beside the level."""
        return self.z - self.one_z**2 / self.one

    @property
    def z_x_alone(self) -> Array:
        return self.z_x - self.one_z * self.one_x / self.one

    @property
    def x_alone(self) -> Array:
        return self.x - self.one_x**2 / self.one


@dataclass(frozen=True, kw_only=True)
class _Stack:
    """Launches of one length, one a row."""

    rows: NDArray[np.int64]
    """Where they stand among all."""

    log_x: Array
    """About their means: the level is estimated anyway, and the products stay small."""

    time_s: Array


def _stacked(launches: Sequence[Series]) -> list[_Stack]:
    lengths = np.array([len(launch.log_x) for launch in launches])
    found = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length).astype(np.int64)
        log_x = np.array([launches[row].log_x for row in rows.tolist()])
        found.append(
            _Stack(
                rows=rows,
                log_x=log_x - log_x.mean(axis=1, keepdims=True),
                time_s=np.array([launches[row].time_s for row in rows.tolist()]),
            )
        )
    return found


def _whitened(values: Array, phi: float) -> Array:
    """Make AR(1) values of spread 1 independent, along the last axis."""
    rest = (values[..., 1:] - phi * values[..., :-1]) / math.sqrt(1 - phi**2)
    return np.concatenate([values[..., :1], rest], axis=-1)


def _sums(stacks: Sequence[_Stack], phi: float, tau: float) -> _Sums:
    found = np.empty((7, sum(len(stack.rows) for stack in stacks)))
    for stack in stacks:
        one = _whitened(np.ones_like(stack.log_x), phi)
        z = _whitened(np.exp(-stack.time_s / tau), phi)
        x = _whitened(stack.log_x, phi)
        pairs = ((one, one), (z, z), (one, z), (one, x), (z, x), (x, x))
        products = [np.einsum("ij,ij->i", a, b) for a, b in pairs]
        found[:, stack.rows] = [np.full(len(stack.rows), x.shape[1]), *products]
    names = ("n", "one", "z", "one_z", "one_x", "z_x", "x")
    return _Sums(**dict(zip(names, found, strict=True)))


def _negative(stacks: Sequence[_Stack], at: Sequence[float] | Array) -> float:
    """Return minus the restricted log-likelihood, of each launch's own level and amplitude."""
    log_sd, at_phi, log_tau = at
    phi = math.tanh(at_phi)
    s = _sums(stacks, phi, math.exp(log_tau))
    rest = s.x_alone - s.z_x_alone**2 / s.z_alone
    log_det = (s.n - 1) * math.log(1 - phi**2) + np.log(s.one) + np.log(s.z_alone)
    free = s.n - 2
    each = free * 2 * log_sd + log_det + rest / math.exp(2 * log_sd)
    return 0.5 * float(each.sum())


def fit_within(launches: Sequence[Series]) -> Within:
    """Fit the noise inside the windows of some launches.

    Args:
        launches: At least two, each of at least five sub-windows.
    """
    stacks = _stacked(launches)
    spread = float(np.median([np.std(launch.log_x) for launch in launches]))
    begin = [math.log(max(spread, 1e-6)), math.atanh(0.3), math.log(THERMAL_S)]
    whole = _minimum(lambda x: _negative(stacks, x), begin)
    errors = _standard_errors(lambda x: _negative(stacks, x), whole)
    tells_tau = _tells(whole[2], errors[2])
    if not tells_tau:
        held = math.log(THERMAL_S)
        part = _minimum(lambda x: _negative(stacks, [*x, held]), begin[:2])
        errors = _standard_errors(lambda x: _negative(stacks, [*x, held]), part)
        whole = np.array([*part, held])
    log_sd, at_phi, log_tau = whole
    fixed = math.exp(log_sd), math.tanh(at_phi)
    amplitude = _amplitude(stacks, *fixed, tau=math.exp(log_tau))
    if tells_tau:
        amplitude = amplitude.less_sure(
            *(
                _amplitude(stacks, *fixed, tau=math.exp(log_tau + side * errors[2])).mean
                for side in (-1, 1)
            )
        )
    sums = _sums(stacks, fixed[1], math.exp(log_tau))
    centres = np.array([launch.log_x.mean() for launch in launches])
    return Within(
        sub_window=_interval(math.exp, log_sd, errors[0]),
        autocorrelation=_interval(math.tanh, at_phi, errors[1]),
        thermal=amplitude.mean_interval(),
        thermal_spread=amplitude.spread,
        thermal_s=_interval(math.exp, log_tau, errors[2]) if tells_tau else None,
        # What a launch of mean amplitude would show, warmed up.
        levels=centres + (sums.one_x + amplitude.mean * sums.one_z) / sums.one,
        level_variances=fixed[0] ** 2 / sums.one,
    )


def _tells(log_tau: float, error: float) -> bool:
    low, high = _LOG_TAU
    return error < _UNTOLD and low + _STEP < log_tau < high - _STEP


def _minimum(function: Callable[[Array], float], begin: Sequence[float]) -> Array:
    bounds = [(math.log(1e-6), 1.0), (-1.5, 2.8), _LOG_TAU][: len(begin)]
    found = minimize(function, begin, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x)


def _standard_errors(function: Callable[[Array], float], at: Array) -> Array:
    """Invert the curvature by finite differences; infinite where it has none."""
    size = len(at)
    steps = _STEP * np.eye(size)
    curvature = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            plus, minus = steps[i] + steps[j], steps[i] - steps[j]
            corners = function(at + plus) - function(at + minus)
            corners += function(at - plus) - function(at - minus)
            curvature[i, j] = corners / (4 * _STEP**2)
    try:
        variances = np.diag(np.linalg.inv(curvature))
    except np.linalg.LinAlgError:
        return np.full(size, math.inf)
    return np.sqrt(np.where(variances > 0, variances, math.inf))


def _interval(back: Callable[[float], float], at: float, error: float) -> Interval:
    low, high = at - NORMAL * error, at + NORMAL * error
    return Interval(value=back(at), low=back(low), high=back(high))


@dataclass(frozen=True, kw_only=True)
class _Amplitude:
    """Mean of the launches' amplitudes, and how they spread."""

    mean: float
    error: float
    spread: Interval
    df: int

    def less_sure(self, lower: float, higher: float) -> "_Amplitude":
        """Add what an uncertain time constant makes of the mean."""
        beside = (higher - lower) / 2
        return _Amplitude(
            mean=self.mean, error=math.hypot(self.error, beside), spread=self.spread, df=self.df
        )

    def mean_interval(self) -> Interval:
        half = float(stdtrit(self.df, 1 - (1 - LEVEL) / 2)) * self.error
        return Interval(value=self.mean, low=self.mean - half, high=self.mean + half)


def _amplitude(stacks: Sequence[_Stack], sd: float, phi: float, *, tau: float) -> _Amplitude:
    s = _sums(stacks, phi, tau)
    each, variances = -s.z_x_alone / s.z_alone, sd**2 / s.z_alone
    df = len(each) - 1

    def excess(square: float, wanted: float) -> float:
        weights = 1 / (variances + square)
        mean = float(weights @ each / weights.sum())
        return float(weights @ (each - mean) ** 2) - wanted

    def where(wanted: float) -> float:
        if excess(0.0, wanted) <= 0:
            return 0.0
        most = float(np.var(each)) * 1e4 + 1e-12
        return math.sqrt(brentq(excess, 0.0, most, args=(wanted,), xtol=1e-12))

    tail = (1 - LEVEL) / 2
    spread = Interval(
        value=where(float(df)),
        low=where(float(chdtri(df, tail))),
        high=where(float(chdtri(df, 1 - tail))),
    )
    weights = 1 / (variances + spread.value**2)
    mean = float(weights @ each / weights.sum())
    # Hartung and Knapp: as the launches scatter, but never surer than their own errors say.
    scatter = max(1.0, float(weights @ (each - mean) ** 2) / df)
    return _Amplitude(mean=mean, error=math.sqrt(scatter / weights.sum()), spread=spread, df=df)
