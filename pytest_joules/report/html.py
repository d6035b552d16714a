"""One self-contained page: verdicts, plots, causes, software and validity of a session.

The page loads nothing: its content security policy forbids every request and every script
but its own two, by their hashes. Names of others are escaped by the template, and the
script puts them into text nodes only.
"""

import base64
import gzip
import hashlib
import json
import math
from collections import Counter
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_joules.digest import Digest, Row, mean
from pytest_joules.errors import MissingDependency, is_expected
from pytest_joules.report.causes import evidence
from pytest_joules.report.figures import figures
from pytest_joules.report.text import UNREAL, rate, sampled
from pytest_joules.storage import write_atomically
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Verdict
from pytest_joules.visible import lines, visible

__tracebackhide__ = is_expected

_RED = frozenset(verdict for verdict in Verdict if verdict.fails)


def require_library() -> None:
    """Refuse a report that could not be drawn, before anything is measured.

    Raises:
        MissingDependency: Names the package and how to install it.
    """
    missing = [name for name in ("jinja2", "plotly") if not find_spec(name)]
    if missing:
        raise MissingDependency(
            f"the HTML report needs {' and '.join(missing)}, not installed; "
            "pip install 'pytest-joules[report]'."
        )


def write(path: Path, digest: Digest) -> None:
    """Write a digest as one HTML file.

    Raises:
        MissingDependency: ``pytest-joules[report]`` is not installed.
        OSError: The file cannot be written; an old one is untouched.
        UnicodeError: A name holds half a character, which no file can.
    """
    require_library()
    write_atomically(path, render(digest))


def render(digest: Digest) -> str:
    """Return the page's text."""
    import jinja2  # noqa: PLC0415  an extra

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("pytest_joules.report", "page"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        visible=_visible, lines=lines, number=_number, percent=_percent, evidence=evidence
    )
    return environment.get_template("report.html.j2").render(**_page(digest))


def _page(digest: Digest) -> dict[str, Any]:
    script, (plotly, packed_plotly) = _asset("report.js"), _plotly()
    return {
        "settings": digest.settings,
        "title": _title(digest),
        "unreal": [
            UNREAL[source].lstrip(": ") for source in digest.sources if source in UNREAL
        ],
        "cost": _cost(digest),
        "ended": digest.has_ended,
        "rows": [_cells(index, row) for index, row in enumerate(digest.rows)],
        "verdicts": [str(each) for each in Verdict],
        "sampled": [row for row in map(_latencies, digest.rows) if row],
        "told": [row for row in digest.rows if row.verdict in _RED],
        "failed": digest.failed,
        "software": _software(digest),
        "style": _asset("report.css"),
        "script": script,
        "hashes": [_hash(script), _hash(plotly)],
        "plotly": packed_plotly,
        "data": _packed(json.dumps(figures(digest.rows), separators=(",", ":"))),
    }


def _title(digest: Digest) -> str:
    number = Counter(row.verdict for row in digest.rows)
    told = [f"{number[each]} {each}" for each in Verdict if number[each]]
    told += [f"{number['']} measured"] if number[""] else []
    return ", ".join(told) or "nothing was measured"


def _cost(digest: Digest) -> str:
    launches = counted(digest.num_launches, "launch")
    if digest.spent_gpu_s is None:
        return launches
    return f"{launches}, {digest.spent_gpu_s / 60:.1f} GPU minutes"


def _cells(index: int, row: Row) -> dict[str, Any]:
    """Return one row of both tables: texts for people, numbers to sort by."""
    found, unit = row.comparison, row.point.work_unit
    known = found is not None and math.isfinite(found.change)
    windows = [result.evidence for result in row.judged if result.evidence is not None]
    masks = [each.clock_event_reasons for each in windows if each.clock_event_reasons]
    return {
        "index": index,
        "row": row,
        "point": row.point,
        "verdict": row.verdict or "measured",
        "energy": si(row.energy_per_work_unit_j, f"J/{unit}"),
        "change": percent(found.change) if found and known else "",
        "interval": f"{percent(found.low)} to {percent(found.high)}" if found and known else "",
        "power": si(row.power_w, "W"),
        "throughput": rate(row.throughput_work_units_per_s, unit),
        "num_valid": sum(result.is_valid for result in row.results),
        "window_s": min((each.window_s for each in windows), default=None),
        "temperature_c": mean(each.mean_temperature_c for each in windows),
        "clock_mhz": _scaled(mean(each.mean_sm_clock_hz for each in windows), 1e-6),
        "clock_reasons": ", ".join(sorted({f"0x{mask:x}" for mask in masks})),
        "kv": _scaled(mean(result.kv_cache_usage for result in row.judged), 100),
    }


_PERCENTILES = (
    "median_itl_s",
    "p90_itl_s",
    "p95_itl_s",
    "p99_itl_s",
    "median_ttft_s",
    "p99_ttft_s",
)


def _latencies(row: Row) -> tuple[str, ...]:
    """Return the cells of the last judged launch that streamed; none where none did."""
    drawn = next((each for each in reversed(row.judged) if each.latency_intervals), None)
    if drawn is None or drawn.latency_intervals is None:
        return ()
    found = drawn.latency_intervals
    cells = (
        sampled(getattr(drawn.latency, name), getattr(found, name)) for name in _PERCENTILES
    )
    return row.id, *cells, str(found.num_itl_requests), str(found.num_ttft_requests)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _software(digest: Digest) -> list[tuple[str, str, str, int]]:
    """Return each difference in software once, with the number of points that have it."""
    found = Counter(
        (name, old, new) for row in digest.rows for name, (old, new) in row.software.items()
    )
    return [(*difference, number) for difference, number in sorted(found.items())]


def _visible(value: object) -> str:
    return visible(str(value))


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else percent(value)


@cache
def _asset(name: str) -> Any:
    """Return a file of the page as markup: it is ours, and must not be escaped."""
    from markupsafe import Markup  # noqa: PLC0415  an extra's own

    text = (files("pytest_joules.report") / "page" / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  read from the package itself


@cache
def _plotly() -> tuple[str, str]:
    """Return the library's script, as it is and packed."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  an extra

    text: str = get_plotlyjs()
    return text, _packed(text, level=9)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _packed(text: str, *, level: int = 6) -> str:
    """Compress a text; browsers unpack it, and no sign of it can end a tag."""
    return base64.b64encode(gzip.compress(text.encode(), level, mtime=0)).decode()
