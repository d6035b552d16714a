"""Normal and Student distributions and a root finder: scipy's, loaded on first use.

It takes a second to load, which a run that only plans, or ends before a verdict, need not pay.
"""

from collections.abc import Callable
from typing import Any


def normal_cdf(x: Any) -> Any:
    """Return the standard normal distribution function, of a number or an array."""
    from scipy.special import ndtr  # noqa: PLC0415  see above

    return ndtr(x)


def student_quantile(df: Any, p: Any) -> Any:
    """Return where Student's distribution function with ``df`` degrees of freedom is ``p``."""
    from scipy.special import stdtrit  # noqa: PLC0415  see above

    return stdtrit(df, p)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that changes its sign between two numbers is zero.

    Raises:
        ValueError: It does not change its sign.
    """
    from scipy.optimize import brentq  # noqa: PLC0415  see above

    return float(brentq(function, low, high, xtol=1e-12))
