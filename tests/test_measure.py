from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from pytest_joules.engines import Server
from pytest_joules.errors import JoulesError, LaunchError, LoadError, MeterError, ServerDied
from pytest_joules.gpus.choice import choose_gpus
from pytest_joules.gpus.holding import require_drained
from pytest_joules.gpus.identity import identity_of
from pytest_joules.measure import Failure, FrozenWork, Outcome, measure
from pytest_joules.plan import Launch, Stack, plan
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.progress import LaunchBegins, LaunchEnds, LoadBegins, PointEnds
from pytest_joules.provenance import Identity
from pytest_joules.result import Result
from pytest_joules.rig import Rig
from pytest_joules.steady_state import Work
from pytest_joules.tasks import Lengths
from pytest_joules.testing import FakeMachine
from pytest_joules.trace import GpuIdentity, LoadTrace
from tests.fakes.traces import gpu_identity

POINT = Point(model="Qwen/Qwen3-8B", batch_size=8, output_tokens=Lengths(mean=200, cv=0.5))
SWEEP = POINT.sweep(batch_size=[4, 8, 16])


def launch_of(*points: Point, gpu: str = "h200") -> Launch:
    return plan(points, stack=Stack(name="new"), gpu=gpu).launches[0]


def rig_of(machine: FakeMachine) -> Rig:
    return Rig(engine=machine, meter=machine, source="fake", session="s", clock=machine.clock)


def run(machine: FakeMachine, *points: Point) -> list[Outcome]:
    return list(measure(launch_of(*points), rig_of(machine), {}))


def test_one_launch_measures_every_point_largest_first() -> None:
    machine, said = FakeMachine(), []

    outcomes = list(measure(launch_of(*SWEEP), replace(rig_of(machine), say=said.append), {}))

    assert [outcome.point.batch_size for outcome in outcomes] == [16, 8, 4]
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert [result.reasons for result in results] == [(), (), ()]
    assert len({r.evidence.launch_id for r in results if r.evidence}) == 1
    assert len(machine.launches) == 1
    assert [type(event) for event in said] == [
        LaunchBegins, *[LoadBegins, PointEnds] * 3, LaunchEnds,
    ]  # fmt: skip
    assert [e.point for e in said if isinstance(e, PointEnds)] == list(SWEEP[::-1])


def test_a_result_is_told_only_after_whoever_stores_it_had_it() -> None:
    """A kill between the two would lose what was announced."""
    machine, said = FakeMachine(), []
    outcomes = measure(launch_of(*SWEEP), replace(rig_of(machine), say=said.append), {})

    told = [sum(isinstance(event, PointEnds) for event in said) for _ in outcomes]

    assert told == [0, 1, 2]
    assert sum(isinstance(event, PointEnds) for event in said) == 3


def test_results_say_where_they_come_from() -> None:
    (result,) = run(FakeMachine(), POINT)

    assert isinstance(result, Result)
    assert (result.source, result.gpu) == ("fake", "h200")
    assert result.provenance.identity == Identity(
        gpu_model="NVIDIA H200",
        num_gpus=1,
        memory_bytes=141 * 2**30,
        power_limit_w=700.0,
        mig=False,
    )
    context = result.provenance.context
    assert (context.stack, context.driver, context.session) == ("new", "fake", "s")
    assert context.gpu_uuids == ("GPU-fake-h200-0",)
    assert context.packages == {"fake-engine": "new"}
    assert context.model_revision == "fake"


def test_a_power_limit_that_changes_while_the_engine_starts_is_told() -> None:
    """It was 700 W when the GPUs were chosen."""
    machine = FakeMachine(power_w=lambda *_: limited(machine))

    def limited(machine: FakeMachine) -> float:
        machine.gpus.power_limit_factor = 0.8
        return 400.0

    (result,) = run(machine, POINT)

    assert isinstance(result, Result)
    assert result.provenance.identity.power_limit_w == 560.0


def test_frozen_work_is_offered_and_cut_again() -> None:
    machine = FakeMachine()
    (first,) = run(machine, POINT)
    assert isinstance(first, Result)
    assert first.evidence is not None
    frozen = FrozenWork(
        num_requests=first.evidence.num_requests,
        work=Work(start_index=first.evidence.start_index, end_index=first.evidence.end_index),
    )

    (again,) = measure(launch_of(POINT), rig_of(machine), {POINT: frozen})

    assert isinstance(again, Result)
    assert again.point == POINT
    assert again.evidence is not None
    assert again.evidence.num_requests == first.evidence.num_requests
    assert again.evidence.start_index == first.evidence.start_index
    assert again.evidence.end_index == first.evidence.end_index
    assert again.evidence.work_units == pytest.approx(first.evidence.work_units, rel=0.005)
    assert again.evidence.launch_id != first.evidence.launch_id


def test_a_server_that_dies_ends_the_launch() -> None:
    (outcome,) = run(FakeMachine(dies_after_requests=50), *SWEEP)

    assert isinstance(outcome, Failure)
    assert outcome.point.batch_size == 16
    assert isinstance(outcome.error, ServerDied)
    assert "ended after 50 requests" in str(outcome.error)


