import copy
import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.units import Quantity, percent, si, significant


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.2093, 3, "209 mJ"),
        (0.9994, 3, "999 mJ"),
        (0.9996, 3, "1.00 J"),
        (999.4, 3, "999 J"),
        (999.6, 3, "1.00 kJ"),
        (1.16e6, 4, "1.160 MJ"),
        (1e10, 3, "10000 MJ"),
        (9.995, 3, "9.99 J"),  # the nearest double is below 9.995
        (12.5e-6, 3, "12.5 \N{MICRO SIGN}J"),
        (1e-9, 3, "0.00100 \N{MICRO SIGN}J"),
        (-0.25, 3, "-250 mJ"),
        (0.0, 3, "0 J"),
        (math.inf, 3, "inf J"),
        (math.nan, 3, "nan J"),
    ],
)
def test_si(value: float, digits: int, expected: str) -> None:
    assert si(value, "J", digits) == expected


@given(st.floats(1e-6, 1e9))
def test_si_tells_the_value_to_three_digits(value: float) -> None:
    number, unit = si(value, "J").split()
    scale = {"MJ": 1e6, "kJ": 1e3, "J": 1.0, "mJ": 1e-3, "\N{MICRO SIGN}J": 1e-6}[unit]

    assert float(number) * scale == pytest.approx(value, rel=0.005)
    assert 1 <= float(number) < 1000 or unit == "MJ"


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.00123456, 4, 0.001235),
        (123456.0, 4, 123500.0),
        (-9.9999, 4, -10.0),
        (0.0, 4, 0.0),
        (math.inf, 4, math.inf),
    ],
)
def test_significant(value: float, digits: int, expected: float) -> None:
    assert significant(value, digits) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.0312, "+3.1 %"), (-0.5, "-50.0 %"), (0.0, "+0.0 %")]
)
def test_percent(ratio: float, expected: str) -> None:
    assert percent(ratio) == expected


SOME = Quantity(0.61, "J/token", "b32 on h200")


def test_a_quantity_is_a_float_that_names_itself() -> None:
    assert SOME == 0.61
    assert SOME * 2 == 1.22
    assert repr(SOME) == "610 mJ/token (b32 on h200)"
    assert json.dumps(SOME) == "0.61"


@pytest.mark.parametrize(
    "made", [copy.copy(SOME), copy.deepcopy(SOME), pickle.loads(pickle.dumps(SOME))]
)
def test_a_quantity_can_be_copied_and_sent(made: Quantity) -> None:
    assert (made, made.unit, made.of) == (0.61, "J/token", "b32 on h200")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (
            SOME,
            0.5,
            [
                "610 mJ/token (b32 on h200) < 0.5",
                "the left side differs from the right one by +22.0 %",
            ],
        ),
        (
            0.305,
            SOME,
            [
                "0.305 < 610 mJ/token (b32 on h200)",
                "the left side differs from the right one by -50.0 %",
            ],
        ),
        (SOME, 0, ["610 mJ/token (b32 on h200) < 0"]),
        (SOME, math.nan, ["610 mJ/token (b32 on h200) < nan"]),
        (SOME, "0.5", None),
        (None, SOME, None),
    ],
)
def test_a_failed_comparison_explains_itself(
    left: object, right: object, expected: list[str] | None
) -> None:
    assert Quantity.joules_explain("<", left, right) == expected
