"""Results in, a comparison with its sentence out; the same results give the same bits."""

import math
from collections.abc import Iterable

from pytest_joules.gate import Decision, judge
from pytest_joules.gate.design import FOUND, OLD, Design
from pytest_joules.gate.launch_value import LaunchValue, PooledNoise, launch_value, pooled_noise
from pytest_joules.gate.launches import Launches
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.units import counted, percent
from pytest_joules.verdict import Comparison, Verdict


def launches(
    *,
    baseline: Iterable[Result] = (),
    old: Iterable[Result] = (),
    new: Iterable[Result] = (),
    has_old: bool = False,
    elsewhere: PooledNoise | None = None,
) -> Launches:
    """Reduce the results of one point to what the gate judges."""
    return Launches(
        baseline=_values(baseline),
        old=_values(old),
        new=_values(new),
        has_old=has_old,
        elsewhere=elsewhere or PooledNoise(),
    )


def _values(results: Iterable[Result]) -> tuple[LaunchValue, ...]:
    return tuple(launch_value(result) for result in results)


def noise_between(groups: Iterable[Iterable[Result]]) -> PooledNoise:
    """Pool the noise between launches; a group holds the launches of one point and stack."""
    return pooled_noise(_values(group) for group in groups)


def compare(
    point: Point, seen: Launches, design: Design, *, reference: str = "baseline"
) -> Comparison:
    """Judge what was measured; launches still missing make it ``inconclusive``."""
    return comparison(point, judge(seen, design), design, reference=reference)


def comparison(
    point: Point, decision: Decision, design: Design, *, reference: str = "baseline"
) -> Comparison:
    """Put a decision into the words and numbers of a report."""
    return Comparison(
        point=point,
        verdict=decision.verdict or Verdict.INCONCLUSIVE,
        reference=reference,
        change=decision.change,
        low=decision.low,
        high=decision.high,
        tolerance=design.tolerance,
        detectable=decision.detectable,
        energy_per_work_unit_j=decision.energy_per_work_unit_j,
        reference_energy_per_work_unit_j=decision.reference_energy_per_work_unit_j,
        num_launches=decision.num_new,
        num_reference_launches=decision.num_baseline + decision.num_old,
        explanation=explanation(decision, design),
        reference_change=decision.reference_change,
    )


def explanation(decision: Decision, design: Design) -> str:
    """Say in a sentence or two why the verdict is what it is, and what it can be worth."""
    notes = " ".join(note.text for note in decision.notes)
    if decision.verdict is Verdict.INVALID or not decision.num_new:
        return notes or "nothing has been launched yet."
    if math.isnan(decision.change):
        return f"{decision.num_new} new launches allow no comparison yet. {notes}".strip()
    return " ".join(part for part in (_why(decision, design), _found(decision), notes) if part)


def _found(decision: Decision) -> str:
    often = f"would have been found {FOUND * 100:.0f} times in 100."
    if decision.detectable > 1:
        return f"Not even a doubling {often}"
    return f"A rise of {percent(decision.detectable).lstrip('+')} {often}"


def _why(decision: Decision, design: Design) -> str:
    seen = (
        f"{percent(decision.change)} [{percent(decision.low)}, {percent(decision.high)}] in "
        f"{counted(decision.num_new, 'new launch')} against {decision.num_baseline} stored and "
        f"{decision.num_old} of the old stack"
    )
    limit = percent(design.tolerance).lstrip("+")
    match decision.verdict:
        case Verdict.UNCHANGED:
            return f"{seen}: a rise of {limit} is excluded."
        case Verdict.REGRESSION:
            return f"{seen}: a rise, and not shown to be smaller than {limit}."
        case Verdict.IMPROVEMENT:
            return f"{seen}: a fall, and not shown to be smaller than {limit}."
        case Verdict.INCONCLUSIVE | Verdict.INVALID:
            return (
                f"{seen}: neither no change nor a rise of {limit} is excluded and the budget "
                "is spent; allow more launches, measure longer windows, or raise the tolerance."
            )
        case None:
            stack = "old" if decision.next_stack == OLD else "new"
            return (
                f"{seen}: neither no change nor a rise of {limit} is excluded by so few; the "
                f"gate would launch the {stack} stack next."
            )
