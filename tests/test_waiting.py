"""Progress: one line for each event, one for the present moment; times worked out by hand."""

import pytest

from pytest_joules.errors import LoadError
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.progress import (
    LaunchBegins,
    LaunchEnds,
    LeaseEnds,
    LeaseWaits,
    LoadBegins,
    PointEnds,
)
from pytest_joules.report.waiting import Session, Waiting
from pytest_joules.result import Reason
from tests.fakes.results import make_evidence, make_result

BIG, SMALL = (
    Point(model="Qwen/Qwen3-8B", batch_size=64),
    Point(model="Qwen/Qwen3-8B", batch_size=16),
)
LAUNCH = plan([SMALL, BIG], stack=Stack(name="new"), gpu="h200").launches[0]


LOG = f"""\
joules 0:00  launch 1 of 3: vllm Qwen/Qwen3-8B bf16 on 1 x h200, stack new, batch sizes 64, 16
joules 1:32  ready after 1:32; load {BIG.id} for a window of 60 s
joules 3:02  {BIG.id}: 151 mJ/token in 60 s, 29.1 kJ so far, 3.0 of 60 GPU minutes, about 10:28 left
joules 3:02  load {SMALL.id} for a window of 60 s
joules 4:32  {SMALL.id}: 151 mJ/token in 60 s, 40.0 kJ so far, 4.5 of 60 GPU minutes, about 9:00 left
"""  # noqa: E501  as wide as it is printed


def session(**changes):
    return Session(
        **{
            "budget_gpu_minutes": 60.0,
            "num_launches": 1,
            "spent_gpu_s": 0.0,
            "to_come": 2,
            "is_least": False,
            **changes,
        }
    )


def load(point, at_s, energy_j=None):
    return LoadBegins(point=point, min_window_s=60.0, energy_j=lambda: energy_j, at_s=at_s)


def result_of(point, **changes):
    return make_result(0.151, batch_size=point.batch_size, evidence=make_evidence(), **changes)


def told(*events, **facts):
    waiting = Waiting(session=lambda: session(**facts))
    return waiting, [waiting.hear(event) for event in events]


def test_a_log_has_one_line_for_each_event():
    _, lines = told(
        LaunchBegins(launch=LAUNCH, at_s=1000.0),
        load(BIG, 1092.0, 29_100.0),
        PointEnds(point=BIG, outcome=result_of(BIG), at_s=1182.0),
        load(SMALL, 1182.0, 10_900.0),
        PointEnds(point=SMALL, outcome=result_of(SMALL), at_s=1272.0),
        LaunchEnds(at_s=1280.0),
    )

    # A launch of two points is planned with 90 + 2 x 90 = 270 s: 270 - 182 + 2 x 270 = 628 s
    # are left when the first one ends, 270 - 272 < 0 and 540 s when the second one does.
    assert "\n".join(lines) == LOG


def test_later_launches_are_expected_to_take_as_long_as_those_before():
    waiting, _ = told(
        LaunchBegins(launch=LAUNCH, at_s=0.0),
        LaunchEnds(at_s=100.0),
        LaunchBegins(launch=LAUNCH, at_s=100.0),
        spent_gpu_s=120.0,
        budget_gpu_minutes=None,
        num_launches=2,
        to_come=1,
        is_least=True,
    )

    # 100 - 40 s of this launch and 100 s of the next; 120 + 40 GPU seconds.
    assert waiting.now(140.0) == (
        "launch 2 of 3 or more · launch 0:40 · 2.7 GPU minutes · at least 2:40 left"
    )


def test_nothing_is_left_to_tell_before_any_launch():
    """As where the first one got no GPUs: nobody knows yet how long one takes."""
    _, (line,) = told(PointEnds(point=BIG, outcome=LoadError("x"), at_s=0.0))

    assert line == (f"joules 0:00  {BIG.id}: no result (LoadError), 0.0 of 60 GPU minutes")


def test_the_present_moment_counts_the_running_load():
    waiting, _ = told(
        LaunchBegins(launch=LAUNCH, at_s=0.0), load(BIG, 30.0, 500.0), load(SMALL, 40.0, 700.0)
    )

    assert f"load {SMALL.id} 0:20 · 700 J so far" in waiting.now(60.0)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (LoadError("x"), "no result (LoadError)"),
        (result_of(BIG, reasons=(Reason(code="mig-on", text="x"),)), "invalid (mig-on)"),
    ],
)
def test_what_went_wrong_is_named(outcome, words):
    _, lines = told(
        LaunchBegins(launch=LAUNCH, at_s=0.0),
        load(BIG, 30.0),
        PointEnds(point=BIG, outcome=outcome, at_s=60.0),
    )

    assert f"{BIG.id}: {words}" in lines[-1]
    assert "so far" not in lines[-1]


def test_nothing_is_running_between_launches():
    waiting, _ = told(LaunchBegins(launch=LAUNCH, at_s=0.0), LaunchEnds(at_s=1.0))

    assert waiting.now(2.0) == ""


def test_a_model_name_does_not_steer_the_terminal():
    evil = Point(model="a/b\x1b[31m\nc", batch_size=4)
    launch = plan([evil], stack=Stack(name="\x1b[2J"), gpu="h200").launches[0]

    _, (line,) = told(LaunchBegins(launch=launch, at_s=0.0))

    assert "\\x1b[31m\\nc" in line
    assert line.isprintable()


def waits(text, at_s):
    return LeaseWaits(launch=LAUNCH, text=text, at_s=at_s)


def test_waiting_for_gpus_is_told_with_who_holds_them_and_how_long_it_took():
    _, lines = told(waits("needs 1; held by A", 10.0), waits("needs 1; held by B", 20.0),
                    LeaseEnds(at_s=75.0))  # fmt: skip

    assert lines == [
        f"joules 0:00  waits for GPUs: {BIG.id} needs 1; held by A",
        f"joules 0:10  waits for GPUs: {BIG.id} needs 1; held by B",
        "joules 1:05  waited 1:05 for GPUs",
    ]


def test_the_status_line_while_waiting_and_after():
    waiting, _ = told(waits("held by A", 10.0), waits("held by B", 20.0))
    assert waiting.now(40.0) == "waits for GPUs 0:30 \N{MIDDLE DOT} held by B"

    waiting.hear(LeaseEnds(at_s=41.0))

    assert not waiting.now(42.0)
