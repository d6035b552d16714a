"""``joules baseline``: what is recorded, and how it is moved."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_joules import baseline, storage
from pytest_joules.baseline import Entry
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.history import drawn
from pytest_joules.errors import BaselineMissing, ConfigurationError, is_expected
from pytest_joules.gate.calibration import Calibration
from pytest_joules.point import Point
from pytest_joules.report.terminal import calibrations
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.units import counted, percent, si

__tracebackhide__ = is_expected


def accept(what: str, runs: Sequence[Result], *, root: Path, reason: str) -> Answer:
    """Move baselines to newly measured runs; tell of each point.

    Args:
        what: A point's id, or the path of a baseline file for all of its points.
        runs: Results of one stack.
        root: Folder of the baselines.
        reason: Why the new level is right; stored with it.

    Raises:
        ConfigurationError: The reason is empty, or the results do not fit.
        BaselineError: A baseline cannot be moved; it is as it was.
    """
    require_reason(reason)
    _require_not_planted(runs)
    wanted = _wanted(what, [run for run in runs if run.is_valid])
    at = now()
    moves = [
        (group, baseline.accept(root, group, reason=reason.strip(), at=at)) for group in wanted
    ]
    return Answer(
        lines=[
            f"{group[0].point.id}: {percent(move.change)}, {counted(len(group), 'run')}"
            for group, move in moves
        ],
        values=[
            {"point": group[0].point.id, "num_runs": len(group), **asdict(move)}
            for group, move in moves
        ],
    )


def require_reason(reason: str) -> None:
    """Refuse to move a baseline without a word.

    Raises:
        ConfigurationError: The reason is empty.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; say why the new level is right.")


def _require_not_planted(runs: Sequence[Result]) -> None:
    planted = next((note for run in runs for note in run.notes if note.code == "planted"), None)
    if planted is not None:
        raise ConfigurationError(
            f"{planted.text} A baseline of it would hide the planted cause."
        )


def now() -> str:
    """Return the time as baselines store it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _wanted(what: str, runs: Sequence[Result]) -> list[list[Result]]:
    path = Path(what)
    in_file = baseline.entries(path) if path.suffix == ".json" else {}
    groups: dict[tuple[Point, str], list[Result]] = {}
    for run in runs:
        if run.point in in_file or run.point.id == what:
            groups.setdefault((run.point, run.gpu), []).append(run)
    if not groups:
        known = ", ".join(sorted({run.point.id for run in runs})) or "nothing valid"
        raise ConfigurationError(f"{what}: the results hold no such point; they hold {known}.")
    return list(groups.values())


def listed(root: Path) -> Answer:
    """Tell of all baselines below a folder.

    Raises:
        BaselineMissing: There are none.
    """
    found = list(stored(root))
    if not found:
        raise BaselineMissing(f"{root}: no baselines. Record some with --joules-record.")
    head = ("point", "gpu", "source", "energy", "runs", "moved", "detectable")
    return Answer(
        lines=table([head, *(_row(point, entry) for _, point, entry in found)]),
        values=[_summary(path, point, entry) for path, point, entry in found],
    )


def stored(root: Path) -> Iterator[tuple[Path, Point, Entry]]:
    """Yield every point below a folder with the file that it stands in."""
    for path in storage.files_below(root, ".json"):
        for point, entry in baseline.entries(path).items():
            yield path, point, entry


def _summary(path: Path, point: Point, entry: Entry) -> dict[str, Any]:
    return {
        "path": str(path),
        "point": point.id,
        "gpu": entry.runs[0].gpu,
        "source": entry.runs[0].source,
        f"energy_per_{point.work_unit}_j": _mean_j(entry),
        "num_runs": len(entry.runs),
        "accepted": [asdict(move) for move in entry.accepted],
        "calibration": dict(entry.calibration),
    }


def _mean_j(entry: Entry) -> float:
    return fmean(run.energy_per_work_unit_j for run in entry.runs)


def _row(point: Point, entry: Entry) -> tuple[str, ...]:
    first = entry.runs[0]
    detectable = entry.calibration.get("detectable_change")
    return (
        point.id,
        first.gpu,
        first.source,
        si(_mean_j(entry), f"J/{point.work_unit}"),
        str(len(entry.runs)),
        entry.accepted[-1].at[:10] if entry.accepted else "",
        percent(detectable).lstrip("+") if detectable is not None else "",
    )


def shown(what: str, root: Path) -> Answer:
    """Tell what is stored of the points with this id: runs, moves, calibration.

    Raises:
        BaselineMissing: There is none.
    """
    found = [each for each in stored(root) if each[1].id == what]
    if not found:
        raise BaselineMissing(f"{what}: no baseline below {root}; see `joules baseline list`.")
    return Answer(
        lines=[line for each in found for line in _lines(*each)],
        values=[
            {**_summary(*each), "runs": [run.as_json() for run in each[2].runs]}
            for each in found
        ],
    )


def _lines(path: Path, point: Point, entry: Entry) -> list[str]:
    moves = [
        f"moved {move.at}, {percent(move.change)}: {move.reason}" for move in entry.accepted
    ]
    made = (
        calibrations({point: Calibration.from_json(entry.calibration)})
        if entry.calibration
        else []
    )
    return [str(path), *drawn(point, entry.runs), *moves, *made]
