"""Stored sessions: their results shown, their verdicts computed again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_joules import record
from pytest_joules.commands.answer import EXIT_RED, Answer, exit_code
from pytest_joules.errors import is_expected
from pytest_joules.ledger import Ledger
from pytest_joules.point import Point
from pytest_joules.record.replaying import replay
from pytest_joules.report.expected import beside
from pytest_joules.report.terminal import summary
from pytest_joules.report.text import table
from pytest_joules.result import Result
from pytest_joules.sources.recorded import RecordedSource
from pytest_joules.sources.reference import reference_lines
from pytest_joules.units import percent
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


def measured(
    results: Sequence[Result],
    data: Path | None,
    comparisons: Mapping[Point, Comparison] | None = None,
) -> Answer:
    """Show results as the energy section does, beside the latent model and published ones.

    Raises:
        JoulesError: The published data cannot be read.
    """
    ledger = Ledger(results=list(results), comparisons=dict(comparisons or {}))
    lines = [*summary(ledger), *beside(results)]
    if data is not None:
        lines += reference_lines(results, RecordedSource.from_options(data))
    return Answer(lines=lines, values=[result.as_json() for result in results])


def replayed(folder: Path) -> Answer:
    """Compute a stored session's verdicts again; red where one is not that of the run.

    Raises:
        FormatError: It cannot be read.
    """
    found = replay(folder)
    source = str(record.settings_of(folder).get("source", ""))
    rows = [
        (
            each.comparison.point.id,
            source,
            percent(each.comparison.change, 2),
            f"[{percent(each.comparison.low, 2)}, {percent(each.comparison.high, 2)}]",
            str(each.comparison.verdict),
            "as in the run" if each.is_same else "NOT AS IN THE RUN",
        )
        for each in found
    ]
    head = ("point", "source", "change", "interval", "verdict", "")
    nothing = [f"{folder}: no verdicts; the session recorded or only measured."]
    code = exit_code(each.comparison.verdict for each in found)
    return Answer(
        lines=[str(folder), *table([head, *rows])] if rows else nothing,
        values=[
            {**each.comparison.as_json(), "is_as_in_the_run": each.is_same} for each in found
        ],
        exit_code=code if all(each.is_same for each in found) else EXIT_RED,
    )
