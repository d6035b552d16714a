from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.measure import Failure, Outcome
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Launch, Stack, plan
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.simulation.meter import TICK_S, Clock, Draw, VirtualGpus
from pytest_joules.tasks import Lengths
from pytest_joules.testing import FakeMachine, pytest_joules_source, source_of
from pytest_joules.trace import LoadTrace

pytestmark = pytest.mark.no_cover

POINT = Point(model="Qwen/Qwen3-8B", batch_size=16, output_tokens=Lengths(mean=200, cv=0.5))


def launch_of(*points: Point) -> Launch:
    return plan(points, stack=Stack(), gpu="h200").launches[0]


def run(machine: FakeMachine, *points: Point) -> list[Outcome]:
    return list(source_of(machine).outcomes(launch_of(*points), {}))


def load_of(machine: FakeMachine, point: Point) -> LoadTrace:
    with machine.started(launch_of(point), gpu_uuids=[]) as server:
        return server.drive(point, min_window_s=5, deadline_s=60)


def gpus_that_draw(*spans: tuple[float, float, float]) -> VirtualGpus:
    """Idle at 150 W but for spans of ``(from, to, watts)``."""
    gpus = VirtualGpus(gpu="h200", clock=Clock())
    for start_s, end_s, watts in spans:
        one = np.ones(1)
        gpus.draws.append(
            Draw(
                edges_s=np.array([start_s, end_s], dtype=float),
                power_w=watts * one,
                clock_hz=1e9 * one,
                busy_share=one,
                is_capped=0 * one,
            )
        )
    return gpus


@given(
    spans=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50), st.floats(0, 700))),
    tick=st.integers(0, 30_000),
)
def test_the_counter_tells_all_energy_drawn_and_no_other(
    spans: list[tuple[int, int, float]], tick: int
) -> None:
    made, now, expected = [], 1000, 0.0
    time_s = tick / 10
    busy_s = 0.0
    for pause, length, watts in spans:
        made.append((now + pause, now + pause + length, watts))
        inside_s = min(max(time_s - now - pause, 0), length)
        expected += watts * inside_s
        busy_s += inside_s
        now += pause + length

    (energy_j,) = gpus_that_draw(*made).energy_j(np.array([time_s]))

    assert energy_j == pytest.approx(expected + 150.0 * (time_s - busy_s), abs=1e-3)


def test_the_counter_stands_still_between_ticks() -> None:
    machine = FakeMachine()
    with machine.recording(["GPU-fake-h200-0"]) as recording:
        machine.clock.now_s += 1.0

    readings = recording.trace().gpus[0].readings
    # A tick is two readings long, and 0.1 s at 150 W are 15 J.
    assert readings[1].energy_mj == readings[0].energy_mj
    assert readings[2].energy_mj - readings[0].energy_mj == 15_000


def test_power_is_drawn_while_it_is_drawn() -> None:
    gpus = gpus_that_draw((1000, 1010, 500.0))

    power_w, clock_hz, busy, _ = gpus.state(np.array([999.9, 1000, 1009.9, 1010]))

    assert list(power_w) == [150, 500, 500, 150]
    assert list(clock_hz) == [1.98e9, 1e9, 1e9, 1.98e9]
    assert list(busy) == [0, 1, 1, 0]


@given(batch=st.integers(1, 32), slots=st.none() | st.integers(1, 40), cv=st.floats(0, 2))
def test_no_more_requests_run_than_there_are_slots(
    batch: int, slots: int | None, cv: float
) -> None:
    machine = FakeMachine(largest_batch=slots)
    point = Point(
        model="x",
        batch_size=batch,
        num_requests=4 * batch,
        output_tokens=Lengths(mean=20, cv=cv),
    )
    most = min(batch, slots or batch)

    load = load_of(machine, point)

    assert max(sample.running for sample in load.server) == most
    assert max(sample.running + sample.waiting for sample in load.server) == batch
    assert max(sample.running for sample in load.server) <= most
    # Nothing is lost: the server's counters end at what the client was given.
    assert len(load.requests) == point.num_requests
    assert load.server[-1].finished == load.server[-1].first_tokens == point.num_requests
    assert load.server[-1].output_tokens == pytest.approx(
        sum(r.output_tokens for r in load.requests)
    )


def test_a_load_offers_until_the_window_is_long_enough() -> None:
    load = load_of(FakeMachine(), POINT)

    ends = sorted(request.finish_s for request in load.requests)
    assert len(ends) >= 3 * POINT.batch_size
    assert ends[-POINT.batch_size - 1] - ends[POINT.batch_size] >= 5 - 2


def test_a_foreign_process_makes_the_result_invalid() -> None:
    (result,) = run(FakeMachine(foreign_pids=(77,)), POINT)

    assert isinstance(result, Result)
    assert [reason.code for reason in result.reasons] == ["foreign-process"]
    assert "77" in result.reasons[0].text


def test_a_smaller_batch_than_asked_makes_the_result_invalid() -> None:
    (outcome,) = run(FakeMachine(largest_batch=8), POINT)

    assert isinstance(outcome, Result)
    assert "batch-starved" in [reason.code for reason in outcome.reasons]
    assert outcome.mean_batch_size == pytest.approx(8)


def test_a_dying_engine_is_a_failure() -> None:
    (outcome,) = run(FakeMachine(dies_after_requests=20), POINT, POINT.but(batch_size=8))

    assert isinstance(outcome, Failure)


def test_launches_differ_by_their_noise_and_seeds_repeat_it() -> None:
    def energies(seed: int) -> list[float]:
        machine = FakeMachine(launch_noise=0.05, seed=seed)
        outcomes = [run(machine, POINT)[0] for _ in range(3)]
        return [o.energy_per_token_j for o in outcomes if isinstance(o, Result)]

    assert len(set(energies(1))) == 3
    assert energies(1) == energies(1) != energies(2)


def test_a_gpu_that_the_catalog_does_not_know_can_be_faked() -> None:
    (gpu,) = FakeMachine(gpu="tomorrow", num_gpus=1).identify()

    assert (gpu.name, gpu.power_limit_w) == ("tomorrow", 700.0)


def test_readings_are_two_a_tick() -> None:
    machine = FakeMachine()
    with machine.recording(["GPU-fake-h200-3"]) as recording:
        machine.clock.now_s += 1.0

    (gpu,) = recording.trace().gpus
    assert gpu.gpu.uuid == "GPU-fake-h200-3"
    gaps = [b.time_s - a.time_s for a, b in zip(gpu.readings, gpu.readings[1:], strict=False)]
    assert gaps == pytest.approx([TICK_S / 2] * len(gaps))
    assert gpu.readings[-1].time_s == pytest.approx(machine.clock.now_s)


def test_the_plugin_measures_on_a_fake_machine_and_says_so() -> None:
    options = replace(Options(), gpu="b200", window=30.0)

    source = pytest_joules_source(options)

    assert source.name == "fake"
    (outcome,) = source.outcomes(plan([POINT], stack=Stack(), gpu="b200").launches[0], {})
    assert isinstance(outcome, Result)
    assert (outcome.source, outcome.gpu) == ("fake", "b200")
    assert outcome.provenance.identity.gpu_model == "NVIDIA B200"
