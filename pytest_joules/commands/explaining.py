"""What ``joules explain`` does: two sides read from files or sessions, explained by point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_joules import baseline, record, storage
from pytest_joules.diagnose import Diagnosis, diagnose
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.gate.compare import compare, launches
from pytest_joules.gate.design import Design
from pytest_joules.point import Point
from pytest_joules.report.causes import causes, causes_json
from pytest_joules.result import Result
from pytest_joules.sources.store import result_of
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected

Side = dict[Point, list[Result]]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """``PATH[#POINT][@STACK]``."""

    path: str
    point: str = ""
    stack: str = ""

    @classmethod
    def parse(cls, text: str) -> "_Asked":
        before, _, stack = text.partition("@")
        path, _, point = before.partition("#")
        return cls(path=path, point=point, stack=stack)


def read_side(text: str, root: Path = Path()) -> Side:
    """Read results by point: of a baseline file, an export, or a stored session.

    Args:
        text: ``PATH[#POINT_ID][@STACK]``; PATH is a file, or a session's folder or name.
        root: Where stored sessions are looked for.

    Raises:
        ConfigurationError: Nothing is there, or several stacks without a choice.
        FormatError: It cannot be read.
    """
    asked = _Asked.parse(text)
    found = [
        result
        for result in _results(asked.path, root)
        if asked.point in ("", result.point.id)
        and asked.stack in ("", result.provenance.context.stack)
    ]
    stacks = sorted({result.provenance.context.stack for result in found})
    if not found or len(stacks) > 1:
        what = f"results of stacks {', '.join(stacks)}" if stacks else "no such results"
        raise ConfigurationError(
            f"{text}: holds {what}; choose with PATH#POINT_ID or PATH@STACK."
        )
    side: Side = {}
    for result in found:
        side.setdefault(result.point, []).append(result)
    return {point: [r for r in each if r.is_valid] or each for point, each in side.items()}


def _results(path: str, root: Path) -> Sequence[Result]:
    if not path.endswith(".json"):
        return record.results_of(record.find(path, root))
    if not Path(path).is_file():
        raise ConfigurationError(
            f"{path}: there is no such file; give a baseline, an export, or a stored session."
        )
    values: Any = storage.read(Path(path))
    if isinstance(values, dict) and "points" in values:
        runs = baseline.parse(values, name=path)
        return [run for each in runs.values() for run in each]
    if isinstance(values, dict):
        return [result_of(values, path)]
    return record.results_of(Path(path))


def diagnoses(then: Side, now: Side) -> list[Diagnosis]:
    """Explain every point of both sides; or one point by another, where each has just one.

    Raises:
        ConfigurationError: There is nothing to pair.
    """
    shared = [point for point in now if point in then]
    pairs = [(point, point) for point in shared]
    if not pairs and len(then) == len(now) == 1:
        pairs = [(next(iter(then)), next(iter(now)))]
    if not pairs:
        raise ConfigurationError(
            f"no point is on both sides: {_named(then)}, and {_named(now)}; choose one of each "
            "with PATH#POINT_ID."
        )
    return [diagnose(then[old], now[new]) for old, new in pairs]


def _named(side: Side) -> str:
    return ", ".join(point.id for point in side)


def explained(then: Side, now: Side) -> list[str]:
    """Return the lines for people."""
    lines: list[str] = []
    for each in diagnoses(then, now):
        unit = each.point.work_unit
        old, new = si(each.then_energy_j, f"J/{unit}", 4), si(each.energy_j, f"J/{unit}", 4)
        names = (
            each.point.id if each.then == each.point else f"{each.then.id} -> {each.point.id}"
        )
        before, after = _measured_on(then[each.then]), _measured_on(now[each.point])
        where = after if before == after else f"{before} -> {after}"
        lines += [f"{names} ({where}): {old} -> {new}"]
        lines += [f"  {_noise(then[each.then], now[each.point])}"]
        lines += [f"  {line}" for line in causes(each)]
    return lines


def _compared(then: Sequence[Result], now: Sequence[Result]) -> Comparison:
    """Set the launches of both sides against each other, as the gate does stored ones."""
    seen = launches(baseline=then, new=now)
    return compare(now[0].point, seen, Design(), reference="baseline")


def _is_within_noise(made: Comparison) -> bool | None:
    """Tell whether no change at all is within the interval; ``None`` without one."""
    return None if math.isnan(made.change) else made.low <= 0 <= made.high


def _noise(then: Sequence[Result], now: Sequence[Result]) -> str:
    made = _compared(then, now)
    within = _is_within_noise(made)
    if within is None:
        return (
            "noise unknown: both sides need valid launches of one GPU board, undisturbed; "
            "boards alone differ by several percent"
        )
    seen = (
        f"{percent(made.change)} [{percent(made.low)}, {percent(made.high)}] by "
        f"{made.num_reference_launches} -> {counted(made.num_launches, 'launch')}"
    )
    if within:
        return f"within noise: {seen}; it may be no change, and its causes chance"
    return f"beyond noise: {seen}"


def _measured_on(results: Sequence[Result]) -> str:
    """Return the GPU model and the sources of one side."""
    return ", ".join([results[0].gpu, *sorted({result.source for result in results})])


def explained_json(then: Side, now: Side) -> list[dict[str, Any]]:
    """Return the same for machines; see ``causes_json``."""
    return [
        {
            **causes_json(each),
            "sources": [then[each.then][0].source, now[each.point][0].source],
            "noise": _noise_json(_compared(then[each.then], now[each.point])),
        }
        for each in diagnoses(then, now)
    ]


def _noise_json(made: Comparison) -> dict[str, Any]:
    return {
        "is_within": _is_within_noise(made),
        "low": made.low,
        "high": made.high,
        "num_then": made.num_reference_launches,
        "num_now": made.num_launches,
    }
