"""The energy section at the end of a run."""

import math
from collections.abc import Mapping, Sequence

from pytest_joules.point import Point
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.session import Ledger
from pytest_joules.units import percent, si
from pytest_joules.verdict import Comparison

_HEAD = ("point", "source", "energy", "power", "throughput", "batch", "n", "change", "verdict")


def summary(ledger: Ledger) -> list[str]:
    """Return the section's lines: one row a point, then what the session cost."""
    by_point: dict[Point, list[Result]] = {}
    for result in ledger.results:
        by_point.setdefault(result.point, []).append(result)
    if not by_point:
        return []
    rows = [_row(point, results, ledger.comparisons) for point, results in by_point.items()]
    notes = [f"note: {point.id}: {text}" for point, text in _notes(ledger.results)]
    return [*table([_HEAD, *rows]), *notes, *_cost(ledger)]


def _row(
    point: Point, results: Sequence[Result], comparisons: Mapping[Point, Comparison]
) -> tuple[str, ...]:
    last, unit = results[-1], point.work_unit
    comparison = comparisons.get(point)
    batch = "-" if last.mean_batch_size is None else f"{last.mean_batch_size:.1f}"
    verdict = comparison.verdict if comparison else "" if last.is_valid else "invalid"
    return (
        point.id,
        last.source,
        si(last.energy_per_work_unit_j, f"J/{unit}"),
        si(last.power_w, "W"),
        si(last.throughput_work_units_per_s, f"{unit}/s"),
        batch,
        str(len(results)),
        _change(comparison),
        str(verdict),
    )


def _change(comparison: Comparison | None) -> str:
    if comparison is None or math.isnan(comparison.change):
        return ""
    return percent(comparison.change)


def _notes(results: Sequence[Result]) -> dict[tuple[Point, str], None]:
    return {(result.point, note.text): None for result in results for note in result.notes}


def _cost(ledger: Ledger) -> list[str]:
    if not ledger.num_launches:
        return []
    return [f"{ledger.num_launches} launches, {ledger.spent_gpu_s / 60:.1f} GPU minutes"]
