"""What a stored session had cost: what each of its parts told, and its end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_joules.digest import Failed
from pytest_joules.errors import is_expected
from pytest_joules.record.lines import lines_of, results_at
from pytest_joules.record.parts import COSTS, RESULTS, of_part, parts
from pytest_joules.result import Result
from pytest_joules.storage import read, require_schema

__tracebackhide__ = is_expected

END = "end.json"


def end_of(folder: Path) -> dict[str, Any]:
    """Return what the session wrote last; empty where it did not live to.

    Raises:
        FormatError: The file is broken.
    """
    if not (folder / END).exists():
        return {}
    end = read(folder / END)
    require_schema(end, "session-end", name=str(folder / END))
    return {**end, "failed": tuple(Failed(**each) for each in end["failed"])}


def spent_and_failed(folder: Path) -> dict[str, Any]:
    """Return what a session cost and which tests failed; the latter only its end tells."""
    if end := end_of(folder):
        return {name: end[name] for name in ("failed", "num_launches", "spent_gpu_s")}
    return {**spent_by(folder), "has_ended": False}


def spent_by(folder: Path) -> dict[str, Any]:
    """Return what all parts of a session had cost together; GPU time ``None``: not all told.

    Raises:
        FormatError: A file is broken.
    """
    costs = costs_of(folder)
    spent = [cost["spent_gpu_s"] for cost in costs]
    return {
        "num_launches": sum(cost["num_launches"] for cost in costs),
        "spent_gpu_s": None if None in spent else sum(spent),
    }


def costs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what each part had cost; one that did not tell made the launches of its results.

    Raises:
        FormatError: A file is broken.
    """
    costs = []
    for part in parts(folder) or [""]:
        made = _num_launches(results_at(folder / of_part(RESULTS, part)))
        untold = {"num_launches": made, "spent_gpu_s": None}
        costs.append({**untold, **cost_of(folder, part)})
    return costs


def cost_of(folder: Path, part: str = "") -> dict[str, Any]:
    """Return what a session, or a worker's part, had cost when it last told; empty: never.

    Raises:
        FormatError: The file is broken.
    """
    cost: dict[str, Any] = {}
    path = folder / of_part(COSTS, part)
    for number, values in enumerate(lines_of(path), start=1):
        require_schema(values, "session-cost", name=f"{path}, line {number}")
        cost = values
    return cost


def _num_launches(results: Sequence[Result]) -> int:
    """Count the launches that gave results."""
    return len({result.evidence.launch_id for result in results if result.evidence})
