"""What a baseline file holds, and how it is written and read back: JSON made for review.

For each point several runs, one line each: sorted keys, units in keys, four significant
digits. What stands in a file must agree with itself (``baseline.sound``).
"""

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

import numpy as np

from pytest_joules import storage
from pytest_joules.baseline.sound import require_alike, require_sound
from pytest_joules.errors import FormatError, JoulesError, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.units import significant

__tracebackhide__ = is_expected

SCHEMA = 2
"""Format number. History: 1, the first; 2, topology in identity, an unknown model_revision is
null."""

DIGITS = 4
_MOST_BYTES = 4 << 20
"""Of an unpacked series: 12 days of sub-windows. A kilobyte can unpack to a gigabyte."""

_SERIES = ("series_energy_j", "series_work_units")

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Say null where version 1 knew nothing: several GPUs then have to be recorded again."""
    made = deepcopy(values)
    for entry in made["points"]:
        for run in entry["runs"]:
            provenance = run["provenance"]
            provenance["identity"].setdefault("topology", None)
            provenance["context"]["model_revision"] = (
                provenance["context"].get("model_revision") or None
            )
    return made


MIGRATIONS: dict[int, Migration] = {1: _from_1}
"""For each older schema number, the function that makes the next one of it."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Why a baseline was moved to newly measured runs."""

    reason: str
    at: str
    """UTC, ISO 8601."""

    change: float
    """Mean energy per work unit of the new runs over that of the old ones, minus one."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Everything that a file holds of one point."""

    runs: tuple[Result, ...] = ()
    accepted: tuple[Acceptance, ...] = ()
    """Every move of the baseline, oldest first; the runs before are in the repository."""

    calibration: Mapping[str, float | None] = field(default_factory=dict)
    """Noise and error rates found by ``joules calibrate``; empty before it has run."""


def parse(values: Any, *, name: str) -> dict[Point, tuple[Result, ...]]:
    """Build runs from a file's JSON.

    Raises:
        FormatError: As ``load``.
    """
    return {point: e.runs for point, e in parse_entries(values, name=name).items()}


def parse_entries(values: Any, *, name: str) -> dict[Point, Entry]:
    """Build all that a file's JSON holds, by point.

    Raises:
        FormatError: As ``load``.
    """
    migrated = _migrated(values, name=name)
    storage.require_schema(migrated, "baseline", name=name)
    found: dict[Point, Entry] = {}
    for position, entry in enumerate(migrated["points"]):
        try:
            point = Point.from_json(entry["point"])
            if point in found:
                raise FormatError("this point stands in the file twice; put its runs together")
            found[point] = _entry(entry, point, migrated["gpu"])
            require_alike(found[point].runs)
        except _UNREADABLE as error:
            raise FormatError(f"{name}: points[{position}]: {error}") from None
    return found


def _entry(values: Mapping[str, Any], point: Point, gpu: str) -> Entry:
    return Entry(
        runs=tuple(_run(run, point, gpu, position=i) for i, run in enumerate(values["runs"])),
        accepted=tuple(Acceptance(**each) for each in values.get("accepted", ())),
        calibration=values.get("calibration", {}),
    )


def _run(values: Mapping[str, Any], point: Point, gpu: str, *, position: int) -> Result:
    try:
        run = Result.from_json(_unpacked(values, point, gpu))
        require_sound(run)
    except _UNREADABLE as error:
        raise FormatError(f"runs[{position}]: {error}") from None
    return run


_UNREADABLE = (JoulesError, TypeError, ValueError, LookupError, ArithmeticError, zlib.error)


def dump(gpu: str, runs: Mapping[Point, Sequence[Result]]) -> str:
    """Write runs as a file's text: one line a run, sorted keys."""
    return dump_entries(gpu, {point: Entry(runs=tuple(each)) for point, each in runs.items()})


def dump_entries(gpu: str, found: Mapping[Point, Entry]) -> str:
    """Write a file's text: one line a run, sorted keys."""
    blocks = [_block(point, found[point]) for point in sorted(found, key=_order)]
    return (
        f'{{\n  "gpu": {json.dumps(gpu)},\n  "points": [\n'
        + ",\n".join(blocks)
        + f'\n  ],\n  "schema": {SCHEMA}\n}}\n'
    )


