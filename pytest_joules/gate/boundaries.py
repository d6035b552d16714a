"""Critical values of group-sequential tests: how much evidence each look needs.

A test that looks at its data again and again, each time at the level of a single look,
cries wolf more often than it says. An error-spending function says how much of the error
may be used up by which amount of information; recursive integration over the paths that
have not stopped yet turns that into one critical value a look.

Source:
    Lan & DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983);
    Hwang, Shih & DeCani, Group sequential designs using a family of type I error
    probability spending functions, Statistics in Medicine 9 (1990);
    Armitage, McPherson & Rowe, Repeated significance tests on accumulating data, JRSS A
    132 (1969); Jennison & Turnbull, Group Sequential Methods with Applications to Clinical
    Trials (2000), chapters 7 and 19.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pytest_joules.gate.distributions import normal_cdf, root

_NODES = 401
_FAR = 9.0
_LINEAR = 1e-9


def spent_hwang_shih_decani(information: float, total: float, gamma: float) -> float:
    """Return the error used up at an information fraction from 0 to 1.

    ``gamma=-4`` is close to O'Brien and Fleming (late), ``1`` to Pocock (early).

    Source:
        Hwang, Shih & DeCani 1990, equation 2.
    """
    if abs(gamma) < _LINEAR:
        return total * information
    return total * math.expm1(-gamma * information) / math.expm1(-gamma)


def spent_pocock(information: float, total: float) -> float:
    """Return the error used up by the Pocock-type function.

    Source:
        Lan & DeMets 1983, alpha-star 2.
    """
    return total * math.log1p((math.e - 1) * information)


def critical_values(information: Sequence[float], spent: Sequence[float]) -> tuple[float, ...]:
    """Return the standard-normal value that each look must exceed.

    Args:
        information: Fractions of the final information, increasing, shape ``(looks,)``.
        spent: Error used up until and with each look, increasing, shape ``(looks,)``.

    Raises:
        ValueError: Information or spent error does not increase.
    """
    if not information or any(b <= a for a, b in _steps((0.0, *information))):
        raise ValueError(f"information {tuple(information)} must increase from above 0")
    if len(spent) != len(information) or any(b <= a for a, b in _steps((0.0, *spent))):
        raise ValueError(f"spent error {tuple(spent)} must increase from above 0")
    return _critical_values(tuple(information), tuple(spent))


@cache
def _critical_values(
    information: tuple[float, ...], spent: tuple[float, ...]
) -> tuple[float, ...]:
    points: NDArray[np.float64] = np.zeros(1)
    mass: NDArray[np.float64] = np.ones(1)
    values = []
    for (before, now), (used, allowed) in zip(
        _steps((0.0, *information)), _steps((0.0, *spent)), strict=True
    ):
        limit = _limit(points, mass, sd=math.sqrt(now - before), error=allowed - used)
        values.append(limit / math.sqrt(now))
        points, mass = _survivors(points, mass, sd=math.sqrt(now - before), limit=limit)
    return tuple(values)


def _limit(
    points: NDArray[np.float64], mass: NDArray[np.float64], *, sd: float, error: float
) -> float:
    """Find the score that the surviving paths exceed next with probability ``error``."""
    low, high = float(points.min()) - _FAR * sd, float(points.max()) + _FAR * sd
    return root(lambda x: float(mass @ normal_cdf((points - x) / sd)) - error, low, high)


def _survivors(
    points: NDArray[np.float64], mass: NDArray[np.float64], *, sd: float, limit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Carry the paths below ``limit`` to the next look, on Gauss-Legendre nodes."""
    nodes, weights = _gauss_legendre()
    low = max(float(points.min()) - _FAR * sd, -_FAR)
    half = (limit - low) / 2
    following = low + half * (nodes + 1)
    density = np.exp(-0.5 * ((following[:, None] - points[None, :]) / sd) ** 2) @ mass
    return following, density * weights * half / (sd * math.sqrt(2 * math.pi))


@cache
def _gauss_legendre() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(_NODES)


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(values))
