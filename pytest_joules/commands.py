"""What the ``joules`` command does with baselines and stored sessions; lines out."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pytest_joules import baseline, record
from pytest_joules.baseline import Entry
from pytest_joules.errors import BaselineMissing, ConfigurationError, is_expected
from pytest_joules.gate.calibration import Calibration
from pytest_joules.point import Point
from pytest_joules.report.expected import beside
from pytest_joules.report.terminal import calibrations, summary
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.session import Ledger
from pytest_joules.sources.recorded import RecordedSource
from pytest_joules.sources.reference import reference_lines
from pytest_joules.units import percent, si

__tracebackhide__ = is_expected


def accept(what: str, runs: Sequence[Result], *, root: Path, reason: str) -> list[str]:
    """Move baselines to newly measured runs; return a line for each point.

    Args:
        what: A point's id, or the path of a baseline file for all of its points.
        runs: Results of one stack.
        root: Folder of the baselines.
        reason: Why the new level is right; stored with it.

    Raises:
        ConfigurationError: The reason is empty, or the results do not fit.
        BaselineError: A baseline cannot be moved; it is as it was.
    """
    if not reason.strip():
        raise ConfigurationError("--reason is empty; say why the new level is right.")
    wanted = _wanted(what, [run for run in runs if run.is_valid])
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lines = []
    for group in wanted:
        moved = baseline.accept(root, group, reason=reason.strip(), at=at)
        lines.append(f"{group[0].point.id}: {percent(moved.change)}, {len(group)} runs")
    return lines


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


def runs_of_stack(runs: Sequence[Result], stack: str) -> list[Result]:
    """Return the runs of one stack; without a name there must be only one.

    Raises:
        ConfigurationError: There are several stacks, or none of that name.
    """
    known = sorted({run.provenance.context.stack for run in runs})
    if not stack and len(known) > 1:
        raise ConfigurationError(
            f"the results are of stacks {', '.join(known)}; say which with --stack=NAME."
        )
    if stack and stack not in known:
        raise ConfigurationError(f"the results hold {', '.join(known)}, not stack {stack}.")
    return [run for run in runs if not stack or run.provenance.context.stack == stack]


def measured(results: Sequence[Result], data: Path | None) -> list[str]:
    """Show results as the energy section does, beside the latent model and published ones.

    Raises:
        JoulesError: The published data cannot be read.
    """
    lines = [*summary(Ledger(results=list(results))), *beside(results)]
    if data is None:
        return lines
    return [*lines, *reference_lines(results, RecordedSource.from_options(data))]


def listed(root: Path) -> list[str]:
    """Return a table of all baselines below a folder.

    Raises:
        BaselineMissing: There are none.
    """
    rows = [
        _row(point, entry)
        for path in _files(root)
        for point, entry in baseline.entries(path).items()
    ]
    if not rows:
        raise BaselineMissing(f"{root}: no baselines. Record some with --joules-record.")
    return table([("point", "gpu", "source", "energy", "runs", "moved", "detectable"), *rows])


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*.json")) if not path.name.startswith("."))


def _row(point: Point, entry: Entry) -> tuple[str, ...]:
    energies = [run.energy_per_work_unit_j for run in entry.runs]
    first = entry.runs[0]
    detectable = entry.calibration.get("detectable_change")
    return (
        point.id,
        first.gpu,
        first.source,
        si(sum(energies) / len(energies), f"J/{point.work_unit}"),
        str(len(energies)),
        entry.accepted[-1].at[:10] if entry.accepted else "",
        percent(detectable).lstrip("+") if detectable is not None else "",
    )


def shown(what: str, root: Path) -> list[str]:
    """Return what is stored of the points with this id: runs, moves, calibration.

    Raises:
        BaselineMissing: There is none.
    """
    lines: list[str] = []
    for path in _files(root):
        for point, entry in baseline.entries(path).items():
            if point.id == what:
                lines += [str(path), *_shown(point, entry)]
    if not lines:
        raise BaselineMissing(f"{what}: no baseline below {root}; see `joules baseline list`.")
    return lines


def _shown(point: Point, entry: Entry) -> list[str]:
    unit = point.work_unit
    runs = [
        (
            run.provenance.context.recorded_at or "-",
            run.provenance.context.stack or "-",
            si(run.energy_per_work_unit_j, f"J/{unit}", 4),
            si(run.power_w, "W"),
        )
        for run in entry.runs
    ]
    moves = [
        f"moved {move.at}, {percent(move.change)}: {move.reason}" for move in entry.accepted
    ]
    made = (
        calibrations({point: Calibration.from_json(entry.calibration)})
        if entry.calibration
        else []
    )
    return [*table([("measured", "stack", "energy", "power"), *runs]), *moves, *made]


def compared(folder: Path) -> tuple[list[str], list[record.Replayed]]:
    """Compute a stored session's verdicts again; return a table and the verdicts.

    Raises:
        FormatError: It cannot be read.
    """
    replayed = record.replay(folder)
    rows = [
        (
            each.comparison.point.id,
            percent(each.comparison.change, 2),
            f"[{percent(each.comparison.low, 2)}, {percent(each.comparison.high, 2)}]",
            str(each.comparison.verdict),
            "as in the run" if each.is_same else "NOT AS IN THE RUN",
        )
        for each in replayed
    ]
    head = ("point", "change", "interval", "verdict", "")
    return [str(folder), *table([head, *rows])] if rows else [
        f"{folder}: no verdicts; the session recorded or only measured."
    ], replayed
