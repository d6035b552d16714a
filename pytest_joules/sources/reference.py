"""Published results beside live ones: a reference to look at, not a gate.

Their noise between runs is unknown, so nothing passes or fails by them unless a test gives a
tolerance by hand.
"""

from collections.abc import Iterable
from statistics import fmean

from pytest_joules.errors import ConfigurationError, NotMeasured
from pytest_joules.result import Result
from pytest_joules.sources.recorded import RecordedSource
from pytest_joules.units import si

_ENGINES = {"vllm": "vLLM", "xdit": "xDiT"}


def reference_note(result: Result, published: RecordedSource) -> str | None:
    """Set a result beside the published one of the same point and GPU model.

    Returns:
        Such as ``your B200 214 mJ/token, published 209 mJ/token (1.02 x), vLLM 0.11.1``;
        ``None`` where nothing is published for the point, or several configurations are.
    """
    if result.source == "recorded":
        return None
    try:
        rows = published.find(result.point, gpu=result.gpu)
    except (NotMeasured, ConfigurationError):
        return None
    theirs = fmean(row.energy_per_work_unit_j for row in rows)
    ours = result.energy_per_work_unit_j
    unit = f"J/{result.point.work_unit}"
    repeats = f", mean of {len(rows)}" if len(rows) > 1 else ""
    return (
        f"your {result.gpu.upper()} {si(ours, unit)}, published {si(theirs, unit)}{repeats} "
        f"({ours / theirs:.2f} x){_versions(rows[0])}"
    )


def reference_lines(results: Iterable[Result], published: RecordedSource) -> list[str]:
    """Return one line for each point that was published too, about its newest result."""
    newest = {result.point: result for result in results}
    notes = {point.id: reference_note(result, published) for point, result in newest.items()}
    return [f"reference: {point}: {note}" for point, note in notes.items() if note]


def _versions(row: Result) -> str:
    packages = row.provenance.context.packages
    return "".join(
        f", {_ENGINES.get(name, name)} {version}" for name, version in packages.items()
    )
