"""Arithmetic that several claims share."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median

from pytest_joules.claims.claim import Scalar
from pytest_joules.claims.dataset import Curve, number
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result

ENERGY = "energy_per_work_unit_j"


def share_percent(cases: Iterable[bool]) -> float:
    """Return the percentage of cases that are true.

    Raises:
        NotMeasured: There is no case.
    """
    answers = list(cases)
    if not answers:
        raise NotMeasured("the data hold no pair that this rule compares.")
    return 100 * sum(answers) / len(answers)


def mean(rows: Iterable[Result], quantity: str) -> float:
    """Return the mean of a quantity of ``Result``."""
    return fmean(number(row, quantity) for row in rows)


def trend(curves: Sequence[Curve], quantity: str, *, sign: int) -> Mapping[str, Scalar]:
    """Tell how often a quantity follows batch size.

    Args:
        curves: Curves of at least two batch sizes count; others are left out.
        quantity: Of ``Result``.
        sign: 1 where it should rise, -1 where it should fall.

    Returns:
        The percentage of adjacent steps and of smallest-to-largest comparisons that follow.
    """
    sweeps = [list(curve.by_batch_size(quantity).values()) for curve in curves]
    sweeps = [values for values in sweeps if len(values) > 1]
    steps = [
        sign * (after - before) > 0 for values in sweeps for before, after in pairwise(values)
    ]
    ends = [sign * (values[-1] - values[0]) > 0 for values in sweeps]
    return {"steps %": share_percent(steps), "ends %": share_percent(ends)}


def changes_percent(pairs: Iterable[tuple[Result, Result]], quantity: str) -> list[float]:
    """Return the change of the second over the first of each pair, in percent."""
    return [
        100 * (number(second, quantity) / number(first, quantity) - 1)
        for first, second in pairs
    ]


def summary(changes: Sequence[float]) -> Mapping[str, Scalar]:
    """Return wins (falls), count, least, greatest and median of changes in percent.

    Raises:
        NotMeasured: There is no change.
    """
    if not changes:
        raise NotMeasured("the data hold no pair that this rule compares.")
    return {
        "wins": sum(change < 0 for change in changes),
        "n": len(changes),
        "min %": min(changes),
        "max %": max(changes),
        "median %": median(changes),
    }


def same_batch_pairs(one: Curve, other: Curve) -> list[tuple[Result, Result]]:
    """Pair rows of equal batch size; of repeats every combination."""
    return [
        (first, second)
        for first in one.rows
        for second in other.rows
        if first.point.batch_size == second.point.batch_size
    ]
