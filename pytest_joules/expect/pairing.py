"""Results laid side by side: which belong together, and whether they may be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_joules.errors import Incomparable, InvalidMeasurement, is_expected
from pytest_joules.expect.launch_noise import Sample
from pytest_joules.expect.quantity import value
from pytest_joules.result import Result

__tracebackhide__ = is_expected

LEAST_ACHIEVED = 0.85
"""Share of the asked batch that a measurement must have achieved (the paper's stable runs)."""

Results = Result | Sequence[Result]
Side = Results | Mapping[str, Results]
"""One result, a sweep, or a population: results by the name of a model or curve."""

Names = str | tuple[str, ...]
"""One or several quantities, by name."""

_MUST_AGREE = ("gpu", "task", "source")
_HARDWARE = ("power_limit_w", "mig")
_LABELS = {
    "num_gpus": "{} GPU",
    "steps": "{} steps",
    "num_frames": "{} frames",
    "batch_size": "batch {}",
    "height": "height {}",
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two samples that differ in what is compared and agree in the rest."""

    member: str
    """Name within the population; empty where there is none."""

    key: tuple[Any, ...]
    """Values that the two share; empty where two single results were given."""

    a: Sample
    b: Sample

    @property
    def text(self) -> str:
        """Write member and key."""
        return ", ".join(str(part) for part in (self.member, *self.key) if part != "")


def names(given: Names) -> tuple[str, ...]:
    """Return one or several names as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def members(*sides: Side) -> dict[str, tuple[Sequence[Result], ...]]:
    """Return each member's results, one sequence a side; one member '' if no population.

    Raises:
        Incomparable: The sides do not hold the same members, or one holds nothing.
    """
    if len({isinstance(side, Mapping) for side in sides}) > 1:
        raise Incomparable(
            "only one side is a mapping of names to results: give both alike, or neither."
        )
    populations = [side if isinstance(side, Mapping) else {"": side} for side in sides]
    first = populations[0]
    for other in populations[1:]:
        if lone := sorted(first.keys() ^ other.keys()):
            raise Incomparable(
                f"only one side holds {', '.join(map(repr, lone))}: give the same names on "
                "both sides."
            )
    if not first:
        raise Incomparable("the population is empty: nothing was measured, so nothing holds.")
    return {name: tuple(_listed(p[name], name) for p in populations) for name in first}


def _part(side: Side, member: str) -> Results:
    return side[member] if isinstance(side, Mapping) else side


def _listed(results: Results, member: str) -> Sequence[Result]:
    listed = [results] if isinstance(results, Result) else list(results)
    if not listed:
        raise Incomparable(
            f"{member or 'one side'} holds no result: nothing was measured, so nothing holds."
        )
    for one in listed:
        if not isinstance(one, Result):
            raise Incomparable(f"{one!r} is no Result; give results, or a mapping to them.")
    return listed


def require_comparable(*sides: Sequence[Result], across: Names = ()) -> None:
    """Refuse results that differ in more than what is compared, or were measured badly.

    Args:
        sides: Results of each side; each side must agree with itself.
        across: What the two sides may differ in.

    Raises:
        Incomparable: Results differ in GPU, power limit, MIG, task or source.
        InvalidMeasurement: One broke the validity contract or did not achieve its batch.
    """
    for side in sides:
        require_one_kind(side)
        for result in side:
            require_achieved(result)
    for name in set(_agreeing([r for side in sides for r in side])) - {*names(across)}:
        if name in _HARDWARE and "gpu" in names(across):
            continue
        remedy = f"pass across={name!r} if that is what you compare."
        _require_one(name, [result for side in sides for result in side], remedy=remedy)


def require_one_kind(results: Sequence[Result]) -> None:
    """Refuse broken measurements, and results of several GPUs, tasks or sources in one list.

    Raises:
        InvalidMeasurement: One broke the validity contract.
        Incomparable: Results differ in GPU, power limit, MIG, task or source.
    """
    for result in results:
        if result.reasons:
            raise InvalidMeasurement(
                f"{result.point.id} is invalid and cannot be compared: {result.reasons[0].text}"
            )
    for name in _agreeing(results):
        _require_one(name, results, remedy="compare one at a time, or give a mapping.")


def _agreeing(results: Sequence[Result]) -> tuple[str, ...]:
    known = tuple(
        name
        for name in _HARDWARE
        if all(getattr(r.provenance.identity, name) is not None for r in results)
    )
    return (*_MUST_AGREE, *known)


def _require_one(name: str, results: Sequence[Result], *, remedy: str) -> None:
    def fact(result: Result) -> Any:
        of = result.provenance.identity if name in _HARDWARE else None
        return getattr(of, name) if of else value(result, name)

    if len(found := {str(fact(result)) for result in results}) > 1:
        raise Incomparable(f"the results mix {name} {', '.join(sorted(found))}: {remedy}")


def require_achieved(result: Result) -> None:
    """Refuse a measurement that never filled its batch.

    Diffusion has no achieved batch to ask for: a batch is generated whole.

    Raises:
        InvalidMeasurement: Names the batch achieved and asked.
    """
    asked, achieved = result.point.batch_size, result.mean_batch_size
    if achieved is None and result.point.work_unit != "token":
        return
    if achieved is None or not achieved >= LEAST_ACHIEVED * asked:
        had = "is unknown" if achieved is None else f"was {achieved:.4g}"
        raise InvalidMeasurement(
            f"{result.point.id}: the achieved batch {had}, asked were {asked}, and below "
            f"{LEAST_ACHIEVED:.0%} of it batch sizes cannot be compared; measure it with more "
            "requests or memory, or leave it out."
        )


def samples(results: Sequence[Result], by: Names) -> dict[tuple[Any, ...], Sample]:
    """Group results by key; launches of one point form one sample.

    Raises:
        Incomparable: Different points share a key.
    """
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        key = tuple(value(result, name) for name in names(by))
        found.setdefault(key, []).append(result)
        first = found[key][0].point
        if result.point != first:
            raise Incomparable(
                f"{first!r} and {result.point!r} share {_spelled(by, key)}: name in by=(...) "
                "what tells them apart, or give a mapping of name to results."
            )
    return {key: tuple(found[key]) for key in sorted(found, key=_order)}


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    # A field that is not set stands before every value, with which it has no order.
    return tuple((part is not None, part) for part in key)


def pairs(a: Side, b: Side, *, by: Names, across: Names = ()) -> list[Pair]:
    """Pair results of two sides that have equal keys; two single results pair as they are.

    Raises:
        Incomparable: A result has no partner, or as ``members`` and ``require_comparable``.
        InvalidMeasurement: As ``require_comparable``.
    """
    found: list[Pair] = []
    for member, (ours, theirs) in members(a, b).items():
        require_comparable(ours, theirs, across=across)
        if all(isinstance(_part(side, member), Result) for side in (a, b)):
            found.append(Pair(member=member, key=(), a=tuple(ours), b=tuple(theirs)))
            continue
        left, right = samples(ours, by), samples(theirs, by)
        if lone := sorted(left.keys() ^ right.keys(), key=_order):
            raise Incomparable(
                f"{member + ': ' if member else ''}only one side holds "
                f"{'; '.join(_spelled(by, key) for key in lone)}: measure the others too, or "
                "restrict both sides with expect.common."
            )
        found += [Pair(member=member, key=key, a=left[key], b=right[key]) for key in left]
    return found


def _spelled(by: Names, key: tuple[Any, ...]) -> str:
    return ", ".join(f"{name}={part!r}" for name, part in zip(names(by), key, strict=True))


def labels(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[str, str]:
    """Name two sides by what tells them apart, or call them a and b."""
    candidates = ("gpu", "source", "task", "num_gpus", "precision", "model", "engine")
    for name in (*candidates, "batch_size", "steps", "height", "num_frames"):
        a, b = ({value(r, name) for r in side} for side in (ours, theirs))
        if len(a) == len(b) == 1 and a != b:
            left, right = (_LABELS.get(name, "{}").format(one) for one in (*a, *b))
            return left, right
    return "a", "b"
