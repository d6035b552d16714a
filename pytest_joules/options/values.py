"""What an option's value may be, wherever it stands: text, or pyproject's typed values.

Each function returns the value that ``Options`` holds, or raises ``ValueError`` with what to
give instead.
"""

from pathlib import Path
from typing import Any

SOURCES = ("live", "recorded", "simulated")


def text(value: Any) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError("give a string")  # noqa: TRY004  as every wrong value
    return value


def path(value: Any) -> Path:
    """Read a path."""
    return Path(text(value))


def gpu(value: Any) -> str:
    """Read a GPU's name as its slug: ``h200``, ``H200`` and ``NVIDIA H200`` are one."""
    from pytest_joules.catalog import gpu_slug  # noqa: PLC0415  reads its tables

    return gpu_slug(text(value))


def number(value: Any) -> float:
    """Read a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("give a number")  # noqa: TRY004  as every wrong value
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("this is no number") from None


def positive(value: Any) -> float:
    """Read a number above 0."""
    read = number(value)
    if not 0 < read < float("inf"):
        raise ValueError("give a number above 0")
    return read


def count(value: Any) -> int:
    """Read a whole number of at least 1."""
    read = number(value)
    if not 1 <= read < float("inf") or read != int(read):
        raise ValueError("give a whole number of at least 1")
    return int(read)


def _fraction(value: Any) -> float:
    if isinstance(value, str) and value.endswith("%"):
        return number(value.removesuffix("%").strip()) / 100
    return number(value)


def ratio(value: Any) -> float:
    """Read a share such as 0.03 or "3%"."""
    share = _fraction(value)
    if not 0 < share < 1:
        raise ValueError("give a share between 0 and 1, such as 3% or 0.03")
    return share


def source(value: Any) -> str:
    """Read where results come from."""
    if text(value) not in SOURCES:
        raise ValueError(f"choose one of {', '.join(SOURCES)}")
    return text(value)


def names(value: Any) -> tuple[str, ...]:
    """Read names: separated by commas, or a list."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ValueError("give a list of strings, or one with commas")
    return tuple(name.strip() for name in listed if name.strip())


def plants(value: Any) -> dict[str, float]:
    """Read causes with their changes: ``kv-memory:-30%,clock:-5%``."""
    pairs = [each.partition(":") for each in names(value)]
    found = [name for name, _, _ in pairs]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice")
    return {name: _fraction(change) for name, _, change in pairs}


def fleet(value: Any) -> str:
    """Read where a Ray cluster is."""
    given = text(value)
    host, _, port = given.removeprefix("ray://").rpartition(":")
    is_address = bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 2**16
    if given not in ("auto", "local") and not is_address:
        raise ValueError("give ray://HOST:PORT, HOST:PORT, auto or local")
    return given


def switch(value: Any) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return value.lower() == "true"
