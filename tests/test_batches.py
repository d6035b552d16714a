"""Batch work: warming up, how many batches, its window, its sub-windows and its result."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.assess import Measured, assess
from pytest_joules.assess.energy import window_energy, work_curve
from pytest_joules.batches import (
    MOST_WARM_UP,
    least_batches,
    num_missing,
    num_warm_up,
    relative_error,
)
from pytest_joules.errors import LoadError, NoSteadyState
from pytest_joules.measure import measure
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.rig import Rig
from pytest_joules.steady_state import (
    Window,
    full_batch_window,
    steady_work,
    sub_window_ends,
    window_batches,
    work_window,
)
from pytest_joules.testing import FakeMachine
from pytest_joules.trace import BatchLoad, GpuTrace, MeterTrace, Reading
from tests.fakes.results import make_provenance
from tests.fakes.traces import batch_load

SD = Point(model="stabilityai/stable-diffusion-3.5-medium", task="text-to-image", batch_size=4)
WAN = Point(model="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", task="text-to-video", steps=20)


@pytest.mark.parametrize(
    ("unit", "steps", "expected"),
    [("image", 1, 8), ("image", 30, 8), ("image", 31, 4), ("video", 4, 2), ("video", 50, 2)],
)
def test_the_published_number_of_batches(unit: str, steps: int, expected: int) -> None:
    assert least_batches(unit, steps) == expected


@pytest.mark.parametrize(
    ("latencies_s", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([1.0], None, id="one-tells-nothing"),
        pytest.param([1.0, 1.0], 1, id="the-first-always-warms-up"),
        pytest.param([1.0, 1.05], 1, id="on-the-limit"),
        pytest.param([1.0, 1.06], None, id="above-the-limit"),
        pytest.param([9.0, 2.0, 1.0, 1.01, 5.0], 3, id="settles"),
        pytest.param([2.0, 1.0, 2.0, 1.0], None, id="never"),
    ],
)
def test_when_a_pipeline_has_warmed_up(latencies_s: list[float], expected: int | None) -> None:
    assert num_warm_up(batch_load(latencies_s).batches) == expected


@pytest.mark.parametrize(
    ("latencies_s", "expected"),
    [
        pytest.param([], 1, id="nothing-yet"),
        pytest.param([9.0, 1.0], 1, id="warming-up"),
        pytest.param([1.0, 2.0] * (MOST_WARM_UP // 2), 0, id="given-up"),
        pytest.param([9.0, 1.0, 1.0], 9, id="for-the-window"),
        pytest.param([50.0, 5.0, 5.0], 7, id="for-the-least-number"),
        pytest.param([1.0, *[1.0] * 10], 0, id="enough"),
        # 10 batches of mean 1.25 s, error 0.25 / sqrt(10) / 1.25 = 6 %
        pytest.param([1.0, *[1.0, 1.5] * 5], 3, id="uneven"),
        pytest.param([1.0, *[1.0, 1.5] * 8], 0, id="uneven-and-twice-as-long"),
    ],
)
def test_how_many_batches_are_missing(latencies_s: list[float], expected: int) -> None:
    batches = batch_load(latencies_s).batches

    assert num_missing(batches, least=8, min_window_s=10.0) == expected


@pytest.mark.parametrize(("made", "missing"), [(0, 5), (3, 2), (5, 0)])
def test_a_fixed_number_of_batches_is_made_whatever_they_take(made: int, missing: int) -> None:
    batches = batch_load([1.0, 9.0, 1.0, 9.0, 1.0][:made]).batches

    assert num_missing(batches, least=8, min_window_s=60.0, fixed=5) == missing


@given(latency_s=st.floats(0.01, 100.0), warm_up_s=st.floats(0.01, 100.0))
def test_asking_again_always_ends_with_a_window_that_is_long_enough(
    latency_s: float, warm_up_s: float
) -> None:
    latencies_s: list[float] = []
    while missing := num_missing(batch_load(latencies_s).batches, least=4, min_window_s=30.0):
        latencies_s += [latency_s if latencies_s else warm_up_s] * missing
    load = batch_load(latencies_s, least_batches=4)
    window = full_batch_window(load)

    assert len(window_batches(load, window)) >= 4
    assert window.duration_s >= 30.0 - 1e-6
    assert window.duration_s <= 30.0 + 4 * latency_s


def test_relative_error_by_hand() -> None:
    assert relative_error([1.0]) == math.inf
    assert relative_error([2.0, 2.0]) == 0.0
    # deviation sqrt(2), over sqrt(2), over the mean of 2
    assert relative_error([1.0, 3.0]) == pytest.approx(0.5)


def test_a_window_of_batches_worked_by_hand() -> None:
    """Two warm up, 9 s and 2 s; three are measured: images 8 to 20, from 11 s to 21.1 s."""
    load = batch_load([9.0, 2.0, 2.1, 4.0, 4.0])

    work = steady_work(load, settled_s=0.0)

    assert (work.start_index, work.end_index) == (8, 20)
    assert work_window(load, work) == Window(start_s=11.0, end_s=21.1)
    times_s = np.array([0.0, 4.5, 9.0, 12.05])
    assert work_curve(load)(times_s) == pytest.approx([0, 2, 4, 10])


def test_a_later_settling_moves_the_window_to_the_next_batch() -> None:
    load = batch_load([1.0] * 10)

    assert steady_work(load, settled_s=3.0).start_index == 4 * 3
    assert steady_work(load, settled_s=3.1).start_index == 4 * 4


def test_a_latency_that_never_settles_is_told_with_its_values() -> None:
    with pytest.raises(NoSteadyState, match=r"the latency of 4 batches never settled.*2\.000"):
        full_batch_window(batch_load([1.0, 2.0, 1.0, 2.0]))


def gpu_of(watts: list[float], *, tick_s: float = 0.1) -> GpuTrace:
    """Draw ``watts[i]`` in second ``i``, read at every tick."""
    identity = FakeMachine().identify()[0]
    joules, readings = 0.0, []
    for number in range(round(len(watts) / tick_s) + 1):
        time_s = number * tick_s
        now_w = watts[min(int(time_s + 1e-9), len(watts) - 1)]
        counter_mj = round(1000 * joules)
        readings.append(Reading(time_s=time_s, took_s=0.0, energy_mj=counter_mj, power_w=now_w))
        joules += now_w * tick_s
    return GpuTrace(gpu=identity, readings=tuple(readings))


def test_sub_windows_are_whole_batches() -> None:
    """A batch draws 500 W for two seconds and decodes at 200 W for one: 1,200 J, 4 images."""
    load = batch_load([3.0] * 7)
    gpu = gpu_of([500.0, 500.0, 200.0] * 7 + [100.0])
    window = Window(start_s=3.0, end_s=21.0)

    measured = window_energy(
        [gpu], work_curve(load), window, ends_s=sub_window_ends(load, window)
    )

    assert measured.series_work_units == pytest.approx([4.0] * 6)
    assert measured.series_energy_j == pytest.approx([1200.0] * 6)
    assert measured.energy_per_work_unit_j == pytest.approx(300.0)


def test_short_batches_share_a_sub_window_of_at_least_a_second() -> None:
    load = batch_load([0.3] * 41)
    window = full_batch_window(load)

    measured = window_energy(
        [gpu_of([300.0] * 13)], work_curve(load), window, ends_s=sub_window_ends(load, window)
    )

    assert len(measured.series_energy_j) == 10
    # 300 W x 0.3 s / 4 images, wherever a tick cut
    for joules, images in zip(
        measured.series_energy_j, measured.series_work_units, strict=True
    ):
        assert joules / images == pytest.approx(22.5)
    assert sum(measured.series_work_units) == pytest.approx(160)


def test_the_result_of_batches() -> None:
    machine = FakeMachine(power_w=lambda *_: 500.0, step_s=0.01)
    launch = plan([SD], stack=Stack(), gpu="h200").launches[0]

    (result,) = measure(launch, Rig(engine=machine, meter=machine, clock=machine.clock), {})

    assert isinstance(result, Result)
    # 28 steps of 10 ms, (16 + 4) fold: 5.6 s a batch; 500 W x 5.6 s / 4 images
    assert result.reasons == ()
    assert result.batch_latency_s == pytest.approx(5.6)
    assert result.energy_per_image_j == pytest.approx(700.0, rel=1e-3)
    assert result.throughput_work_units_per_s == pytest.approx(4 / 5.6, rel=1e-3)
    assert result.mean_batch_size == 4
    assert result.evidence is not None
    assert result.evidence.window_s >= 59
    assert result.evidence.num_requests % 4 == 0
    assert Result.from_json(result.as_json()) == result


def measured_of(load: BatchLoad, gpu: GpuTrace) -> Measured:
    return Measured(
        point=SD,
        source="fake",
        gpu="h200",
        launch_id="one",
        load=load,
        meter=MeterTrace(gpus=(gpu,)),
        provenance=make_provenance(gpu_model="NVIDIA H200", num_gpus=1),
    )


def test_what_was_recorded_of_batches_can_be_judged_again() -> None:
    load = batch_load([3.0] * 20)
    measured = measured_of(load, gpu_of([400.0] * 60))

    result = assess(measured, Procedure(min_window_s=30.0))

    assert result.energy_per_image_j == pytest.approx(300.0, rel=1e-2)
    assert {reason.code for reason in result.reasons} == set()
    assert "batches-uneven" not in {note.code for note in result.notes}


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (batch_load([]), "0 batches of 4"),
        (batch_load([1.0], batch_size=0), "1 batches of 0"),
        (batch_load([1.0, math.nan]), "finish_s of batch 1 is nan"),
        (batch_load([1.0, -1.0]), "batch 1 ran from"),
        (batch_load([1.0, 1.0], pause_s=-0.5), "batch 1 ran from 0.5 s to 1.5 s"),
    ],
    ids=["none", "of-nothing", "nan", "backwards", "overlapping"],
)
def test_batches_that_nobody_measured_are_refused(load: BatchLoad, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        assess(measured_of(load, gpu_of([400.0] * 60)), Procedure())


def test_uneven_batches_are_noted() -> None:
    load = batch_load([3.0, 3.0, *[2.0, 4.0] * 9])
    result = assess(measured_of(load, gpu_of([400.0] * 60)), Procedure(min_window_s=30.0))

    assert "batches-uneven" in {note.code for note in result.notes}


def test_too_few_batches_are_no_valid_measurement() -> None:
    load = replace(batch_load([9.0] * 6), least_batches=8)
    result = assess(measured_of(load, gpu_of([400.0] * 54)), Procedure(min_window_s=30.0))

    assert "batches-few" in {reason.code for reason in result.reasons}


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (SD.but(batch_size=8), SD.but(batch_size=2)),
        (SD.but(steps=10), SD.but(steps=30)),
        (SD.but(height=512, width=512), SD),
        (WAN.but(num_frames=17), WAN.but(num_frames=81)),
    ],
    ids=["batch", "steps", "resolution", "frames"],
)
def test_the_fake_machine_shows_what_the_paper_says(less: Point, more: Point) -> None:
    machine = FakeMachine()
    rig = Rig(engine=machine, meter=machine, clock=machine.clock)
    energies = [
        next(measure(plan([p], stack=Stack(), gpu="h200").launches[0], rig, {}))
        for p in (less, more)
    ]
    assert all(isinstance(each, Result) for each in energies)
    assert energies[0].energy_per_work_unit_j < energies[1].energy_per_work_unit_j
