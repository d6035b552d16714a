"""From pairs of samples to an ordering that has been settled."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_joules.errors import Incomparable, Inconclusive, OrderingFailed, is_expected
from pytest_joules.expect.launch_noise import Noise, Sample, center, noise_of
from pytest_joules.expect.ordering import Ordering, Outcome, Trial
from pytest_joules.expect.pairing import Pair, labels
from pytest_joules.expect.quantity import number
from pytest_joules.expect.terms import Terms, names_of

__tracebackhide__ = is_expected

Judge = Callable[[float, float], Outcome]
"""Decides from the logarithm of a over b and from how far it may be off."""

_ROUNDING = 1e-12


def below(limit: float) -> Judge:
    """Expect the logarithm below a limit; a tie is not below."""

    def judge(log_ratio: float, half_width: float) -> Outcome:
        if log_ratio + half_width < limit:
            return Outcome.HOLDS
        return Outcome.FAILS if log_ratio - half_width >= limit else Outcome.UNDECIDED

    return judge


def above(limit: float) -> Judge:
    """Expect the logarithm above a limit; a tie is not above."""
    return lambda log_ratio, half_width: below(-limit)(-log_ratio, half_width)


def within(low: float, high: float) -> Judge:
    """Expect the logarithm in an interval, ends included."""

    def judge(log_ratio: float, half_width: float) -> Outcome:
        least, most = log_ratio - half_width, log_ratio + half_width
        if low - _ROUNDING <= least and most <= high + _ROUNDING:
            return Outcome.HOLDS
        is_outside = most < low - _ROUNDING or least > high + _ROUNDING
        return Outcome.FAILS if is_outside else Outcome.UNDECIDED

    return judge


def shared_noise(pairs: Iterable[Pair], terms: Terms, quantity: str = "") -> Noise:
    """Estimate the noise from every sample of a comparison."""
    samples = [sample for pair in pairs for sample in (pair.a, pair.b)]
    return noise_of(samples, quantity or terms.quantity, terms.noise)


def middle(sample: Sample, quantity: str) -> float:
    """Return a sample's value: the geometric mean of its launches."""
    if len(sample) == 1:
        return number(sample[0], quantity)
    return math.exp(center(sample, quantity))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a pair is judged."""

    terms: Terms
    noise: Noise
    judge: Judge


def trial(pair: Pair, rule: Rule, **changes: Any) -> Trial:
    """Judge one pair, or set it aside as the exception that it was named to be."""
    quantity = rule.noise.quantity
    half_width = rule.noise.half_width(pair.a, pair.b)
    log_ratio = center(pair.a, quantity) - center(pair.b, quantity)
    is_excepted = rule.terms.excepts(pair)
    made = Trial(
        key=pair.text,
        group=repr((pair.member, pair.key)),
        quantity=quantity,
        a=middle(pair.a, quantity),
        b=middle(pair.b, quantity),
        work_units=(pair.a[0].point.work_unit, pair.b[0].point.work_unit),
        outcome=Outcome.EXCEPTION if is_excepted else rule.judge(log_ratio, half_width),
        half_width=half_width,
    )
    return replace(made, **changes)


def settled(
    claim: str, pairs: Sequence[Pair], trials: Sequence[Trial], *, terms: Terms, **changes: Any
) -> Ordering:
    """Count the trials and return their ordering if it holds.

    Args:
        claim: In words; ``{a}`` and ``{b}`` become the names of the sides.
        pairs: What was compared.
        trials: What came out.
        terms: How many must hold, and what was excepted.
        **changes: Fields of ``Ordering`` that differ from what follows from the pairs.

    Raises:
        OrderingFailed: It does not hold.
        Inconclusive: It may hold or not: noise hides the answer.
        Incomparable: An exception names nothing, or numbers do not fit.
    """
    _require_exceptions_exist(pairs, terms)
    ours, theirs = labels(
        [result for pair in pairs for result in pair.a],
        [result for pair in pairs for result in pair.b],
    )
    by = terms.by if isinstance(terms.by, str) else ", ".join(terms.by)
    found = Ordering(
        claim=claim.format(a=ours, b=theirs),
        by="" if all(not pair.key for pair in pairs) else by,
        labels=(ours, theirs),
        trials=tuple(trials),
        required=0,
        source=next((result.source for pair in pairs for result in pair.a), "live"),
    )
    found = replace(found, **changes, required=terms.required(found.num))
    _raise_unless_holds(found)
    return found


def _raise_unless_holds(ordering: Ordering) -> None:
    match ordering.outcome:
        case Outcome.FAILS:
            failed = OrderingFailed(ordering.describe())
            failed.ordering = ordering
            raise failed
        case Outcome.UNDECIDED:
            unclear = Inconclusive(
                f"{ordering.describe()}\nMeasure more launches of these points, or ask for "
                "less: a smaller margin, fewer of them, or points further apart."
            )
            unclear.ordering = ordering
            raise unclear
        case Outcome.HOLDS | Outcome.EXCEPTION:
            return


def _require_exceptions_exist(pairs: Sequence[Pair], terms: Terms) -> None:
    known = [name for pair in pairs for name in names_of(pair.member, pair.key)]
    for named in terms.except_for:
        if named not in known:
            shown = ", ".join(sorted({repr(name) for name in known})[:12]) or "none"
            raise Incomparable(
                f"except_for names {named!r}, which was not compared; known are {shown}."
            )
