"""The numbers behind the report's plots; nothing here draws."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_joules.digest import Row, mean
from pytest_joules.result import Result, Timeline
from pytest_joules.visible import visible

_NAMED = ("model", "task", "batch_size", "precision", "num_gpus", "engine", "num_requests")
Member = tuple[int, Row]
"""A row and its place among all rows."""


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return all that the page's script draws, JSON-ready."""
    families = [_family(name, group) for name, group in _families(rows).items()]
    return {"families": _finite(families), "rows": [_row(row) for row in rows]}


def _families(rows: Sequence[Row]) -> dict[tuple[str, str], list[Member]]:
    """Put rows of one model and task together: their curves share a plot."""
    found: dict[tuple[str, str], list[Member]] = {}
    for index, row in enumerate(rows):
        found.setdefault((row.point.model, row.point.task), []).append((index, row))
    return found


def _family(name: tuple[str, str], members: Sequence[Member]) -> dict[str, Any]:
    curves: dict[str, list[Member]] = {}
    for index, row in members:
        curves.setdefault(_curve_name(row), []).append((index, row))
    times = [latency_s(row) for _, row in members]
    costs = [
        (time_s, row.energy_per_work_unit_j)
        for (_, row), time_s in zip(members, times, strict=True)
        if time_s is not None and row.is_valid
    ]
    best = pareto(costs)
    unit = members[0][1].point.work_unit
    return {
        "name": visible(", ".join(name)),
        "unit": unit,
        "time": "Median inter-token latency" if unit == "token" else "Batch latency",
        "curves": [_curve(label, each, best) for label, each in curves.items()],
    }


def _curve_name(row: Row) -> str:
    point = row.point
    parts = [f"{point.num_gpus} x {row.gpu}", point.precision, point.engine]
    parts += [f"stack {row.stack}"] if row.stack else []
    parts += [] if row.source == "live" else [row.source]
    # Points that differ in more than the batch size are no curve.
    extras = {k: v for k, v in point.as_json().items() if k not in _NAMED}
    parts += [f"{name}={value}" for name, value in extras.items()]
    return visible(", ".join(parts))


def _curve(
    label: str, members: Sequence[Member], best: frozenset[tuple[float, float]]
) -> dict[str, Any]:
    ordered = sorted(members, key=lambda member: member[1].point.batch_size)
    rows = [row for _, row in ordered]
    return {
        "label": label,
        "row": [index for index, _ in ordered],
        "batch": [row.point.batch_size for row in rows],
        "energy": [row.energy_per_work_unit_j for row in rows],
        "time": [latency_s(row) for row in rows],
        "valid": [row.is_valid for row in rows],
        "pareto": [(latency_s(row), row.energy_per_work_unit_j) in best for row in rows],
        "verdict": [row.verdict or "measured" for row in rows],
        "band": [_band(row) for row in rows],
    }


def _band(row: Row) -> list[float] | None:
    """Return the energies around the reference that are within tolerance, low and high."""
    found = row.comparison
    if found is None or not math.isfinite(found.reference_energy_per_work_unit_j):
        return None
    was = found.reference_energy_per_work_unit_j
    return [was * (1 - found.tolerance), was, was * (1 + found.tolerance)]


def latency_s(row: Row) -> float | None:
    """Return what the frontier sets against energy: inter-token or batch latency."""
    name = "median_itl_s" if row.point.work_unit == "token" else "batch_latency_s"
    return mean(getattr(result.latency, name) for result in row.judged)


def pareto(costs: Iterable[tuple[float, float]]) -> frozenset[tuple[float, float]]:
    """Return the pairs that no other one beats: less in one way, no more in the other.

    >>> sorted(pareto([(1.0, 4.0), (2.0, 2.0), (3.0, 3.0), (2.0, 5.0)]))
    [(1.0, 4.0), (2.0, 2.0)]
    """
    kept: list[tuple[float, float]] = []
    for cost in sorted(set(costs)):
        if not kept or cost[1] < kept[-1][1]:
            kept.append(cost)
    return frozenset(kept)


def _row(row: Row) -> dict[str, Any]:
    drawn = _drawn(row)
    return {
        "name": visible(f"{row.id} ({row.stack})" if row.stack else row.id),
        "verdict": row.verdict,
        "timeline": _timeline(drawn.timeline) if drawn and drawn.timeline else None,
        "causes": _causes(row),
    }


def _causes(row: Row) -> list[dict[str, Any]]:
    causes = row.diagnosis.causes if row.diagnosis else ()
    return [{"name": each.code, "share": each.contribution} for each in causes]


def _timeline(drawn: Timeline) -> dict[str, Any]:
    """Return its fields; ``asdict`` would copy each of many numbers."""
    return {
        name: [None if v is None or not math.isfinite(v) else v for v in value]
        if isinstance(value, tuple)
        else value
        for name, value in vars(drawn).items()
    }


def _drawn(row: Row) -> Result | None:
    """Choose the launch whose timeline is shown: the last one that was judged."""
    return next((result for result in reversed(row.judged) if result.timeline), None)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
