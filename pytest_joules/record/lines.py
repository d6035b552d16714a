"""What stands in a session's files, line by line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_joules.errors import is_expected
from pytest_joules.result import Result
from pytest_joules.sources.store import result_of
from pytest_joules.storage import parse, text_of

__tracebackhide__ = is_expected


def lines_of(path: Path) -> Iterator[Any]:
    """Yield each line's JSON; a last line cut off by a crash is left out.

    Raises:
        FormatError: Another line is broken.
    """
    if not path.exists():
        return
    for number, line in enumerate(text_of(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        # Invalid results may hold NaN, which strict JSON has not.
        yield parse(line, name=f"{path}, line {number}", is_strict=False)


def results_at(path: Path) -> list[Result]:
    """Read the results of one file; none where it is not there.

    Raises:
        FormatError: A line is broken.
    """
    return [
        result_of(values, f"{path}, line {number}")
        for number, values in enumerate(lines_of(path), start=1)
    ]
