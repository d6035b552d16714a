"""Baselines: recorded runs of points on a GPU model, in files made for review.

``<root>/<gpu>/<engine>/<task>/<model>.json`` holds, for each point, several runs, one line
each: sorted keys, units in keys, four significant digits. Results that were not measured
live go to ``<root>/<source>/<gpu>/...``, where no live check looks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pytest_joules import storage
from pytest_joules.baseline.format import (
    DIGITS,
    MIGRATIONS,
    SCHEMA,
    Acceptance,
    Entry,
    dump,
    dump_entries,
    parse,
    parse_entries,
)
from pytest_joules.baseline.sound import work
from pytest_joules.catalog import file_name, slug
from pytest_joules.errors import (
    BaselineError,
    BaselineMismatch,
    BaselineMissing,
    FormatError,
    is_expected,
)
from pytest_joules.point import Point
from pytest_joules.provenance import require_comparable
from pytest_joules.result import Result
from pytest_joules.units import significant

__tracebackhide__ = is_expected

__all__ = [
    "MIGRATIONS",
    "SCHEMA",
    "Acceptance",
    "Entry",
    "accept",
    "dump",
    "dump_entries",
    "entries",
    "load",
    "moved",
    "parse",
    "parse_entries",
    "path_for",
    "record",
    "rewrite",
    "runs_for",
    "store_calibration",
]


def path_for(root: Path, point: Point, gpu: str, *, source: str = "live") -> Path:
    """Return the file that holds a point's baseline.

    Names become slugs, so no model or GPU name can lead out of ``root``.
    """
    top = root if source == "live" else root / slug(source)
    folder = top / file_name(slug(gpu)) / point.engine / point.task
    return folder / f"{file_name(point.model)}.json"


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
    return parse_entries(storage.read(path), name=str(path)) if storage.exists(path) else {}


def runs_for(root: Path, point: Point, gpu: str, *, source: str = "live") -> tuple[Result, ...]:
    """Return the recorded runs of a point, oldest first.

    Raises:
        BaselineMissing: Nothing is recorded for it.
        FormatError: The file is broken.
    """
    path = path_for(root, point, gpu, source=source)
    if not storage.exists(path):
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
    if slug(runs[0].gpu) != slug(gpu):
        raise FormatError(
            f"{path}: gpu is {runs[0].gpu!r}, but {gpu!r} was asked for (--gpu); the file was "
            "copied from another folder."
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
        # Of the added ones, too: settings may have changed between their launches.
        for run in (*entry.runs, *added[:-1]):
            theirs = run.provenance.identity
            require_comparable(added[-1].provenance.identity, theirs, point.id)
        if point.work_unit == "token":
            _require_same_work(path, entry.runs[:1], added[0])
        found[point] = replace(entry, runs=(*entry.runs, *added))
    _write(path, results[0].gpu, found)


def _require_same_work(path: Path, first: Sequence[Result], added: Result) -> None:
    for run in first:
        if run.evidence and added.evidence and work(run.evidence) != work(added.evidence):
            raise BaselineMismatch(
                f"{added.point.id}: {path} holds runs of other work than was measured "
                f"({work(run.evidence)} and {work(added.evidence)} as num_requests, "
                "start_index, end_index). Another session has recorded it since this one "
                "began; record again, which repeats that work."
            )


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


def rewrite(path: Path, change: Callable[[dict[Point, Entry]], dict[Point, Entry]]) -> None:
    """Change what a file holds, under its lock: all of it, or nothing.

    Raises:
        BaselineError: The file cannot be written; it is as it was.
        FormatError: The file is broken.
    """
    with _writing(path):
        found = change(entries(path))
        _write(path, next(iter(found.values())).runs[0].gpu, found)


def store_calibration(path: Path, point: Point, values: Mapping[str, float | None]) -> None:
    """Put a calibration beside the runs that it rests on; raises as ``rewrite``."""
    rewrite(path, lambda old: {**old, point: replace(old[point], calibration=values)})


def accept(root: Path, runs: Sequence[Result], *, reason: str, at: str) -> Acceptance:
    """Replace the runs of one point by newly measured ones; keep the reason.

    A calibration of the old runs is dropped with them.

    Raises:
        BaselineMissing: There is no baseline to move.
        BaselineError: A run is not valid; or as ``rewrite``.
    """
    _require_valid(runs)
    first = runs[0]
    path = path_for(root, first.point, first.gpu, source=first.source)

    def change(found: dict[Point, Entry]) -> dict[Point, Entry]:
        if first.point not in found:
            raise BaselineMissing(
                f"{first.point.id}: no baseline for {first.gpu} to move in {path}. Record one "
                "with --joules-record."
            )
        return {**found, first.point: moved(found[first.point], runs, reason=reason, at=at)}

    rewrite(path, change)
    return entries(path)[first.point].accepted[-1]


def moved(old: Entry, runs: Sequence[Result], *, reason: str, at: str) -> Entry:
    """Return an entry with other runs and the reason; what rested on the old ones goes."""
    then, now = (fmean(run.energy_per_work_unit_j for run in each) for each in (old.runs, runs))
    move = Acceptance(reason=reason, at=at, change=significant(now / then - 1, DIGITS))
    return Entry(runs=tuple(runs), accepted=(*old.accepted, move))


def _readable(text: str, *, name: str) -> str:
    """Refuse a text that could not be read back, before it replaces one that can."""
    parse_entries(storage.parse(text, name=name), name=name)
    return text
