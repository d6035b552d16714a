"""Whose change it is: answers worked by hand, with an old stack and a baseline at hand."""

import math

import pytest

from pytest_joules.gate import judge
from pytest_joules.gate.attribution import attributed, baseline_moved
from pytest_joules.gate.design import Design
from pytest_joules.gate.launch_value import LaunchValue
from pytest_joules.gate.launches import Launches
from pytest_joules.verdict import Verdict

DESIGN = Design()
BOARD = ("GPU-here",)


def values(*logs, **more):
    return tuple(LaunchValue(log_energy=y, gpu_uuids=BOARD, **more) for y in logs)


STORED = values(*[0.001, -0.001] * 4)
TEN = math.log(1.1)


def seen(*, old=(), new=(), baseline=STORED, has_old=True):
    return Launches(baseline=baseline, old=values(*old), new=values(*new), has_old=has_old)


@pytest.mark.parametrize("old", [(), (0.0,)])
def test_a_change_against_the_baseline_asks_the_old_stack_twice(old):
    launches = seen(old=old, new=(TEN, TEN))

    assert judge(launches, DESIGN).verdict is Verdict.REGRESSION
    decision = attributed(launches, DESIGN)
    assert decision.verdict is None
    assert decision.next_stack == "A"


@pytest.mark.parametrize(
    ("old", "new", "verdict", "reference_change"),
    [
        pytest.param((0, 0), (TEN, TEN), Verdict.REGRESSION, None, id="this change"),
        pytest.param((TEN, TEN), (TEN, TEN), Verdict.UNCHANGED, 0.1, id="main already"),
        pytest.param((TEN, TEN), (2 * TEN,) * 2, Verdict.REGRESSION, 0.1, id="both"),
        pytest.param((-TEN, -TEN), (0, 0), Verdict.REGRESSION, 1 / 1.1 - 1, id="undone"),
        pytest.param((TEN, TEN), (0, 0), Verdict.IMPROVEMENT, 0.1, id="mended"),
    ],
)
def test_who_is_to_blame(*, old, new, verdict, reference_change):
    # Four pairs: enough to tell without any baseline.
    decision = attributed(seen(old=old * 2, new=new * 2), DESIGN)

    assert decision.verdict is verdict
    if reference_change is None:
        assert math.isnan(decision.reference_change)
    else:
        assert decision.reference_change == pytest.approx(reference_change)
        assert decision.num_baseline == 0
        assert [note.code for note in decision.notes][-1] == "baseline-outdated"


@pytest.mark.parametrize(
    "launches",
    [
        pytest.param(seen(new=(TEN, TEN), has_old=False), id="no old stack"),
        pytest.param(seen(new=(TEN,), old=(0,), baseline=()), id="no baseline"),
        pytest.param(seen(new=(math.nan,)), id="invalid"),
    ],
)
def test_otherwise_the_gate_has_the_word(launches):
    assert repr(attributed(launches, DESIGN)) == repr(judge(launches, DESIGN))


def test_no_change_against_the_baseline_alone_is_no_answer_yet():
    alone = seen(new=(0.0, 0.0))

    assert judge(alone, DESIGN).verdict is Verdict.UNCHANGED
    assert attributed(alone, DESIGN).verdict is None
    assert attributed(alone, DESIGN).next_stack == "A"
    assert attributed(seen(new=(0.0, 0.0), old=(0.0,)), DESIGN).next_stack == "A"
    heard = attributed(seen(new=(0.0, 0.0), old=(0.0, 0.0)), DESIGN)
    assert heard.verdict is Verdict.UNCHANGED


def test_old_launches_that_never_count_do_not_keep_a_session_going():
    disturbed = values(*[0.0] * (DESIGN.max_repeats + 1), clipped_share=0.5)
    launches = Launches(baseline=STORED, old=disturbed, new=values(TEN, TEN), has_old=True)

    assert attributed(launches, DESIGN).verdict is not None


def test_an_old_stack_that_was_not_launched_has_not_moved():
    assert baseline_moved(seen(new=(TEN,)), DESIGN) is None
