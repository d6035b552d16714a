"""The gate: launch values in, verdict or next launch out; a pure function of both.

The rule itself is in ``decision``, its promises in ``design``; here the launches that
count are picked and every case that the rule cannot answer gets its answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_joules.gate.decision import Estimate, Sums, decide, estimate, half_width
from pytest_joules.gate.design import (
    NEW,
    OLD,
    Design,
    Look,
    detectable_change,
    looks,
    order,
    relative,
)
from pytest_joules.gate.launch_value import MAX_CLIPPED_SHARE, mean, sum_squares
from pytest_joules.gate.launches import (
    Launches,
    broken,
    counted_launches,
    notes_on,
    num_disturbed,
    spread_ratio,
)
from pytest_joules.result import Reason
from pytest_joules.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the launches say, or which launch is needed to say it."""

    verdict: Verdict | None
    """``None`` while another launch could decide."""

    next_stack: str | None
    """``A`` (old) or ``B`` (new) while the verdict is ``None``."""

    change: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """Bounds of the change at every look so far; each is wrong at most ``beta`` often."""

    detectable: float = math.nan
    """Rise that the whole budget finds 95 times in 100 at the noise seen."""

    launch_sd: float = math.nan
    """Noise between launches, in ln."""

    df: float = 0.0
    num_baseline: int = 0
    """Stored launches that counted."""

    num_old: int = 0
    num_new: int = 0
    num_repeated: int = 0
    """Launches of this session set aside as disturbed."""

    energy_per_work_unit_j: float = math.nan
    reference_energy_per_work_unit_j: float = math.nan
    reference_change: float = math.nan
    """Change of the old stack against its own baseline; set where one is shown."""

    notes: tuple[Reason, ...] = ()


def judge(launches: Launches, design: Design) -> Decision:
    """Decide, or say which stack to launch next.

    The same launches give the same decision, bit for bit.
    """
    reasons = broken(launches)
    if reasons:
        return Decision(verdict=Verdict.INVALID, next_stack=None, notes=reasons)
    counted = counted_launches(launches)
    decision = _looked(counted, design)
    repeated = num_disturbed((*launches.old, *launches.new))
    notes = notes_on(launches, counted)
    if decision.verdict is None and repeated > design.max_repeats:
        decision = replace(decision, verdict=Verdict.INCONCLUSIVE, next_stack=None)
        notes = (*notes, _too_disturbed(repeated, design))
    return replace(decision, num_repeated=repeated, notes=(*notes, *decision.notes))


def next_launch(launches: Launches, design: Design) -> str | None:
    """Return the stack to launch next, ``A`` or ``B``; ``None`` when the budget is spent."""
    counted = counted_launches(launches)
    left = {OLD: len(counted.old), NEW: len(counted.new)}
    for stack in order(design, len(counted.baseline), has_old=counted.has_old):
        left[stack] -= 1
        if left[stack] < 0:
            return stack
    return None


def _looked(counted: Launches, design: Design) -> Decision:
    """Apply the rule at the latest look that the launches reach."""
    every = looks(design, len(counted.baseline), has_old=counted.has_old)
    if not every:
        nothing = Decision(
            verdict=Verdict.INCONCLUSIVE, next_stack=None, notes=(_NOTHING_TO_COMPARE,)
        )
        return _with_counts(nothing, counted)
    stack = next_launch(counted, design)
    look = _latest(every, counted)
    if look is None:
        return _with_counts(Decision(verdict=None, next_stack=stack), counted)
    seen = estimate(_sums(counted), design)
    verdict = _claimed(seen, look, design)
    if verdict is None and stack is None:
        verdict = Verdict.INCONCLUSIVE
    detectable = detectable_change(
        design,
        every[-1],
        num_baseline=len(counted.baseline),
        launch_sd=math.sqrt(seen.launch_variance),
        df=seen.df,
    )
    return replace(
        _with_counts(_described(seen, look, counted), counted),
        verdict=verdict,
        next_stack=None if verdict else stack,
        detectable=detectable,
    )


def _with_counts(decision: Decision, counted: Launches) -> Decision:
    return replace(
        decision,
        num_baseline=len(counted.baseline),
        num_old=len(counted.old),
        num_new=len(counted.new),
    )


def _latest(every: Sequence[Look], counted: Launches) -> Look | None:
    reached = [
        look
        for look in every
        if look.num_old <= len(counted.old) and look.num_new <= len(counted.new)
    ]
    return reached[-1] if reached else None


def _claimed(seen: Estimate, look: Look, design: Design) -> Verdict | None:
    claims = decide(seen, look, design)
    if claims.regression:
        return Verdict.REGRESSION
    if claims.improvement:
        return Verdict.IMPROVEMENT
    return Verdict.UNCHANGED if claims.unchanged else None


def _described(seen: Estimate, look: Look, counted: Launches) -> Decision:
    change, half = float(seen.change), float(half_width(seen, look))
    new = mean([launch.log_energy for launch in counted.new])
    return Decision(
        verdict=None,
        next_stack=None,
        change=relative(change),
        low=relative(change - half),
        high=relative(change + half),
        launch_sd=math.sqrt(seen.launch_variance),
        df=seen.df,
        energy_per_work_unit_j=math.exp(new),
        reference_energy_per_work_unit_j=math.exp(new - change),
    )


def _sums(counted: Launches) -> Sums:
    baseline, old, new = (
        [launch.log_energy for launch in group]
        for group in (counted.baseline, counted.old, counted.new)
    )
    return Sums(
        num_baseline=len(baseline),
        num_old=len(old),
        num_new=len(new),
        mean_baseline=mean(baseline),
        mean_old=mean(old),
        mean_new=mean(new),
        squares_baseline=sum_squares(baseline),
        squares_old=sum_squares(old),
        squares_new=sum_squares(new),
        spread_ratio=spread_ratio(counted),
        squares_elsewhere=counted.elsewhere.sum_squares,
        df_elsewhere=counted.elsewhere.df,
    )


_NOTHING_TO_COMPARE = Reason(
    code="nothing-to-compare",
    text="no stored launch is both of this GPU and undisturbed, and no old stack can be "
    "launched; record a baseline on this GPU with --joules-record, or name the old stack "
    "with --joules-against.",
)


def _too_disturbed(repeated: int, design: Design) -> Reason:
    return Reason(
        code="too-disturbed",
        text=f"{repeated} launches had bursts in more than {100 * MAX_CLIPPED_SHARE:.0f} % of "
        "their sub-windows (at most "
        f"{design.max_repeats} are repeated); look for other work on this machine.",
    )
