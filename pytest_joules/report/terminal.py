"""The energy section at the end of a run."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from pytest_joules.gate.calibration import Calibration
from pytest_joules.point import Point
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.session import Ledger
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Comparison

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
_HEAD = ("point", "source", "energy", "power", "throughput", "batch", "n", "change", "verdict")


def summary(ledger: Ledger) -> list[str]:
    """Return the section's lines: one row a point and stack, then what the session cost."""
    groups: dict[tuple[Point, str], list[Result]] = {}
    for result in ledger.results:
        stack = result.provenance.context.stack
        groups.setdefault((result.point, stack), []).append(result)
    if not groups:
        return _cost(ledger)
    shows_stacks = len({stack for _, stack in groups}) > 1
    rows = [
        _row(f"{point.id} ({stack})" if shows_stacks else point.id, results, comparison)
        for (point, stack), results in groups.items()
        for comparison in [_comparison(ledger.comparisons, point, stack)]
    ]
    notes = [f"note: {point.id}: {text}" for (point, _), text in _notes(ledger).items()]
    told = [
        *notes,
        *_moved(ledger),
        *calibrations(ledger.calibrations),
        *_alarms(ledger),
    ]
    return [*table([_HEAD, *rows]), *told, *_cost(ledger)]


def _moved(ledger: Ledger) -> list[str]:
    """Name old stacks that have left their own baseline: no test is red because of that."""
    return [
        f"note: {point.id}: the old stack {comparison.reference} itself is "
        f"{percent(comparison.reference_change)} from its baseline; compared side by side only"
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


def _comparison(
    comparisons: Mapping[Point, Comparison], point: Point, stack: str
) -> Comparison | None:
    """Return the point's comparison, but not for the stack that was compared with."""
    comparison = comparisons.get(point)
    return None if comparison is None or comparison.reference == stack else comparison


def _row(
    name: str, results: Sequence[Result], comparison: Comparison | None
) -> tuple[str, ...]:
    judged = [result for result in results if result.is_valid] or results
    unit = results[0].point.work_unit
    batches = [r.mean_batch_size for r in judged if r.mean_batch_size is not None]
    is_valid = judged is not results
    verdict = comparison.verdict if comparison else "" if is_valid else "invalid"
    return (
        name,
        results[0].source,
        si(fmean(r.energy_per_work_unit_j for r in judged), f"J/{unit}"),
        si(fmean(r.power_w for r in judged), "W"),
        f"{_rate(fmean(r.throughput_work_units_per_s for r in judged))} {unit}/s",
        f"{fmean(batches):.1f}" if batches else "-",
        str(len(judged)),
        _change(comparison),
        str(verdict),
    )


def _rate(per_s: float) -> str:
    """Write a count without a prefix: nobody thinks in milli-images."""
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.3g}"  # noqa: PLR2004  three digits


def _change(comparison: Comparison | None) -> str:
    if comparison is None or math.isnan(comparison.change):
        return ""
    return percent(comparison.change)


def _notes(ledger: Ledger) -> dict[tuple[Point, str], str]:
    """Return each note of a point once, though every launch words it with other numbers."""
    return {(r.point, note.code): note.text for r in ledger.results for note in r.notes}


def _cost(ledger: Ledger) -> list[str]:
    if not ledger.num_launches:
        return []
    launches = counted(ledger.num_launches, "launch")
    return [f"{launches}, {ledger.spent_gpu_s / 60:.1f} GPU minutes"]
