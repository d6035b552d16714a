"""``joules compare OLD NEW``: what a reviewer asks of two sets of stored results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pytest_joules.commands.answer import Answer, exit_code
from pytest_joules.errors import Incomparable, is_expected
from pytest_joules.gate.ruling import Case, rule
from pytest_joules.point import Point
from pytest_joules.provenance import different
from pytest_joules.report.text import software_changes, table
from pytest_joules.result import Result
from pytest_joules.units import counted, percent, si
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

_NEW = "new"
_HEAD = ("point", "source", "then", "now", "change", "interval", "launches", "verdict")


@dataclass(frozen=True, order=True, kw_only=True)
class Where:
    """What results must share beside their point: the verdicts of one are made together."""

    source: str
    gpu: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The results of one point, before and after."""

    where: Where
    point: Point
    old: tuple[Result, ...]
    new: tuple[Result, ...]

    @property
    def obstacle(self) -> str:
        """Why the two cannot be compared; empty where they can."""
        for name, runs in (("old", self.old), ("new", self.new)):
            if not runs:
                return f"the {name} results do not hold it"
            if not _valid(runs):
                codes = sorted({reason.code for run in runs for reason in run.reasons})
                return f"no valid {name} result ({', '.join(codes)})"
        return _other_hardware(_valid(self.old), _valid(self.new))

    @property
    def is_on_both_sides(self) -> bool:
        """Whether both hold the point, valid or not."""
        return bool(self.old and self.new)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: a pair with its comparison, or with why there is none."""

    pair: Pair
    comparison: Comparison | None = None
    alpha: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Return the answer; what could not be compared is invalid, never green."""
        return self.comparison.verdict if self.comparison else Verdict.INVALID


def compared(
    old: Sequence[Result], new: Sequence[Result], *, tolerance: float, common: bool = False
) -> Answer:
    """Judge new results as a check with the old ones as its baseline would.

    Args:
        old: Results before, of any number of points.
        new: Results after.
        tolerance: Relative rise that nobody would act on.
        common: Leave out points that only one side holds; else they are undecided.

    Raises:
        Incomparable: No point is on both sides.
    """
    pairs = [pair for pair in paired(old, new) if pair.is_on_both_sides or not common]
    if not any(pair.is_on_both_sides for pair in pairs):
        raise Incomparable(
            f"no point is on both sides: {_names(old)} before, {_names(new)} after. Measure "
            "the same points on the same GPU model twice."
        )
    rows = list(_rows(pairs, tolerance))
    return Answer(
        lines=_lines(rows),
        values=[_values(row) for row in rows],
        exit_code=exit_code(row.verdict for row in rows),
    )


def paired(old: Sequence[Result], new: Sequence[Result]) -> list[Pair]:
    """Put results of the same point, GPU model and source side by side, the new ones first."""
    then, now = _grouped(old), _grouped(new)
    return [
        Pair(where=key[0], point=key[1], old=then.get(key, ()), new=now.get(key, ()))
        for key in {**now, **then}
    ]


def _grouped(results: Iterable[Result]) -> Mapping[tuple[Where, Point], tuple[Result, ...]]:
    groups: dict[tuple[Where, Point], tuple[Result, ...]] = {}
    for result in results:
        key = (Where(source=result.source, gpu=result.gpu), result.point)
        groups[key] = (*groups.get(key, ()), result)
    return groups


def _rows(pairs: Sequence[Pair], tolerance: float) -> Iterable[Row]:
    comparable = [pair for pair in pairs if not pair.obstacle]
    cases = {
        where: _case([pair for pair in comparable if pair.where == where], tolerance)
        for where in {pair.where for pair in comparable}
    }
    for pair in pairs:
        if pair.obstacle:
            yield Row(pair=pair)
            continue
        case = cases[pair.where]
        mates = [each for each in comparable if each.where == pair.where]
        launched = {(each.point, _NEW): _valid(each.new) for each in mates}
        comparison = case.compared(pair.point, rule(pair.point, launched, case))
        yield Row(pair=pair, comparison=comparison, alpha=case.design(pair.point).alpha)


def _case(pairs: Sequence[Pair], tolerance: float) -> Case:
    return Case(
        stack=_NEW,
        tolerances={pair.point: tolerance for pair in pairs},
        baselines={pair.point: _valid(pair.old) for pair in pairs},
    )


def _valid(runs: Iterable[Result]) -> tuple[Result, ...]:
    return tuple(run for run in runs if run.is_valid)


def _other_hardware(old: Sequence[Result], new: Sequence[Result]) -> str:
    theirs = old[0].provenance.identity
    for run in (*old[1:], *new):
        for name, now, then in different(run.provenance.identity, theirs):
            return f"other hardware: {name} {then!r} and {now!r}"
    return ""


def _names(results: Iterable[Result]) -> str:
    return ", ".join(sorted({f"{run.point.id} on {run.gpu}" for run in results})) or "nothing"


def _lines(rows: Sequence[Row]) -> list[str]:
    shows_where = len({row.pair.where for row in rows}) > 1
    cells = [_cells(row, shows_where=shows_where) for row in rows]
    software = dict.fromkeys(line for row in rows for line in _software(row.pair))
    return [
        *table([_HEAD, *cells]),
        *(f"{row.pair.point.id}: {_why(row)}" for row in rows if _why(row)),
        *(f"software: {line}" for line in software),
        *_alarms(rows),
    ]


def _cells(row: Row, *, shows_where: bool) -> tuple[str, ...]:
    pair, made = row.pair, row.comparison
    is_estimated = made is not None and not math.isnan(made.change)
    where = f" ({pair.where.gpu})" if shows_where else ""
    return (
        f"{pair.point.id}{where}",
        pair.where.source,
        _energy(pair.old),
        _energy(pair.new),
        percent(made.change) if made and is_estimated else "",
        f"[{percent(made.low)}, {percent(made.high)}]" if made and is_estimated else "",
        f"{len(_valid(pair.old))} -> {len(_valid(pair.new))}",
        str(made.verdict) if made else "not comparable",
    )


def _energy(runs: Sequence[Result]) -> str:
    valid = _valid(runs)
    if not valid:
        return "-"
    mean_j = fmean(run.energy_per_work_unit_j for run in valid)
    return si(mean_j, f"J/{valid[0].point.work_unit}")


def _why(row: Row) -> str:
    """Say why a point has no verdict, or what a red one rests on."""
    if row.comparison is None:
        return row.pair.obstacle
    return row.comparison.explanation if row.verdict.fails else ""


def _software(pair: Pair) -> list[str]:
    old, new = _valid(pair.old), _valid(pair.new)
    return software_changes(new[-1], old[-1]) if old and new else []


def _alarms(rows: Sequence[Row]) -> list[str]:
    alphas = [row.alpha for row in rows if row.comparison]
    if not alphas:
        return []
    chance = f"{100 * math.fsum(alphas):.2g} %"
    return [f"{counted(len(alphas), 'comparison')}, chance of any false alarm at most {chance}"]


def _values(row: Row) -> dict[str, Any]:
    pair = row.pair
    return {
        "point": pair.point.id,
        "gpu": pair.where.gpu,
        "source": pair.where.source,
        "verdict": str(row.comparison.verdict) if row.comparison else None,
        "why_not": pair.obstacle,
        "software": _software(pair),
        "comparison": row.comparison and row.comparison.as_json(),
    }
