"""All results as one table, for other tools."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_joules.errors import ConfigurationError
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.storage import write_atomically
from pytest_joules.verdict import Comparison

SUFFIXES = (".csv", ".json")


def require_suffix(path: Path) -> None:
    """Refuse an export whose format is unknown, before anything is measured.

    Raises:
        ConfigurationError: The suffix is none of ``SUFFIXES``.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"--joules-export={path}: the suffix says the format; use {' or '.join(SUFFIXES)}."
        )


def export(
    path: Path, results: Sequence[Result], comparisons: Mapping[Point, Comparison]
) -> None:
    """Write one row or object a result.

    Raises:
        ConfigurationError: The suffix is unknown.
        OSError: The file cannot be written.
    """
    require_suffix(path)
    if path.suffix == ".json":
        text = json.dumps([result.as_json() for result in results], indent=1, sort_keys=True)
        write_atomically(path, text + "\n")
        return
    import pandas as pd  # noqa: PLC0415  half a second, only where a CSV is asked for

    frame = pd.DataFrame([row(result, comparisons.get(result.point)) for result in results])
    write_atomically(path, frame.to_csv(index=False))


def row(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    """Return one result as flat values; every name carries its unit."""
    point, latency = result.point, result.latency
    return {
        "point": point.id,
        "source": result.source,
        "gpu": _inert(result.gpu),
        "model": _inert(point.model),
        "task": point.task,
        "precision": point.precision,
        "num_gpus": point.num_gpus,
        "batch_size": point.batch_size,
        "engine": point.engine,
        "steps": point.steps,
        "height": point.height,
        "width": point.width,
        "num_frames": point.num_frames,
        f"energy_per_{point.work_unit}_j": result.energy_per_work_unit_j,
        "power_w": result.power_w,
        f"throughput_{point.work_unit}s_per_s": result.throughput_work_units_per_s,
        "mean_batch_size": result.mean_batch_size,
        "mean_output_tokens": result.mean_output_tokens,
        "median_itl_s": latency.median_itl_s,
        "p99_itl_s": latency.p99_itl_s,
        "median_ttft_s": latency.median_ttft_s,
        "mean_preprocessing_s": latency.mean_preprocessing_s,
        "mean_queue_s": latency.mean_queue_s,
        "batch_latency_s": latency.batch_latency_s,
        "is_valid": result.is_valid,
        "reasons": " ".join(reason.code for reason in result.reasons),
        "verdict": str(comparison.verdict) if comparison else "",
        "change": comparison.change if comparison else None,
    }


def _inert(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text