@dataclass(kw_only=True)
class Picky(FakeMachine):
    """An engine whose load breaks for one batch size."""

    breaks_at: int

    @contextmanager
    def started(self, launch: Launch, *, gpu_uuids: Sequence[str]) -> Iterator[Server]:
        with super().started(launch, gpu_uuids=gpu_uuids) as server:
            drive, breaks_at = server.drive, self.breaks_at

            def picky(point: Point, *, min_window_s: float, deadline_s: float) -> LoadTrace:
                if point.batch_size == breaks_at:
                    raise LoadError("it was given up")
                return drive(point, min_window_s=min_window_s, deadline_s=deadline_s)

            server.drive = picky  # type: ignore[method-assign]
            yield server


def test_a_point_that_fails_leaves_the_others() -> None:
    first, broken, last = run(Picky(breaks_at=8), *SWEEP)

    assert isinstance(first, Result)
    assert isinstance(last, Result)
    assert isinstance(broken, Failure)
    assert (broken.point.batch_size, str(broken.error)) == (8, "it was given up")


def test_an_engine_that_does_not_start_is_an_error() -> None:
    with pytest.raises(LaunchError, match="no such model"):
        run(FakeMachine(fails_to_launch="no such model"), POINT)


def test_gpus_of_the_asked_model_are_chosen_in_their_order() -> None:
    visible = [
        gpu_identity(0),
        gpu_identity(1, name="NVIDIA H100 80GB HBM3"),
        gpu_identity(2),
        gpu_identity(3),
    ]

    assert choose_gpus(visible, launch_of(POINT.but(num_gpus=2))) == (visible[0], visible[2])


@pytest.mark.parametrize(
    ("num_visible", "gpu", "seen"),
    [
        (0, "h200", r"none\. Name the GPU that is there"),
        (
            1,
            "h200",
            r"1 x NVIDIA H200 \(h200\)\. Declare fewer \(num_gpus\), or make more visible",
        ),
        (3, "b200", r"3 x NVIDIA H200 \(h200\)\. Name the GPU that is there \(--gpu\)"),
    ],
)
def test_too_few_gpus_are_an_error(num_visible: int, gpu: str, seen: str) -> None:
    visible = [gpu_identity(index) for index in range(num_visible)]

    with pytest.raises(MeterError, match=f"needs 2 x {gpu}, but the visible GPUs are: {seen}"):
        choose_gpus(visible, launch_of(POINT.but(num_gpus=2), gpu=gpu))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "NVIDIA H200 NVL"),
        ("memory_bytes", 1),
        ("power_limit_w", 500.0),
        ("mig", True),
    ],
)
def test_gpus_that_differ_have_no_common_identity(name: str, value: object) -> None:
    with pytest.raises(MeterError, match=f"the GPUs differ in {name}: .*GPU-1"):
        identity_of([gpu_identity(0), gpu_identity(1, **{name: value})], POINT)


def linked(*kinds: tuple[int, int, str]) -> list[GpuIdentity]:
    """GPUs 0, 1 and 2 with these links, each told by the lower one."""
    return [
        gpu_identity(i, links=tuple((f"GPU-{b}", kind) for a, b, kind in kinds if a == i))
        for i in range(3)
    ]


def test_topology_is_part_of_the_identity_of_several_gpus() -> None:
    ring = linked((0, 1, "nvlink-18"), (0, 2, "system"), (1, 2, "nvlink-18"))

    assert identity_of(ring, POINT).topology == "2 x nvlink-18, 1 x system"
    assert identity_of(ring[:2], POINT).topology == "1 x nvlink-18"
    assert identity_of(ring[:1], POINT).topology is None
    assert (
        identity_of(linked((0, 1, "system")), POINT).topology is None
    )  # not told of every pair


def test_memory_that_is_held_is_an_error_before_the_launch() -> None:
    machine = FakeMachine(held_memory_bytes=3 * 2**30, foreign_pids=(77,))

    with pytest.raises(MeterError, match=r"3\.0 GiB of memory are in use by process 4242, 77"):
        run(machine, POINT)

    assert machine.launches == []
    assert machine.clock.now_s > 1000 + Procedure().drain_deadline_s


def test_memory_that_drains_in_time_is_waited_for() -> None:
    machine = FakeMachine(held_memory_bytes=3 * 2**30)

    def clock() -> float:
        if machine.clock.now_s > 1030:
            machine.held_memory_bytes = 0
        return machine.clock.now_s

    require_drained(machine.identify(), replace(rig_of(machine), clock=clock))

    assert 1030 < machine.clock.now_s < 1032


def test_failures_are_errors_of_this_package() -> None:
    (outcome,) = run(FakeMachine(), POINT.but(num_requests=24, batch_size=8))

    # 24 requests leave no window after the ramp-up, or one that is too short.
    if isinstance(outcome, Failure):
        assert isinstance(outcome.error, JoulesError)
    else:
        assert not outcome.is_valid
