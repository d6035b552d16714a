"""Where a launch should run, and which of the visible GPUs that leaves."""

from dataclasses import dataclass

import pytest

from pytest_joules.errors import MeterError
from pytest_joules.gpus.choice import choose_gpus, request
from pytest_joules.plan import Boards, Launch, Stack
from pytest_joules.point import Point
from pytest_joules.session.boards import boards
from pytest_joules.testing import FakeMachine

MACHINE = FakeMachine(num_gpus=4)
GPUS = tuple(gpu.uuid for gpu in MACHINE.identify())


@dataclass
class Context:
    gpu_uuids: tuple


@dataclass
class Provenance:
    context: Context


@dataclass
class Run:
    provenance: Provenance


def stored(*uuids):
    return [Run(Provenance(Context(each))) for each in uuids]


A, B = ("GPU-a",), ("GPU-b",)


@pytest.mark.parametrize(
    ("used", "runs", "expected"),
    [
        pytest.param((), [], Boards(), id="nothing-known"),
        pytest.param((), [A], Boards(preferred=(A,), waits=True), id="of-the-baseline"),
        pytest.param((), [A, B, B], Boards(preferred=(B, A), waits=True), id="most-runs-first"),
        pytest.param((), [()], Boards(), id="before-uuids-were-kept"),
        pytest.param(A, [B, B], Boards(fixed=A), id="of-the-first-launch"),
    ],
)
def test_boards(used, runs, expected):
    assert boards(used, stored(*runs), waits=True) == expected


def test_no_board_is_waited_for_where_the_old_stack_can_run_beside():
    assert boards((), stored(A), waits=False) == Boards(preferred=(A,), waits=False)


def launch(num_gpus=1, **wishes):
    point = Point(model="a/b", batch_size=8, num_gpus=num_gpus)
    return Launch(points=(point,), stack=Stack(), gpu="h200", boards=Boards(**wishes))


@pytest.mark.parametrize(
    ("made", "usable", "only"),
    [
        pytest.param(launch(), GPUS, False, id="any"),
        pytest.param(launch(fixed=GPUS[2:3]), GPUS[2:3], True, id="fixed"),
        pytest.param(launch(preferred=(GPUS[1:2],)), GPUS, False, id="preferred"),
        pytest.param(launch(preferred=(GPUS[1:2],), waits=True), GPUS[1:2], True, id="waits"),
        pytest.param(launch(preferred=(A,), waits=True), GPUS, False, id="not-here"),
        pytest.param(
            launch(preferred=(A, GPUS[3:]), waits=True), GPUS[3:], True, id="one-is-here"
        ),
        pytest.param(
            launch(num_gpus=2, preferred=(GPUS[:1],), waits=True), GPUS, False, id="too-few"
        ),
    ],
)
def test_what_a_launch_asks_for(made, usable, only):
    asked = request(MACHINE.identify(), made)

    assert asked.usable == set(usable)
    assert asked.only_boards is only


def test_a_board_that_is_gone_is_told_and_no_other_taken():
    with pytest.raises(MeterError, match=r"ran on GPU-a.*same GPUs"):
        request(MACHINE.identify(), launch(fixed=A))


def test_without_others_the_first_choice_is_taken():
    chosen = choose_gpus(MACHINE.identify(), launch(num_gpus=2, preferred=(GPUS[2:],)))

    assert tuple(gpu.uuid for gpu in chosen) == GPUS[2:]