def _order(point: Point) -> tuple[str, int, int, str]:
    return point.precision, point.num_gpus, point.batch_size, point.hash


def _block(point: Point, entry: Entry) -> str:
    lines = ",\n".join(f"        {_line(_packed(run))}" for run in entry.runs)
    moves = [_line(asdict(move)) for move in entry.accepted]
    calibration = _line(_reviewable(dict(entry.calibration)))
    parts = [
        '      "accepted": [\n        ' + ",\n        ".join(moves) + "\n      ]"
        if moves
        else "",
        f'      "calibration": {calibration}' if entry.calibration else "",
        f'      "point": {_line(point.as_json())}',
        f'      "runs": [\n{lines}\n      ]',
    ]
    return "    {\n" + ",\n".join(filter(None, parts)) + "\n    }"


def _line(values: Any) -> str:
    return json.dumps(values, sort_keys=True)


def _reviewable(value: Any) -> Any:
    """Round to four digits and leave out what was not measured."""
    if isinstance(value, float):
        return significant(value, DIGITS)
    if isinstance(value, dict):
        return {key: _reviewable(v) for key, v in value.items() if v is not None}
    return [_reviewable(item) for item in value] if isinstance(value, list) else value


def _packed(run: Result) -> dict[str, Any]:
    values = run.as_json()
    for name in ("point", "gpu", "reasons", "timeline"):
        del values[name]
    evidence = values["evidence"]
    if evidence is not None:
        for name in _SERIES:
            evidence[name] = _compressed(evidence[name])
    # Identity must compare equal to the machine's own values, so it is never rounded.
    return {"evidence": None, **_reviewable(values), "provenance": values["provenance"]}


def _unpacked(run: Mapping[str, Any], point: Point, gpu: str) -> dict[str, Any]:
    if run.get("reasons"):
        raise ValueError("a run with reasons is not valid, so it is no baseline")
    values = {**run, "point": point, "gpu": gpu}
    if run["evidence"] is not None:
        series = {name: _decompressed(run["evidence"].get(name, [])) for name in _SERIES}
        if len({len(numbers) for numbers in series.values()}) > 1:
            raise ValueError(f"{' and '.join(_SERIES)} differ in length")
        for name, numbers in series.items():
            # A sum is NaN or infinite where any of its numbers is.
            if not (min(numbers, default=0) >= 0 and sum(numbers) < inf):
                raise ValueError(f"{name} holds what is not a number, or below zero")
        values["evidence"] = {**run["evidence"], **series}
    return values


def _compressed(series: Sequence[float]) -> str:
    packed = zlib.compress(np.asarray(series, dtype="<f4").tobytes(), 9)
    return base64.b64encode(packed).decode()


def _decompressed(series: str | list[float]) -> list[float]:
    if not isinstance(series, str):
        return series
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(base64.b64decode(series, validate=True), _MOST_BYTES)
    if not unpacker.eof:
        raise ValueError(f"a series is cut off, or longer than {_MOST_BYTES // 4} values")
    numbers: list[float] = np.frombuffer(unpacked, dtype="<f4").tolist()
    return numbers


def _migrated(values: Any, *, name: str) -> dict[str, Any]:
    number = values.get("schema") if isinstance(values, dict) else None
    if isinstance(number, bool) or not isinstance(number, int):
        raise FormatError(f"{name}: schema is {number!r}; a baseline file names its format.")
    try:
        while number in MIGRATIONS and number < SCHEMA:
            values, number = {**MIGRATIONS[number](values), "schema": number + 1}, number + 1
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{name}: schema is {number}, but it is not what that format says: {error!r}."
        ) from None
    if number != SCHEMA:
        remedy = "upgrade pytest-joules" if number > SCHEMA else "record it again"
        raise FormatError(f"{name}: schema is {number}, this version reads {SCHEMA}; {remedy}.")
    return dict(values)
