"""What can be asked of a result by name: its point, its latencies, its energies."""

import math
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from pytest_joules.errors import Incomparable, InvalidMeasurement, NotMeasured, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Latency, Result
from pytest_joules.units import si

__tracebackhide__ = is_expected

ENERGY = "energy_per_work_unit_j"
_POINT = frozenset({field.name for field in fields(Point)} | {"work_unit"})
_LATENCY = frozenset(field.name for field in fields(Latency))
_RESULT = frozenset(
    {
        ENERGY,
        "energy_per_token_j",
        "energy_per_image_j",
        "energy_per_video_j",
        "energy_per_response_j",
        "power_w",
        "throughput_work_units_per_s",
        "throughput_tokens_per_s",
        "throughput_per_watt",
        "mean_batch_size",
        "mean_output_tokens",
        "kv_cache_usage",
        "gpu",
        "source",
    }
)
NAMES = _POINT | _LATENCY | _RESULT


def value(result: Result, name: str) -> Any:
    """Look up a field of the point, a latency, or a quantity of the result.

    Raises:
        Incomparable: There is no such name; the message has the nearest ones.
        NotMeasured: This result does not hold it.
        WrongUnit: It is per a work unit that the task does not produce.
    """
    if name not in NAMES:
        near = ", ".join(get_close_matches(name, NAMES))
        told = f"did you mean {near}?" if near else f"known are {', '.join(sorted(NAMES))}."
        raise Incomparable(f"a result has no quantity {name!r}; {told}")
    if name in _POINT:
        return getattr(result.point, name)
    found = getattr(result.latency if name in _LATENCY else result, name)
    if found is None:
        raise NotMeasured(f"{result.point.id}: {name} is not in this {result.source} result.")
    return found


def number(result: Result, name: str) -> float:
    """Look up a quantity that can be compared by its ratio.

    Raises:
        InvalidMeasurement: It is not a positive finite number.
        Incomparable, NotMeasured, WrongUnit: As ``value``.
    """
    found = value(result, name)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not math.isfinite(found) or found <= 0:
        raise InvalidMeasurement(
            f"{result.point.id}: {name}={found!r} is no positive number, so it has no ratio "
            "to another; measure the point again."
        )
    return float(found)


def written(amount: float, name: str, work_unit: str) -> str:
    """Write a quantity with its unit, as its name says it.

    >>> written(0.209, "energy_per_work_unit_j", "token")
    '209 mJ/token'
    >>> written(96, "batch_size", "token")
    '96'
    """
    unit = _unit(name, work_unit)
    return si(amount, unit) if unit else f"{amount:.6g}"


def _unit(name: str, work_unit: str) -> str:
    if name == "throughput_per_watt":
        return f"{work_unit}/s/W"
    if name.startswith("throughput_"):
        return f"{work_unit}/s"
    if name == "energy_per_response_j":
        return "J/response"
    if name.startswith("energy_per_"):
        return f"J/{work_unit}"
    return {"s": "s", "w": "W"}.get(name.rsplit("_", 1)[-1], "")
