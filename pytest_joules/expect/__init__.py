"""Expected orderings between results, live, recorded or simulated alike.

Each function compares what was measured and returns the ``Ordering``, which holds every
pair. It raises ``OrderingFailed`` (a failed test) where too many pairs stand the other way,
``Inconclusive`` where noise hides the answer, ``Incomparable`` where the results cannot be
put side by side, and ``InvalidMeasurement`` where one of them broke its contract or did not
achieve its batch. The first two carry the ordering as ``error.ordering``.

A side is one result, a sweep of results, or a population: a mapping of names to either.
Results of several launches of one point are averaged. The keywords that all functions take
are the fields of ``terms.Terms``.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Unpack

from pytest_joules.errors import Incomparable, is_expected
from pytest_joules.expect.frontier import pareto_dominates, unlocks
from pytest_joules.expect.ordering import Ordering
from pytest_joules.expect.pairing import (
    Names,
    Pair,
    Side,
    members,
    names,
    pairs,
    require_comparable,
    samples,
)
from pytest_joules.expect.selection import best, common
from pytest_joules.expect.terms import Given, Terms
from pytest_joules.expect.trials import (
    Judge,
    Rule,
    above,
    below,
    settled,
    shared_noise,
    trial,
    within,
)
from pytest_joules.result import Result

__tracebackhide__ = is_expected

__all__ = [
    "best",
    "common",
    "crossover",
    "higher",
    "lower",
    "monotone",
    "pareto_dominates",
    "ratio",
    "unlocks",
    "win_rate",
]


def lower(a: Side, b: Side, **terms: Unpack[Given]) -> Ordering:
    """Expect a below b by more than the margin, in every pair or in ``at_least`` of them.

    Raises:
        OrderingFailed: Too few pairs hold.
        Inconclusive, Incomparable, InvalidMeasurement: As the module says.
    """
    given = Terms(**terms)
    judge = below(math.log1p(-given.margin))
    return _each(a, b, given, judge=judge, expected="lower than {b}")


def higher(a: Side, b: Side, **terms: Unpack[Given]) -> Ordering:
    """Expect a above b by more than the margin, in every pair or in ``at_least`` of them.

    Raises:
        OrderingFailed: Too few pairs hold.
        Inconclusive, Incomparable, InvalidMeasurement: As the module says.
    """
    given = Terms(**terms)
    judge = above(math.log1p(given.margin))
    return _each(a, b, given, judge=judge, expected="higher than {b}")


def ratio(a: Side, b: Side, *, low: float, high: float, **terms: Unpack[Given]) -> Ordering:
    """Expect a over b between two bounds, ends included; a margin widens them.

    Raises:
        OrderingFailed: Too few pairs hold.
        Inconclusive, Incomparable, InvalidMeasurement: As the module says.
    """
    if not 0 < low <= high < math.inf:
        raise Incomparable(f"low={low!r}, high={high!r}: 0 < low <= high must hold.")
    given = Terms(**terms)
    judge = within(
        math.log(low) + math.log1p(-given.margin), math.log(high) + math.log1p(given.margin)
    )
    expected = f"{low:g} to {high:g} times {{b}}"
    return _each(a, b, given, judge=judge, expected=expected)


def win_rate(
    a: Side | Sequence[tuple[Result, Result]], b: Side | None = None, **terms: Unpack[Given]
) -> Ordering:
    """Expect a below b in ``at_least`` of exactly ``of`` comparisons; both must be given.

    Without ``b``, ``a`` holds pairs that were chosen elsewhere, such as the best
    configuration of each of two GPUs.

    Raises:
        OrderingFailed: Too few pairs hold.
        Incomparable: There are more or fewer comparisons than ``of``; else as the module says.
        Inconclusive, InvalidMeasurement: As the module says.
    """
    if terms.get("at_least") is None or terms.get("of") is None:
        raise Incomparable("a win rate needs at_least= and of=: so many wins of so many.")
    if b is not None:
        return lower(a, b, **terms)  # type: ignore[arg-type]  # pairs come without b
    return lower(*_population(a), **terms)


def monotone(
    results: Side,
    *,
    direction: Literal["falling", "rising"],
    slack: float = 0.0,
    **terms: Unpack[Given],
) -> Ordering:
    """Expect every step along ``by`` to fall, or to rise; a tie does neither.

    A step is named by the value that it leads to, for ``except_for``.

    Args:
        results: One sweep, or a population of sweeps.
        direction: ``falling`` or ``rising``.
        slack: Relative step in the wrong direction that is still allowed.
        **terms: Fields of ``Terms``.

    Raises:
        OrderingFailed: Too few steps hold.
        Inconclusive, Incomparable, InvalidMeasurement: As the module says.
    """
    given = Terms(**terms)
    if direction not in {"falling", "rising"}:
        raise Incomparable(f"direction={direction!r}: choose falling or rising.")
    if not 0 <= slack < 1:
        raise Incomparable(f"slack={slack!r}: give a share of at least 0, below 1.")
    limit = math.log1p(-given.margin) + math.log1p(slack)
    judge = below(limit) if direction == "falling" else above(-limit)
    steps = _steps(results, given)
    found = [pair for pair, _ in steps]
    rule = Rule(terms=given, noise=shared_noise(found, given), judge=judge)
    trials = [trial(pair, rule, key=text) for pair, text in steps]
    claim = f"{given.quantity} {direction} along {given.by}"
    return settled(claim, found, trials, terms=given, labels=("after", "before"))


def crossover(
    a: Side, b: Side, *, between: tuple[float, float], **terms: Unpack[Given]
) -> Ordering:
    """Expect a above b up to the first bound and below it from the second on.

    What happens between the bounds is free. Each member of a population counts once.

    Raises:
        OrderingFailed: A pair outside the bounds stands the other way.
        Incomparable: No pair lies on one of the two sides; else as the module says.
        Inconclusive, InvalidMeasurement: As the module says.
    """
    low, high = between
    given = Terms(**terms)
    if not low < high:
        raise Incomparable(f"between={between!r}: give a lower and a higher bound.")
    _require_one_name(given.by)
    found = pairs(a, b, by=given.by, across=given.across)
    outside = [pair for pair in found if pair.key and not low < pair.key[0] < high]
    for member in {pair.member: None for pair in found}:
        ends = {pair.key[0] <= low for pair in outside if pair.member == member}
        if ends != {True, False}:
            raise Incomparable(
                f"{member or 'the sweep'} has no pair at {given.by} <= {low:g} or none at "
                f">= {high:g}: a crossover needs both ends."
            )
    noise = shared_noise(found, given)
    up, down = (
        Rule(terms=given, noise=noise, judge=judge)
        for judge in (above(math.log1p(given.margin)), below(math.log1p(-given.margin)))
    )
    trials = [
        trial(pair, up if pair.key[0] <= low else down, group=pair.member) for pair in outside
    ]
    claim = f"{given.quantity} of {{a}} above {{b}} to {given.by} {low:g}, below from {high:g}"
    return settled(claim, outside, trials, terms=given)


def _each(a: Side, b: Side, given: Terms, *, judge: Judge, expected: str) -> Ordering:
    found = pairs(a, b, by=given.by, across=given.across)
    rule = Rule(terms=given, noise=shared_noise(found, given), judge=judge)
    trials = [trial(pair, rule) for pair in found]
    by_margin = f" (margin {given.margin:g})" if given.margin else ""
    claim = f"{given.quantity} of {{a}} {expected}{by_margin}"
    return settled(claim, found, trials, terms=given)


def _population(chosen: object) -> tuple[dict[str, Result], dict[str, Result]]:
    ours: dict[str, Result] = {}
    theirs: dict[str, Result] = {}
    for index, pair in enumerate(chosen if isinstance(chosen, list | tuple) else [chosen], 1):
        match pair:
            case (Result() as a, Result() as b):
                name = f"{index} {a.point.id}"
                ours[name], theirs[name] = a, b
            case _:
                raise Incomparable(f"{pair!r} is no pair: give two sides, or pairs of results.")
    return ours, theirs


def _require_one_name(by: Names) -> None:
    if len(names(by)) != 1:
        raise Incomparable(f"by={by!r}: an order along it needs exactly one quantity.")


def _steps(results: Side, given: Terms) -> list[tuple[Pair, str]]:
    _require_one_name(given.by)
    found: list[tuple[Pair, str]] = []
    for member, (listed,) in members(results).items():
        require_comparable(listed)
        grouped = samples(listed, given.by)
        if len(grouped) < 2:  # noqa: PLR2004  two ends make a step
            raise Incomparable(
                f"{member or 'the sweep'} holds one {given.by} only: there is no step."
            )
        for (before, b), (after, a) in pairwise(grouped.items()):
            text = f"{member}, " if member else ""
            pair = Pair(member=member, key=after, a=a, b=b)
            found.append((pair, f"{text}{before[0]} to {after[0]}"))
    return found
