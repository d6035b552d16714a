"""The energy section at the end of a run."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pytest_joules.digest import Row, rows_of
from pytest_joules.gate.calibration import Calibration
from pytest_joules.ledger import Ledger
from pytest_joules.point import Point
from pytest_joules.report.text import change, rate, table
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Verdict
from pytest_joules.visible import visible

_CALIBRATED = (
    "point against itself",
    "launches",
    "in window",
    "between",
    "false alarms",
    "undecided",
    "tolerance",
    "detectable",
    "beside old",
)
_VERDICTS = frozenset(Verdict)
_HEAD = ("point", "source", "energy", "power", "throughput", "batch", "n", "change", "verdict")


COLOURS: Mapping[str, Mapping[str, bool]] = {
    Verdict.REGRESSION: {"red": True, "bold": True},
    Verdict.INVALID: {"yellow": True, "bold": True},
    Verdict.INCONCLUSIVE: {"yellow": True},
    Verdict.IMPROVEMENT: {"green": True, "bold": True},
    Verdict.UNCHANGED: {"green": True},
}
"""For pytest's terminal writer."""

Paint = Callable[[str, str], str]
"""Takes a text and the verdict that it tells; returns it coloured."""


def summary(
    ledger: Ledger, *, width: int | None = None, paint: Paint = lambda text, _: text
) -> list[str]:
    """Return the section's lines: one row a point and stack, then what the session cost.

    Args:
        ledger: What the session found out.
        width: Columns of the terminal; ``None`` does not fold.
        paint: Colours verdicts; nothing else is coloured.
    """
    rows = rows_of(ledger.kept, ledger.comparisons)
    if not rows:
        return _cost(ledger)
    shows_stacks = len({row.stack for row in rows}) > 1
    cells = [_cells(row, shows_stack=shows_stacks) for row in rows]
    drawn = [_painted(line, paint) for line in table([_HEAD, *cells], width=width)]
    # The last launch's words for each note of a point.
    notes = {(row.point, n.code): n.text for row in rows for n in row.notes}
    noted = [visible(f"note: {point.id}: {text}") for (point, _), text in notes.items()]
    told = [*noted, *_moved(ledger), *calibrations(ledger.calibrations), *_alarms(ledger)]
    return [*drawn, *told, *_cost(ledger)]


def _painted(line: str, paint: Paint) -> str:
    ahead, space, last = line.rpartition("  ")
    return f"{ahead}{space}{paint(last, last)}" if last in _VERDICTS else line


def _moved(ledger: Ledger) -> list[str]:
    """Name old stacks that have left their own baseline: no test is red because of that."""
    return [
        visible(
            f"note: {point.id}: the old stack {comparison.reference} itself is "
            f"{percent(comparison.reference_change)} from its baseline; compared side by side "
            "only"
        )
        for point, comparison in ledger.comparisons.items()
        if not math.isnan(comparison.reference_change)
    ]


def _alarms(ledger: Ledger) -> list[str]:
    number = len(ledger.alphas)
    if not number:
        return []
    chance = f"{100 * math.fsum(ledger.alphas.values()):.2g} %"
    if number == 1:
        return [f"1 comparison has a chance of at most {chance} of a false alarm"]
    return [f"{number} comparisons share a chance of at most {chance} of any false alarm"]


def calibrations(found: Mapping[Point, Calibration]) -> list[str]:
    """Return a table of what stacks compared with themselves say; empty for none."""
    rows = [_calibration(point, each) for point, each in found.items()]
    return table([_CALIBRATED, *rows]) if rows else []


def _calibration(point: Point, made: Calibration) -> tuple[str, ...]:
    return (
        point.id,
        str(made.num_launches),
        "-" if made.window_sd is None else _share(made.window_sd),
        _share(made.launch_sd),
        f"{made.num_false_alarms} of {made.num_splits}",
        f"{made.num_undecided} of {made.num_splits}",
        _share(made.tolerance),
        _share(made.detectable_change),
        _share(made.detectable_change_beside_old),
    )


def _share(ratio: float) -> str:
    return f"{100 * ratio:.2g} %"


def _cells(row: Row, *, shows_stack: bool) -> tuple[str, ...]:
    unit = row.point.work_unit
    batch = row.mean_batch_size
    return (
        visible(f"{row.id} ({row.stack})" if shows_stack else row.id),
        row.source,
        si(row.energy_per_work_unit_j, f"J/{unit}"),
        si(row.power_w, "W"),
        rate(row.throughput_work_units_per_s, unit),
        f"{batch:.1f}" if batch is not None else "-",
        str(len(row.judged)),
        change(row.comparison),
        row.verdict,
    )


def recorded_in(properties: Iterable[tuple[str, object]]) -> set[str]:
    """Return the baseline files that a test's properties tell it has written to."""
    return {str(value) for name, value in properties if name == "joules_baseline"}


_NAMED = 3
"""Points named in one line."""


def without_result(ledger: Ledger) -> list[str]:
    """Name the points that a green run was asked for and shows nothing of."""
    seen = {result.point for result in ledger.results}
    missing = [point.id for point in ledger.wishes if point not in seen]
    if not missing:
        return []
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    named = f"{', '.join(missing[:_NAMED])}{more}"
    why = "the tests that asked for it failed as was expected, or went on without."
    return [f"note: no result of {named}: {why}"]


def recorded(files: Iterable[str], root: Path) -> list[str]:
    """Say which baselines were written, or that none was."""
    paths = sorted(map(Path, files))
    if not paths:
        return ["nothing was recorded: no energy_bench.check(point) came to its end"]
    shown = [each.relative_to(root) if each.is_relative_to(root) else each for each in paths]
    return [f"recorded in {visible(str(each))}" for each in shown]


def _cost(ledger: Ledger) -> list[str]:
    if not ledger.num_launches:
        return []
    launches = counted(ledger.num_launches, "launch")
    told, taken = f"{launches}, {ledger.spent_gpu_s / 60:.1f} GPU minutes", ledger.taken
    if taken is not None:
        before = counted(taken.num_launches, "launch")
        minutes = f"{taken.spent_gpu_s / 60:.1f} GPU minutes"
        told += f"; of these {before} and {minutes} in session {taken.session}"
    return [told]
