"""Baselines: recorded runs of points on a GPU model, in files made for review.

``<root>/<gpu>/<engine>/<task>/<model>.json`` holds, for each point, several runs, one line
each: sorted keys, units in keys, four significant digits. Results that were not measured
live go to ``<root>/<source>/<gpu>/...``, where no live check looks.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_joules import storage
from pytest_joules.catalog import slug
from pytest_joules.errors import (
    BaselineError,
    BaselineMissing,
    FormatError,
    JoulesError,
    is_expected,
)
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.units import significant

__tracebackhide__ = is_expected

SCHEMA = 1
"""Format number. History: 1, the first published format."""

DIGITS = 4
_LONGEST_NAME = 150  # leaves a file name room for a suffix and a temporary name
_SERIES = ("series_energy_j", "series_work_units")

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""For each older schema number, the function that makes the next one of it."""


def path_for(root: Path, point: Point, gpu: str, *, source: str = "live") -> Path:
    """Return the file that holds a point's baseline.

    Names become slugs, so no model or GPU name can lead out of ``root``.
    """
    top = root if source == "live" else root / slug(source)
    return top / slug(gpu) / point.engine / point.task / f"{_file_name(point.model)}.json"


def _file_name(model: str) -> str:
    # The names of two models may make one slug; their points then share a file.
    letters = any(c.isascii() and c.isalnum() for c in model)
    name = slug(model) if letters else "model"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"


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
            if point in runs:
                raise FormatError("this point stands in the file twice; put its runs together")
            runs[point] = tuple(
                Result.from_json(_unpacked(run, point, migrated["gpu"]))
                for run in entry["runs"]
            )
            _require_launched_once(runs[point])
        except (JoulesError, TypeError, ValueError, KeyError, zlib.error) as error:
            raise FormatError(f"{name}: points[{position}]: {error}") from None
    return runs


def _require_launched_once(runs: Sequence[Result]) -> None:
    # Copies of one launch would make the noise look smaller than it is.
    ids = [run.evidence.launch_id for run in runs if run.evidence and run.evidence.launch_id]
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise ValueError(f"launch_id {twice!r} stands in two runs; one launch is one run")


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
    if any(run.source != source for run in runs):
        found = ", ".join(sorted({run.source for run in runs} - {source}))
        raise FormatError(
            f"{path}: {point.id} has runs that are {found}, not {source}; what was not "
            "measured is no baseline here. Take them out and record with --joules-record."
        )
    return runs


def record(root: Path, results: Sequence[Result], *, replace: bool = False) -> tuple[Path, ...]:
    """Add runs to their files; with ``replace``, drop the points' earlier runs first.

    Raises:
        BaselineError: A result broke the validity contract, so it must not be recorded; or a
            file cannot be written: it is left as it is.
        FormatError: An existing file is broken, or a result holds what cannot be read back;
            the file is left as it is.
    """
    by_path: dict[Path, list[Result]] = {}
    for result in results:
        if not result.is_valid:
            codes = ", ".join(reason.code for reason in result.reasons)
            raise BaselineError(
                f"{result.point.id}: an invalid measurement ({codes}) cannot be recorded."
            )
        path = path_for(root, result.point, result.gpu, source=result.source)
        by_path.setdefault(path, []).append(result)
    for path, group in by_path.items():
        try:
            with storage.locked(path):
                _record(path, group, replace=replace)
        except OSError as error:
            raise BaselineError(
                f"{path}: cannot be written: {error}; it is as before."
            ) from None
    return tuple(by_path)


def _record(path: Path, results: Sequence[Result], *, replace: bool) -> None:
    runs = load(path) if path.exists() else {}
    for point in {result.point for result in results}:
        kept = () if replace else runs.get(point, ())
        runs[point] = (*kept, *(result for result in results if result.point == point))
    storage.write_atomically(path, _readable(dump(results[0].gpu, runs), name=str(path)))


def _readable(text: str, *, name: str) -> str:
    """Refuse a text that could not be read back, before it replaces one that can."""
    parse(storage.parse(text, name=name), name=name)
    return text


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
    for name in ("point", "gpu", "reasons"):
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
    values = {**run, "point": point.as_json(), "gpu": gpu}
    if run["evidence"] is not None:
        series = {name: _decompressed(run["evidence"].get(name, [])) for name in _SERIES}
        if len({len(numbers) for numbers in series.values()}) > 1:
            raise ValueError(f"{' and '.join(_SERIES)} differ in length")
        values["evidence"] = {**run["evidence"], **series}
    return values


def _compressed(series: Sequence[float]) -> str:
    packed = zlib.compress(np.asarray(series, dtype="<f4").tobytes(), 9)
    return base64.b64encode(packed).decode()


def _decompressed(series: str | list[float]) -> list[float]:
    if not isinstance(series, str):
        return series
    unpacked = zlib.decompress(base64.b64decode(series, validate=True))
    numbers = np.frombuffer(unpacked, dtype="<f4")
    if not np.isfinite(numbers).all():
        raise ValueError("a series holds what is not a number")
    return [float(value) for value in numbers]


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
