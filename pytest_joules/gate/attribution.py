"""Whose change it is: the new stack's, or one that the old stack has against its baseline.

Where an old stack can be launched, every answer against stored launches is put to it first:
without it, nothing would have been compared with the stack that the user named. If the old
stack has changed as well ("main is already worse"), what is stored is out of date and only
launches side by side are compared.
"""

from dataclasses import replace

from pytest_joules.gate import Decision, judge
from pytest_joules.gate.design import OLD, Design
from pytest_joules.gate.launches import Launches, counted_launches
from pytest_joules.result import Reason
from pytest_joules.units import percent
from pytest_joules.verdict import Verdict

ASKED = 2
"""Launches of the old stack before an answer against its baseline is one against itself."""

_CHANGES = (Verdict.REGRESSION, Verdict.IMPROVEMENT)
_ANSWERS = (*_CHANGES, Verdict.UNCHANGED)


def attributed(launches: Launches, design: Design) -> Decision:
    """Decide like ``judge``, but give no answer before the old stack was heard.

    It asks for more before it answers, so it is wrong no more often than ``judge``.
    """
    decision = judge(launches, design)
    counted = counted_launches(launches)
    if not (counted.has_old and counted.baseline) or decision.verdict is Verdict.INVALID:
        return decision
    is_open = decision.num_repeated <= design.max_repeats
    if decision.verdict in _ANSWERS and len(counted.old) < ASKED and is_open:
        return replace(decision, verdict=None, next_stack=OLD)
    moved = baseline_moved(counted, design)
    if moved is None:
        return decision
    beside = judge(replace(launches, baseline=()), design)
    return replace(
        beside, reference_change=moved.change, notes=(*beside.notes, _outdated(moved))
    )


def baseline_moved(counted: Launches, design: Design) -> Decision | None:
    """Judge the old stack against its own baseline; ``None`` where no change is shown."""
    if not counted.old:
        return None
    decision = judge(Launches(baseline=counted.baseline, new=counted.old), design)
    return decision if decision.verdict in _CHANGES else None


def _outdated(moved: Decision) -> Reason:
    bounds = f"[{percent(moved.low)}, {percent(moved.high)}]"
    return Reason(
        code="baseline-outdated",
        text=f"The old stack itself is {percent(moved.change)} {bounds} from the baseline, so "
        "that much is not this change's; only launches side by side were compared. Move the "
        "baseline with `joules baseline accept`.",
    )
