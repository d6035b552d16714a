"""How quantities are written for people; storage is always in SI base units."""

import math
from typing import Self

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


class Quantity(float):
    """A measured number that knows its unit and what it belongs to.

    It computes as a plain float; a failed ``assert`` on it explains itself through
    pytest's ``pytest_assertrepr_compare``.

    >>> Quantity(0.61, "J/token", "qwen3-8b-b32 on h200")
    610 mJ/token (qwen3-8b-b32 on h200)
    """

    __slots__ = ("of", "unit")

    def __new__(cls, value: float, unit: str, of: str) -> Self:
        made = super().__new__(cls, value)
        made.unit, made.of = unit, of
        return made

    unit: str
    of: str

    def __repr__(self) -> str:
        return f"{si(self, self.unit)} ({self.of})"

    def __reduce__(self) -> tuple[type, tuple[float, str, str]]:
        return Quantity, (float(self), self.unit, self.of)

    @staticmethod
    def joules_explain(op: str, left: object, right: object) -> list[str] | None:
        """Return the lines of a failed comparison; ``None`` where it is not of numbers."""
        if not isinstance(left, int | float) or not isinstance(right, int | float):
            return None
        lines = [f"{_named(left)} {op} {_named(right)}"]
        if right and math.isfinite(left / right):
            lines.append(
                f"the left side differs from the right one by {percent(left / right - 1)}"
            )
        return lines


def _named(value: float) -> str:
    return repr(value) if isinstance(value, Quantity) else f"{value:g}"


def significant(value: float, digits: int) -> float:
    """Round to ``digits`` significant digits.

    >>> significant(0.00123456, 4)
    0.001235
    """
    if value == 0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits - 1}e}")


def counted(number: int, noun: str) -> str:
    """Write how many there are.

    >>> counted(1, "launch"), counted(2, "launch"), counted(0, "point")
    ('1 launch', '2 launches', '0 points')
    """
    ending = "" if number == 1 else "es" if noun.endswith(("ch", "sh", "s")) else "s"
    return f"{number} {noun}{ending}"


def percent(ratio: float, digits: int = 1) -> str:
    """Write a relative change with its sign.

    >>> percent(0.0312), percent(-0.0001)
    ('+3.1 %', '+0.0 %')
    """
    return f"{round(100 * ratio, digits) + 0.0:+.{digits}f} %"  # + 0.0: there is no -0.0 %


def _plain(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"
