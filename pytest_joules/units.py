"""How quantities are written for people; storage is always in SI base units."""

import math

_PREFIXES = ((1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "\N{MICRO SIGN}"))


def si(value: float, unit: str, digits: int = 3) -> str:
    """Write a value with an SI prefix and ``digits`` significant digits.

    >>> si(0.2093, "J/token")
    '209 mJ/token'
    >>> si(1160e3, "J/video", 4)
    '1.160 MJ/video'
    >>> si(0.0, "W")
    '0 W'
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for scale, prefix in _PREFIXES:
        rounded = significant(abs(value) / scale, digits)
        if rounded >= 1 or scale == _PREFIXES[-1][0]:
            return f"{_plain(math.copysign(rounded, value), digits)} {prefix}{unit}"
    raise AssertionError("unreachable: the last prefix always answers")


def significant(value: float, digits: int) -> float:
    """Round to ``digits`` significant digits.

    >>> significant(0.00123456, 4)
    0.001235
    """
    if value == 0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits - 1}e}")


def percent(ratio: float, digits: int = 1) -> str:
    """Write a relative change with its sign.

    >>> percent(0.0312)
    '+3.1 %'
    """
    return f"{100 * ratio:+.{digits}f} %"


def _plain(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"
