"""Baselines: recorded runs of points on a GPU model, in files made for review.

``<root>/<gpu>/<engine>/<task>/<model>.json`` holds, for each point, several runs, one line
each: sorted keys, units in keys, four significant digits. Results that were not measured
live go to ``<root>/<source>/<gpu>/...``, where no live check looks.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
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
from pytest_joules.provenance import require_comparable
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
    return {point: entry.runs for point, entry in entries(path).items()}


def entries(path: Path) -> dict[Point, Entry]:
    """Read one file; a file that does not exist holds nothing.

    Raises:
        FormatError: As ``load``.
    """
    return parse_entries(storage.read(path), name=str(path)) if path.exists() else {}


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
            _require_launched_once(found[point].runs)
        except (JoulesError, TypeError, ValueError, KeyError, zlib.error) as error:
            raise FormatError(f"{name}: points[{position}]: {error}") from None
    return found


def _entry(values: Mapping[str, Any], point: Point, gpu: str) -> Entry:
    return Entry(
        runs=tuple(Result.from_json(_unpacked(run, point, gpu)) for run in values["runs"]),
        accepted=tuple(Acceptance(**each) for each in values.get("accepted", ())),
        calibration=values.get("calibration", {}),
    )


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
        BaselineMismatch: Earlier runs are of other hardware; the file is left as it is.
        FormatError: An existing file is broken, or a result holds what cannot be read back;
            the file is left as it is.
    """
    _require_valid(results)
    by_path: dict[Path, list[Result]] = {}
    for result in results:
        path = path_for(root, result.point, result.gpu, source=result.source)
        by_path.setdefault(path, []).append(result)
    for path, group in by_path.items():
        with _writing(path):
            _record(path, group, drop=replace)
    return tuple(by_path)


def _require_valid(results: Sequence[Result]) -> None:
    for result in results:
        if not result.is_valid:
            codes = ", ".join(reason.code for reason in result.reasons)
            raise BaselineError(
                f"{result.point.id}: an invalid measurement ({codes}) cannot be recorded."
            )


def _record(path: Path, results: Sequence[Result], *, drop: bool) -> None:
    found = entries(path)
    for point in {result.point for result in results}:
        entry = Entry() if drop else found.get(point, Entry())
        added = [result for result in results if result.point == point]
        for run in entry.runs:
            theirs = run.provenance.identity
            require_comparable(added[0].provenance.identity, theirs, point.id)
        found[point] = replace(entry, runs=(*entry.runs, *added))
    _write(path, results[0].gpu, found)


def _write(path: Path, gpu: str, found: Mapping[Point, Entry]) -> None:
    storage.write_atomically(path, _readable(dump_entries(gpu, found), name=str(path)))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Hold the file's lock; a failure to write is told as such.

    Raises:
        BaselineError: The file cannot be written; it is as it was.
    """
    try:
        with storage.locked(path):
            yield
    except OSError as error:
        raise BaselineError(f"{path}: cannot be written: {error}; it is as before.") from None


def store_calibration(path: Path, point: Point, values: Mapping[str, float | None]) -> None:
    """Put a calibration beside the runs that it rests on.

    Raises:
        BaselineError: The file cannot be written; it is as it was.
        FormatError: The file is broken.
    """
    with _writing(path):
        found = entries(path)
        gpu = found[point].runs[0].gpu
        found[point] = replace(found[point], calibration=values)
        _write(path, gpu, found)


def accept(root: Path, runs: Sequence[Result], *, reason: str, at: str) -> Acceptance:
    """Replace the runs of one point by newly measured ones; keep the reason.

    A calibration of the old runs is dropped with them.

    Raises:
        BaselineMissing: There is no baseline to move.
        BaselineError: A run is not valid, or the file cannot be written: it is as it was.
        FormatError: The file is broken.
    """
    _require_valid(runs)
    first = runs[0]
    path = path_for(root, first.point, first.gpu, source=first.source)
    with _writing(path):
        found = entries(path)
        if first.point not in found:
            raise BaselineMissing(
                f"{first.point.id}: no baseline for {first.gpu} to move in {path}. Record one "
                "with --joules-record."
            )
        old = found[first.point]
        move = Acceptance(reason=reason, at=at, change=_change(old.runs, runs))
        found[first.point] = Entry(runs=tuple(runs), accepted=(*old.accepted, move))
        _write(path, first.gpu, found)
    return move


def _change(old: Sequence[Result], new: Sequence[Result]) -> float:
    then, now = (fmean(run.energy_per_work_unit_j for run in runs) for runs in (old, new))
    return significant(now / then - 1, DIGITS)


def _readable(text: str, *, name: str) -> str:
    """Refuse a text that could not be read back, before it replaces one that can."""
    parse_entries(storage.parse(text, name=name), name=name)
    return text


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
