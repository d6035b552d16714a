"""Formats of tools that keep benchmarks over time; invalid measurements are left out.

Each names its benchmarks by point, GPU, source and stack, so that a number that was not
measured never continues the history of one that was.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from pytest_joules.digest import Digest, Row
from pytest_joules.result import Result
from pytest_joules.units import counted
from pytest_joules.verdict import Verdict
from pytest_joules.visible import visible

_LABELS = (
    "point",
    "model",
    "task",
    "precision",
    "batch_size",
    "num_gpus",
    "gpu",
    "engine",
    "source",
    "stack",
)
_LONGEST = 300  # Bencher takes names of 1024 characters, and an escape may take six


def bencher(digest: Digest) -> str:
    """Write Bencher Metric Format; bounds are the lowest and highest launch.

    Source: https://bencher.dev/docs/reference/bencher-metric-format/
    """
    made = {
        _name(row): {
            f"energy-per-{row.point.work_unit}": _metric(row, "energy_per_work_unit_j"),
            "power": _metric(row, "power_w"),
            f"{row.point.work_unit}s-per-second": _metric(row, "throughput_work_units_per_s"),
        }
        for row in _valid(digest)
    }
    return _json(made)


def _metric(row: Row, name: str) -> dict[str, float]:
    values = _values(row.judged, name)
    bounds = {"lower_value": min(values), "upper_value": max(values)}
    return {"value": fmean(values), **(bounds if len(values) > 1 else {})}


def github_benchmark(digest: Digest) -> str:
    """Write github-action-benchmark's ``customSmallerIsBetter``: energy alone.

    Source: https://github.com/benchmark-action/github-action-benchmark, README, "Examples"
    """
    return _json([_benchmark(row) for row in _valid(digest)])


def _benchmark(row: Row) -> dict[str, Any]:
    values = _values(row.judged, "energy_per_work_unit_j")
    half_range = (max(values) - min(values)) / 2
    return {
        "name": _name(row),
        "unit": f"J/{row.point.work_unit}",
        "value": fmean(values),
        **({"range": f"± {half_range:.3g}"} if len(values) > 1 else {}),
        "extra": f"{row.verdict or 'not compared'}, {counted(len(values), 'launch')}",
    }


def openmetrics(digest: Digest) -> str:
    """Write OpenMetrics text.

    Source: https://prometheus.io/docs/specs/om/open_metrics_spec/
    """
    registry = CollectorRegistry()
    registry.register(_Collector(digest))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # not annotated
    return text.decode()


class _Collector(Collector):
    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def collect(self) -> Iterable[Metric]:
        valid = list(_valid(self._digest))
        for unit in sorted({row.point.work_unit for row in valid}):
            rows = [row for row in valid if row.point.work_unit == unit]
            yield _gauge(f"joules_energy_per_{unit}", "joules", _energies(rows))
            yield _gauge(f"joules_throughput_{unit}s", "per_second", _rates(rows))
        yield _gauge("joules_power", "watts", [(row, row.power_w) for row in valid])
        yield _validity(self._digest.rows)
        yield _verdicts(self._digest.rows)


def _gauge(name: str, unit: str, values: Iterable[tuple[Row, float]]) -> Metric:
    per = name.removeprefix("joules_throughput_")  # of a rate the unit alone is "per second"
    told = f"{per} per second" if unit == "per_second" else unit
    text = f"Mean of the valid launches, in {told}."
    made = GaugeMetricFamily(name, text, labels=_LABELS, unit=unit)
    for row, value in values:
        made.add_metric(_labels(row), float(value))
    return made


def _energies(rows: Iterable[Row]) -> Iterator[tuple[Row, float]]:
    return ((row, row.energy_per_work_unit_j) for row in rows)


def _rates(rows: Iterable[Row]) -> Iterator[tuple[Row, float]]:
    return ((row, row.throughput_work_units_per_s) for row in rows)


def _validity(rows: Sequence[Row]) -> Metric:
    text = "Whether any launch met the validity contract."
    made = GaugeMetricFamily("joules_valid", text, labels=_LABELS)
    for row in rows:
        made.add_metric(_labels(row), float(row.is_valid))
    return made


def _verdicts(rows: Sequence[Row]) -> Metric:
    text = "The verdict of a compared point."
    made = StateSetMetricFamily("joules_verdict", text, labels=_LABELS)
    for row in rows:
        if row.comparison is not None:
            states = {str(each): each == row.comparison.verdict for each in Verdict}
            made.add_metric(_labels(row), states)
    return made


def _labels(row: Row) -> list[str]:
    point = row.point
    values = (
        row.id,
        point.model,
        point.task,
        point.precision,
        point.batch_size,
        point.num_gpus,
        row.gpu,
        point.engine,
        row.source,
        row.stack,
    )
    return [visible(str(value)) for value in values]


def _valid(digest: Digest) -> Iterator[Row]:
    return (row for row in digest.rows if row.is_valid)


def _values(results: Sequence[Result], name: str) -> list[float]:
    return [float(getattr(result, name)) for result in results]


def _name(row: Row) -> str:
    stack = f", stack {row.stack}" if row.stack else ""
    return visible(f"{row.id} on {row.gpu} ({row.source}{stack})")[:_LONGEST]


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, allow_nan=False) + "\n"
