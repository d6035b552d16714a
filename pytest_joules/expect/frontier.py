"""Expectations about whole curves: which dominates, and what more GPUs unlock."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from pytest_joules.errors import Incomparable, is_expected
from pytest_joules.expect.launch_noise import Noise, Sample
from pytest_joules.expect.ordering import Ordering, Outcome, Trial
from pytest_joules.expect.pairing import Pair, Side, members, require_comparable, samples
from pytest_joules.expect.quantity import ENERGY
from pytest_joules.expect.terms import Given, Terms
from pytest_joules.expect.trials import Rule, below, middle, settled, shared_noise, trial
from pytest_joules.result import Result

__tracebackhide__ = is_expected


def pareto_dominates(
    a: Side,
    b: Side,
    *,
    cost: tuple[str, ...] = (ENERGY, "median_itl_s"),
    **terms: Unpack[Given],
) -> Ordering:
    """Expect for each result of b one of a that costs no more in any way and less in one.

    ``less`` means less by the margin. Each member of a population counts once. The table
    shows the way in which the nearest result of a is worst.

    Raises:
        OrderingFailed: A result of b is not dominated.
        Inconclusive, Incomparable, InvalidMeasurement: As for ``expect``.
    """
    given = Terms(**terms)
    found: list[Pair] = []
    trials: list[Trial] = []
    for member, (ours, theirs) in members(a, b).items():
        require_comparable(ours, theirs, across=given.across)
        candidates = samples(ours, given.by).values()
        for key, sample in samples(theirs, given.by).items():
            rivals = [Pair(member=member, key=key, a=one, b=sample) for one in candidates]
            found += rivals
            trials.append(_dominated(rivals, given, cost))
    claim = f"{{a}} dominates {{b}} in {' and '.join(cost)}"
    return settled(claim, found, trials, terms=given)


def _dominated(rivals: Sequence[Pair], given: Terms, cost: tuple[str, ...]) -> Trial:
    limit = math.log1p(-given.margin)
    noises = [shared_noise(rivals, given, name) for name in cost]
    compared = [
        [trial(pair, _rule(given, noise), group=pair.member) for noise in noises]
        for pair in rivals
    ]
    nearest = min((max(ways, key=_log_ratio) for ways in compared), key=_log_ratio)
    if nearest.outcome is Outcome.EXCEPTION:
        return nearest
    outcomes = {_domination(ways, limit) for ways in compared}
    order = (Outcome.HOLDS, Outcome.UNDECIDED, Outcome.FAILS)
    return replace(nearest, outcome=next(one for one in order if one in outcomes))


def _domination(ways: Sequence[Trial], limit: float) -> Outcome:
    """Judge one rival: surely, possibly, or not at all."""
    for sign, outcome in ((1, Outcome.HOLDS), (-1, Outcome.UNDECIDED)):
        logs = [_log_ratio(way) + sign * way.half_width for way in ways]
        if max(logs) <= 0 and min(logs) < limit:
            return outcome
    return Outcome.FAILS


def _log_ratio(way: Trial) -> float:
    return math.log(way.a / way.b)


def unlocks(fewer: Side, more: Side, **terms: Unpack[Given]) -> Ordering:
    """Expect more GPUs to allow a larger batch, and a minimum lower by the margin.

    Each member of a population counts once: both must hold for it.

    Raises:
        OrderingFailed: The largest batch or the minimum is no better.
        Incomparable: ``more`` has no more GPUs than ``fewer``; else as for ``expect``.
        Inconclusive, InvalidMeasurement: As for ``expect``.
    """
    given = Terms(**terms)
    sides = members(fewer, more)
    for member, (few, many) in sides.items():
        require_comparable(few, many, across=given.across)
        _require_more_gpus(few, many, member)
    found = [
        Pair(member=member, key=(), a=_least(many, given), b=_least(few, given))
        for member, (few, many) in sides.items()
    ]
    rule = _rule(given, shared_noise(found, given))
    trials: list[Trial] = []
    for pair, (few, many) in zip(found, sides.values(), strict=True):
        minimum = trial(pair, rule, key=_titled(pair, "minimum"))
        trials += [_growth(minimum, few, many, key=_titled(pair, "largest batch")), minimum]
    claim = "{a} allows a larger batch and a lower minimum than {b}"
    return settled(claim, found, trials, terms=given)


def _growth(
    minimum: Trial, few: Sequence[Result], many: Sequence[Result], *, key: str
) -> Trial:
    largest = [max(result.point.batch_size for result in side) for side in (many, few)]
    outcome = Outcome.HOLDS if largest[0] > largest[1] else Outcome.FAILS
    return replace(
        minimum,
        key=key,
        quantity="batch_size",
        a=float(largest[0]),
        b=float(largest[1]),
        half_width=0.0,
        outcome=minimum.outcome if minimum.outcome is Outcome.EXCEPTION else outcome,
    )


def _rule(given: Terms, noise: Noise) -> Rule:
    return Rule(terms=given, noise=noise, judge=below(math.log1p(-given.margin)))


def _titled(pair: Pair, title: str) -> str:
    return f"{pair.member}, {title}" if pair.member else title


def _least(side: Sequence[Result], given: Terms) -> Sample:
    grouped = samples(side, given.by).values()
    return min(grouped, key=lambda sample: middle(sample, given.quantity))


def _require_more_gpus(few: Sequence[Result], many: Sequence[Result], member: str) -> None:
    counts = [sorted({result.point.num_gpus for result in side}) for side in (few, many)]
    if any(len(count) > 1 for count in counts) or counts[0] >= counts[1]:
        raise Incomparable(
            f"{member + ': ' if member else ''}the sides have num_gpus {counts[0]} and "
            f"{counts[1]}: each needs one number, the second larger than the first."
        )
