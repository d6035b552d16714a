"""All results as files for other tools: tables, JSON, and the formats of benchmark trackers."""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_joules.digest import Digest, Row
from pytest_joules.errors import ConfigurationError, MissingDependency, is_expected
from pytest_joules.report import trackers
from pytest_joules.result import Result
from pytest_joules.storage import write_atomically
from pytest_joules.visible import visible

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file to write and its format."""

    path: Path
    format: str

    @classmethod
    def parse(cls, text: str, option: str = "--joules-export") -> "Target":
        """Read ``PATH``, whose suffix says the format, or ``FORMAT:PATH``.

        Raises:
            ConfigurationError: The format is unknown, or the path cannot be written.
            MissingDependency: The format needs a package that is not installed.
        """
        name, colon, rest = text.partition(":")
        if colon and not set(name) & set("./"):
            path = Path(rest)
        else:
            path = Path(text)
            name = path.suffix.removeprefix(".") if path.suffix in _SUFFIXES else ""
        if name not in FORMATS:
            raise ConfigurationError(
                f"{option}={text}: the format is unknown. Use a suffix "
                f"({', '.join(_SUFFIXES)}) or name it as FORMAT:PATH, with FORMAT one of "
                f"{', '.join(FORMATS)}."
            )
        require_place(path, f"{option}={text}")
        if name == "parquet" and not find_spec("pyarrow"):
            raise MissingDependency(
                f"{option}={text}: Parquet is written with pyarrow, which is not installed; "
                "pip install 'pytest-joules[parquet]'."
            )
        return cls(path=path, format=name)


def require_place(path: Path, said: str) -> None:
    """Refuse a path that cannot be written, before anything is measured.

    A missing folder is not made: a mistyped one would hold results that nobody finds.

    Raises:
        ConfigurationError: Its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"{said}: the folder {path.parent} does not exist. It is not made, in case it is a "
            "slip of the pen: mkdir it, or name another."
        )
    if path.is_dir():
        raise ConfigurationError(f"{said}: that is a folder; name a file in it.")


def export(target: Target, digest: Digest) -> None:
    """Write a digest's results in the target's format.

    Raises:
        OSError: The file cannot be written; an old one is untouched.
        UnicodeError: A name holds half a character, which no file can.
    """
    write_atomically(target.path, FORMATS[target.format](digest))


def as_json(digest: Digest) -> str:
    """Write one object a launch: the result, and the comparison of its point and stack."""
    values = [
        {**result.as_json(), "comparison": row.comparison and row.comparison.as_json()}
        for row, result in launches(digest)
    ]
    return json.dumps(_finite(values), indent=1, sort_keys=True) + "\n"


def as_csv(digest: Digest) -> str:
    """Write one row a launch; no cell is a formula."""
    rows = [
        {name: _inert(value) for name, value in cells(row, result).items()}
        for row, result in launches(digest)
    ]
    import pandas as pd  # noqa: PLC0415  half a second, only where a table is asked for

    text: str = pd.DataFrame(rows).to_csv(index=False)
    return text


def as_parquet(digest: Digest) -> bytes:
    """Write one row a launch, with types."""
    import pandas as pd  # noqa: PLC0415  half a second, only where a table is asked for

    frame = pd.DataFrame([cells(row, result) for row, result in launches(digest)])
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False)
    return stream.getvalue()


FORMATS: Mapping[str, Callable[[Digest], str | bytes]] = {
    "json": as_json,
    "csv": as_csv,
    "parquet": as_parquet,
    "bencher": trackers.bencher,
    "github-benchmark": trackers.github_benchmark,
    "openmetrics": trackers.openmetrics,
}
_SUFFIXES = (".json", ".csv", ".parquet")


def launches(digest: Digest) -> Iterator[tuple[Row, Result]]:
    """Yield every launch with the row that it belongs to."""
    return ((row, result) for row in digest.rows for result in row.results)


def cells(row: Row, result: Result) -> dict[str, Any]:
    """Return one launch as flat values; every name carries its unit."""
    point, latency, comparison = result.point, result.latency, row.comparison
    return {
        "point": row.id,
        "source": result.source,
        "gpu": result.gpu,
        "stack": row.stack,
        "model": point.model,
        "task": point.task,
        "precision": point.precision,
        "num_gpus": point.num_gpus,
        "batch_size": point.batch_size,
        "engine": point.engine,
        "steps": point.steps,
        "height": point.height,
        "width": point.width,
        "num_frames": point.num_frames,
        f"energy_per_{point.work_unit}_j": float(result.energy_per_work_unit_j),
        "power_w": float(result.power_w),
        f"throughput_{point.work_unit}s_per_s": float(result.throughput_work_units_per_s),
        "mean_batch_size": result.mean_batch_size,
        "mean_output_tokens": result.mean_output_tokens,
        **_sampled(result, "median_itl_s"),
        **_sampled(result, "p99_itl_s"),
        **_sampled(result, "median_ttft_s"),
        "mean_preprocessing_s": latency.mean_preprocessing_s,
        "mean_queue_s": latency.mean_queue_s,
        "batch_latency_s": latency.batch_latency_s,
        "is_valid": result.is_valid,
        "reasons": " ".join(reason.code for reason in result.reasons),
        "verdict": str(comparison.verdict) if comparison else "",
        "change": comparison.change if comparison else None,
        "change_low": comparison.low if comparison else None,
        "change_high": comparison.high if comparison else None,
        "tolerance": comparison.tolerance if comparison else None,
    }


def _sampled(result: Result, name: str) -> dict[str, float | None]:
    """Return a percentile and its 95 % interval; an empty high is not bounded."""
    low, high = getattr(result.latency_intervals, name, None) or (None, None)
    start = name.removesuffix("_s")
    return {
        name: getattr(result.latency, name),
        f"{start}_low_s": low,
        f"{start}_high_s": high,
    }


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _inert(value: Any) -> Any:
    """Keep a spreadsheet from taking a text for a formula or for the end of a row."""
    if not isinstance(value, str):
        return value
    seen = visible(value)
    return f"'{seen}" if seen[:1] in tuple("=+-@") else seen
