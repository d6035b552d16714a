"""Baselines: recorded runs of points on a GPU model, in files made for review.

``<root>/<gpu>/<engine>/<task>/<model>.json`` holds, for each point, several runs, one line
each: sorted keys, units in keys, four significant digits. Results that were not measured
live go to ``<root>/<source>/<gpu>/...``, where no live check looks.
"""

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_joules import storage
from pytest_joules.catalog import slug
from pytest_joules.errors import BaselineMissing, FormatError, JoulesError, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.units import significant

__tracebackhide__ = is_expected

SCHEMA = 1
"""Format number. History: 1, the first published format."""

DIGITS = 4

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""For each older schema number, the function that makes the next one of it."""


def path_for(root: Path, point: Point, gpu: str, *, source: str = "live") -> Path:
    """Return the file that holds a point's baseline.

    Names become slugs, so no model or GPU name can lead out of ``root``.
    """
    top = root if source == "live" else root / slug(source)
    return top / slug(gpu) / point.engine / point.task / f"{slug(point.model)}.json"


def load(path: Path) -> dict[Point, tuple[Result, ...]]:
    """Read all runs of one file, by point.

    Raises:
        FormatError: The file is broken or of a newer format; names file and field.
    """
    return parse(storage.read(path), name=str(path))


def parse(values: Any, *, name: str) -> dict[Point, tuple[Result, ...]]:
    """Build runs from a file's JSON.

    Raises:
        FormatError: As ``load``.
    """
    migrated = _migrated(values, name=name)
    storage.require_schema(migrated, "baseline", name=name)
    runs: dict[Point, tuple[Result, ...]] = {}
    for position, entry in enumerate(migrated["points"]):
        try:
            point = Point.from_json(entry["point"])
            runs[point] = tuple(
                Result.from_json(_unpacked(run, point, migrated["gpu"]))
                for run in entry["runs"]
            )
        except (JoulesError, TypeError, ValueError, KeyError, zlib.error) as error:
            raise FormatError(f"{name}: points[{position}]: {error}") from None
    return runs


def runs_for(root: Path, point: Point, gpu: str, *, source: str = "live") -> tuple[Result, ...]:
    """Return the recorded runs of a point, oldest first.

    Raises:
        BaselineMissing: Nothing is recorded for it.
        FormatError: The file is broken.
    """
    path = path_for(root, point, gpu, source=source)
    if not path.exists():
        raise BaselineMissing(
            f"{point.id}: no baseline for {gpu} ({path} does not exist). "
            "Record one with --joules-record."
        )
    runs = load(path).get(point)
    if not runs:
        raise BaselineMissing(
            f"{point.id}: {path} holds other points, but not this one. "
            "Record it with --joules-record."
        )
    return runs


def record(root: Path, results: Sequence[Result], *, replace: bool = False) -> tuple[Path, ...]:
    """Add runs to their files; with ``replace``, drop the points' earlier runs first.

    Raises:
        FormatError: An existing file is broken; it is left as it is.
        ValueError: A result broke the validity contract, so it must not be recorded.
        OSError: A file cannot be written; it is left as it is.
    """
    by_path: dict[Path, list[Result]] = {}
    for result in results:
        if not result.is_valid:
            raise ValueError(f"{result.point.id}: an invalid measurement cannot be recorded")
        path = path_for(root, result.point, result.gpu, source=result.source)
        by_path.setdefault(path, []).append(result)
    for path, group in by_path.items():
        with storage.locked(path):
            _record(path, group, replace=replace)
    return tuple(by_path)


def _record(path: Path, results: Sequence[Result], *, replace: bool) -> None:
    runs = load(path) if path.exists() else {}
    for point in {result.point for result in results}:
        kept = () if replace else runs.get(point, ())
        runs[point] = (*kept, *(result for result in results if result.point == point))
    storage.write_atomically(path, dump(results[0].gpu, runs))


def dump(gpu: str, runs: Mapping[Point, Sequence[Result]]) -> str:
    """Write runs as a file's text: one line a run, sorted keys."""
    blocks = [_block(point, runs[point]) for point in sorted(runs, key=_order)]
    return (
        f'{{\n  "gpu": {json.dumps(gpu)},\n  "points": [\n'
        + ",\n".join(blocks)
        + f'\n  ],\n  "schema": {SCHEMA}\n}}\n'
    )


def _order(point: Point) -> tuple[str, int, int, str]:
    return point.precision, point.num_gpus, point.batch_size, point.hash


def _block(point: Point, runs: Sequence[Result]) -> str:
    lines = ",\n".join(f"        {_line(_packed(run))}" for run in runs)
    head = f'    {{\n      "point": {_line(point.as_json())},\n      "runs": [\n'
    return f"{head}{lines}\n      ]\n    }}"


def _line(values: Any) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False)


def _reviewable(value: Any) -> Any:
    """Round to four digits and leave out what was not measured."""
    if isinstance(value, float):
        return significant(value, DIGITS)
    if isinstance(value, dict):
        return {key: _reviewable(v) for key, v in value.items() if v is not None}
    return [_reviewable(item) for item in value] if isinstance(value, list) else value


def _packed(run: Result) -> dict[str, Any]:
    values = run.as_json()
    for name in ("point", "gpu", "reasons"):
        del values[name]
    evidence = values["evidence"]
    if evidence is not None:
        for name in ("series_energy_j", "series_work_units"):
            evidence[name] = _compressed(evidence[name])
    # Identity must compare equal to the machine's own values, so it is never rounded.
    return {"evidence": None, **_reviewable(values), "provenance": values["provenance"]}


def _unpacked(run: Mapping[str, Any], point: Point, gpu: str) -> dict[str, Any]:
    values = {**run, "point": point.as_json(), "gpu": gpu, "reasons": []}
    if run["evidence"] is not None:
        evidence = dict(run["evidence"])
        for name in ("series_energy_j", "series_work_units"):
            evidence[name] = _decompressed(evidence[name])
        values["evidence"] = evidence
    return values


def _compressed(series: Sequence[float]) -> str:
    packed = zlib.compress(np.asarray(series, dtype="<f4").tobytes(), 9)
    return base64.b64encode(packed).decode()


def _decompressed(text: str) -> list[float]:
    unpacked = zlib.decompress(base64.b64decode(text, validate=True))
    return [float(value) for value in np.frombuffer(unpacked, dtype="<f4")]


def _migrated(values: Any, *, name: str) -> dict[str, Any]:
    number = values.get("schema") if isinstance(values, dict) else None
    if isinstance(number, bool) or not isinstance(number, int):
        raise FormatError(f"{name}: schema is {number!r}; a baseline file names its format.")
    while number in MIGRATIONS and number < SCHEMA:
        values, number = {**MIGRATIONS[number](values), "schema": number + 1}, number + 1
    if number != SCHEMA:
        raise FormatError(
            f"{name}: schema is {number}, this version reads up to {SCHEMA}; "
            "upgrade pytest-joules."
        )
    return dict(values)
