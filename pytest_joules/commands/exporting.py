"""``joules export``: stored results as a table for other tools."""

from pathlib import Path

from pytest_joules import record
from pytest_joules.commands.answer import Answer
from pytest_joules.commands.stored import every_result_at
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.point import Point
from pytest_joules.report import export
from pytest_joules.units import counted
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


def exported(what: str, target: Path) -> Answer:
    """Write the results that a name stands for; a session's verdicts are computed again.

    Raises:
        ConfigurationError: There is nothing of that name, or the target's format is unknown.
        FormatError: It cannot be read.
    """
    export.require_suffix(target)
    results = every_result_at(what)
    try:
        export.export(target, results, _comparisons(what))
    except OSError as error:
        raise ConfigurationError(f"{target}: cannot be written: {error}.") from None
    return Answer(
        lines=[f"{target}: {counted(len(results), 'result')}"],
        values={"path": str(target), "num_results": len(results)},
    )


def _comparisons(what: str) -> dict[Point, Comparison]:
    if Path(what).exists() and not record.is_session(Path(what)):
        return {}
    replayed = record.replay(record.find(what, Path()))
    return {each.comparison.point: each.comparison for each in replayed}
