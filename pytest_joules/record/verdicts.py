"""Reads the verdicts of a stored session, each with all that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_joules.errors import FormatError, JoulesError, is_expected
from pytest_joules.gate.ruling import Case
from pytest_joules.ledger import Judgement
from pytest_joules.point import Point
from pytest_joules.record.lines import lines_of, results_at
from pytest_joules.record.parts import RESULTS, of_part, parts
from pytest_joules.result import Result
from pytest_joules.storage import require_schema
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

BASELINES, VERDICTS = "baselines.jsonl", "verdicts.jsonl"

Told = tuple[list[Result], dict[Point, tuple[Result, ...]], list[Judgement]]
"""Results, the stored runs that they were compared with, and the verdicts."""


def told(folder: Path) -> Iterator[Told]:
    """Yield each part's results, stored runs and verdicts.

    A verdict rests on its own part, and on what all parts had taken over: that comes first.
    """
    shared: list[Result] = []
    for part in parts(folder):
        own = results_at(folder / of_part(RESULTS, part))
        results = [*shared, *own]
        shared = shared if part else own
        stored = _by_point(results_at(folder / of_part(BASELINES, part)))
        yield results, stored, _verdicts(folder, results, stored, part=part)


def _by_point(results: Sequence[Result]) -> dict[Point, tuple[Result, ...]]:
    points = dict.fromkeys(result.point for result in results)
    return {point: tuple(r for r in results if r.point == point) for point in points}


def _verdicts(
    folder: Path,
    results: Sequence[Result],
    stored: Mapping[Point, tuple[Result, ...]],
    *,
    part: str,
) -> list[Judgement]:
    """Read the verdicts; each must find the results and baselines that it rests on."""
    path = folder / of_part(VERDICTS, part)
    judgements = []
    for number, values in enumerate(lines_of(path), start=1):
        each = _judgement(values, stored, name=f"{path}, line {number}")
        comparison = each.comparison
        if each.num_results > len(results):
            raise FormatError(
                f"{folder / of_part(RESULTS, part)}: holds {len(results)} results, but the "
                f"verdict on {comparison.point.id} rests on {each.num_results}."
            )
        is_of_baseline = not each.case.against and comparison.num_reference_launches
        if is_of_baseline and comparison.point not in each.case.baselines:
            raise FormatError(
                f"{folder / of_part(BASELINES, part)}: holds no run of {comparison.point.id}, "
                f"but its verdict rests on {comparison.num_reference_launches}."
            )
        judgements.append(each)
    return judgements


def _judgement(
    values: Any, stored: Mapping[Point, tuple[Result, ...]], *, name: str
) -> Judgement:
    require_schema(values, "session-verdict", name=name)
    try:
        point = Point.from_json(values["point"])
        tolerances = {Point.from_json(each): value for each, value in values["tolerances"]}
    except (JoulesError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: a point cannot be read: {error!r}.") from None
    if point not in tolerances:
        raise FormatError(f"{name}: tolerances lacks the verdict's own point, {point.id}.")
    numbers = values["comparison"]
    verdict = Verdict(numbers["verdict"])
    return Judgement(
        comparison=Comparison(**{**numbers, "point": point, "verdict": verdict}),
        case=Case(
            stack=values["stack"],
            against=values["against"],
            tolerances=tolerances,
            baselines={each: stored[each] for each in tolerances if each in stored},
        ),
        num_results=int(values["num_results"]),
        set_aside=tuple(values.get("set_aside", ())),
    )
