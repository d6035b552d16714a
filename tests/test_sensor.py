"""What a sensor does, told from recordings whose truth is known."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_joules.doctor.probe import PERIOD_S, described, probe
from pytest_joules.doctor.sensor import LoadPhase, sense
from pytest_joules.errors import MeterError
from pytest_joules.meter import ZeusMeter
from pytest_joules.steady_state import Window
from pytest_joules.trace import GpuTrace, Reading
from tests.fakes.traces import gpu_identity

IDLE = Window(start_s=1.0, end_s=9.0)
LOAD = LoadPhase(window=Window(start_s=21.0, end_s=29.0), pids=frozenset({70, 71}))
# Uneven, so that the energy of a tick is no whole number of steps.
IDLE_W, LOAD_W, BUSY_FROM_S = 80.73, 480.19, 10.0


def drawn_j(time_s: float) -> float:
    return IDLE_W * time_s + (LOAD_W - IDLE_W) * max(0.0, time_s - BUSY_FROM_S)


def recording(
    *, tick_s=0.1, step_j=0.1, window_s=1.0, period_s=0.02, gain=1.0, with_power=True
) -> GpuTrace:
    """Read for 30 s every 5 ms; power is the mean of ``window_s``, renewed every period."""
    readings = []
    for i in range(6001):
        time_s = i * 0.005
        ticked_s = math.floor(time_s / tick_s + 1e-9) * tick_s
        renewed_s = math.floor(time_s / period_s + 1e-9) * period_s
        mean_w = (drawn_j(renewed_s) - drawn_j(renewed_s - window_s)) / window_s
        readings.append(
            Reading(
                time_s=time_s,
                took_s=0.0005,
                energy_mj=1000 + round(math.floor(drawn_j(ticked_s) / step_j) * step_j * 1000),
                power_w=gain * mean_w if with_power else None,
            )
        )
    return GpuTrace(gpu=gpu_identity(), readings=tuple(readings))


@pytest.mark.parametrize("tick_s", [0.02, 0.1])
@pytest.mark.parametrize("window_s", [0.1, 0.5, 1.0])
def test_tick_and_averaging_window_are_found(tick_s, window_s):
    seen = sense(recording(tick_s=tick_s, window_s=window_s), IDLE, LOAD)

    assert seen.tick_s == pytest.approx(tick_s, abs=0.005)
    assert seen.power_window_s == pytest.approx(window_s, abs=tick_s)
    assert seen.power_period_s == pytest.approx(0.02, abs=0.006)
    assert seen.read_s == 0.0005


@pytest.mark.parametrize("step_j", [0.001, 0.004, 2.0])
def test_the_counter_s_resolution_is_its_smallest_step(step_j):
    assert sense(recording(step_j=step_j), IDLE).resolution_j == pytest.approx(step_j)


@pytest.mark.parametrize("gain", [0.95, 1.0, 1.05])
def test_power_is_set_beside_the_counter(gain):
    seen = sense(recording(gain=gain), IDLE, LOAD)

    assert seen.load is not None
    assert seen.idle.power_w == pytest.approx(IDLE_W, rel=1e-3)
    assert seen.load.power_w == pytest.approx(LOAD_W, rel=1e-3)
    assert seen.idle.power_over_counter == pytest.approx(gain, rel=2e-3)
    assert seen.load.power_over_counter == pytest.approx(gain, rel=2e-3)


def test_what_cannot_be_told_is_said_to_be_unknown():
    even = recording()
    readings = tuple(r for r in even.readings if r.time_s < BUSY_FROM_S)
    idle_only = sense(GpuTrace(gpu=even.gpu, readings=readings), IDLE)
    powerless = sense(recording(with_power=False), IDLE, LOAD)

    assert idle_only.power_window_s is None
    assert powerless.power_window_s is powerless.power_period_s is None
    assert powerless.idle.power_over_counter is None
    assert ("power under load", "no load was named") in described(idle_only)
    assert ("idle, power over counter", "not told: NVML gives no power") in described(powerless)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (GpuTrace(gpu=gpu_identity(), readings=(), error="lost"), "lost"),
        (
            GpuTrace(
                gpu=gpu_identity(),
                readings=tuple(
                    Reading(time_s=t / 10, took_s=0.001, energy_mj=7) for t in range(300)
                ),
            ),
            "ticked 0 times",
        ),
    ],
    ids=["lost", "frozen"],
)
def test_a_sensor_that_cannot_be_read_is_an_error(trace, message):
    with pytest.raises(MeterError, match=message):
        sense(trace, IDLE)


@pytest.fixture
def busy(tmp_path: Path, mock_nvml) -> list[str]:
    """A program that makes the mock GPU draw 500 W."""
    mock_nvml.set_num_gpus(1)
    program = tmp_path / "burn.sh"
    program.write_text("echo burning; exec sleep 600\n")
    return ["sh", str(program)]


def test_a_mock_gpu_is_probed_idle_and_under_load(mock_nvml, busy):
    """Real sampler, real NVML; the load is a process, its power is set while it starts."""
    mock_nvml.set_power(0, IDLE_W)
    phases = iter([IDLE_W, LOAD_W, LOAD_W])

    def wait(seconds: float) -> None:
        mock_nvml.set_power(0, next(phases))
        time.sleep(seconds)  # the sampler is a process of its own

    (seen,) = probe(seconds=0.7, load=busy, wait=wait)

    assert seen.load is not None
    assert seen.idle.power_w == pytest.approx(IDLE_W, rel=0.1)
    assert seen.load.power_w == pytest.approx(LOAD_W, rel=0.1)
    assert seen.read_s < 0.1
    assert not next(phases, None)


def test_a_load_that_ends_too_soon_is_an_error_with_its_words(mock_nvml):
    mock_nvml.set_num_gpus(1)

    with pytest.raises(MeterError, match=r"ended with code 3.*no memory"):
        probe(
            seconds=0.3,
            load=["sh", "-c", "echo no memory; exit 3"],
            meter=ZeusMeter(period_s=PERIOD_S),
            wait=time.sleep,
        )


def test_a_load_that_starts_slowly_is_waited_for(mock_nvml, busy):
    """Its libraries may come from a cold disk: what is drawn meanwhile is not its power."""
    mock_nvml.set_power(0, IDLE_W)
    mock_nvml.set(0, busy_percent=0.0)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:  # idle, starting, one look
            mock_nvml.set_power(0, LOAD_W)
            mock_nvml.set(0, busy_percent=100.0)
        time.sleep(seconds)  # the sampler is a process of its own

    (seen,) = probe(seconds=0.7, load=busy, wait=wait)

    assert seen.load is not None
    assert seen.load.power_w == pytest.approx(LOAD_W, rel=0.1)


def test_a_load_that_never_works_is_an_error_with_its_words(mock_nvml, busy, monkeypatch):
    monkeypatch.setattr("pytest_joules.doctor.probe.START_S", 0.0)
    mock_nvml.set(0, busy_percent=10.0)

    with pytest.raises(MeterError, match=r"did not keep the GPU busy within 0 s.*burning"):
        probe(seconds=0.7, load=busy, wait=time.sleep)


def test_every_reading_is_kept(mock_nvml, tmp_path):
    mock_nvml.set_num_gpus(2)
    kept = tmp_path / "readings.jsonl"

    probe(seconds=0.5, keep=kept)

    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {row["gpu"] for row in rows} == {mock_nvml.uuid(0), mock_nvml.uuid(1)}
    assert all(row["energy_mj"] > 0 for row in rows)
    assert sum(row["power_w"] is not None for row in rows) > 20


@pytest.mark.parametrize(
    ("pids", "shown", "others", "told"),
    [
        pytest.param(None, False, (), "hidden (processes-unseen), and no other", id="untold"),
        pytest.param((), False, (), "hidden (processes-unseen), and no other", id="empty"),
        pytest.param((71,), True, (), "the load's is shown, and no other", id="own"),
        pytest.param((1,), False, (1,), "and 1 beside it", id="of-another-namespace"),
        pytest.param((9, 70), True, (9,), "no result is valid (foreign-process)", id="foreign"),
    ],
)
def test_which_processes_nvml_shows_is_told(*, pids, shown, others, told):
    """Those before the load do not count: they may have ended."""
    trace = recording()
    readings = tuple(
        replace(r, process_ids=(5,) if r.time_s < LOAD.window.start_s else pids)
        for r in trace.readings
    )

    seen = sense(replace(trace, readings=readings), IDLE, LOAD)

    assert (seen.shows_load, seen.other_pids) == (shown, others)
    assert told in dict(described(seen))["processes"]
    assert sense(trace, IDLE).shows_load is None
