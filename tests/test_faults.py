"""The faults that Zeus and NVML were seen to pass over, row by row; here none is silent.

Each runs on the real wheels over the mock library. Zeus's own answer stands in the id's
comment; ours is an error before measuring or a broken rule after it.
"""

import math
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

import pytest_joules
from pytest_joules.counter import CounterLimits, counter_reasons, energy_at_ticks, meter_reasons
from pytest_joules.errors import MeterError
from pytest_joules.meter import ZeusMeter
from pytest_joules.trace import MeterTrace
from tests.fakes.mock_nvml import (
    DRIVER_NOT_LOADED,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
)
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.takes_long

OWN = 4242
TICK_S = 0.05
FAST = ZeusMeter(period_s=0.01)


@pytest.fixture
def gpu(mock_nvml):
    """One busy H200, its counter young and quick, used by the engine alone."""
    mock_nvml.set_num_gpus(1)
    mock_nvml.set(0, tick_s=TICK_S)
    mock_nvml.set_processes(0, [OWN])
    mock_nvml.set_power(0, 300.0)
    mock_nvml.set_counter(0, 5.0)
    return mock_nvml


def record(mock, fault=lambda _: None, *, ticks_before=8, seconds_after=0.3):
    """Record a while, let the fault happen, and record on."""
    with FAST.recording([mock.uuid(0)]) as recording:
        wait_until(lambda: _num_ticks(recording.trace()) >= ticks_before)
        happened_s = time.monotonic()
        fault(mock)
        wait_until(lambda: _is_over(recording.trace().gpus[0], happened_s + seconds_after))
    return recording.trace()


def _num_ticks(trace):
    return len({reading.energy_mj for reading in trace.gpus[0].readings})


def _is_over(gpu_trace, at_s):
    return gpu_trace.error or gpu_trace.readings[-1].time_s > at_s


def codes(trace, max_gap_s=60.0):
    """Judge the whole trace; a busy machine may delay readings, which no row is about."""
    readings = trace.gpus[0].readings
    reasons = meter_reasons(
        trace,
        start_s=readings[0].time_s,
        end_s=readings[-1].time_s,
        own_pids={OWN},
        limits=CounterLimits(max_gap_s=max_gap_s, max_power_gap_s=60.0, min_power_readings=2),
    )
    assert all(reason.text.endswith(".") for reason in reasons)
    return {reason.code for reason in reasons}


def test_without_a_fault_there_is_no_reason(gpu):
    assert codes(record(gpu)) == set()


# --- rows that end while they are measured -------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        # ZeusGPULostError, the other GPUs' data gone
        pytest.param(lambda mock: mock.lose(0), "gpu-lost", id="gpu-lost-mid-window"),
        # silent: negative energy
        pytest.param(lambda mock: mock.jump(0, -80.0), "counter-backwards", id="backwards"),
        # silent
        pytest.param(lambda mock: mock.jump(0, 1e9), "counter-jump", id="jump-of-1e9-J"),
        # 0.0 and a warning, or power times time; half of the energy
        pytest.param(lambda mock: mock.freeze(0), "counter-frozen", id="frozen-halfway"),
        # silent
        pytest.param(
            lambda mock: mock.set_processes(0, [OWN, 1]),
            "foreign-process",
            id="foreign-process",
        ),
        pytest.param(
            lambda mock: mock.set(0, energy_error=UNKNOWN), "meter-stopped", id="unknown-error"
        ),
        pytest.param(lambda mock: mock.set(0, mig=1), "gpu-changed", id="mig-switched-on"),
        pytest.param(
            lambda mock: mock.set(0, clock_event_reasons=0x80), "clock-brake", id="power-brake"
        ),
    ],
)
def test_a_fault_while_measuring(*, fault, code, gpu):
    assert code in codes(record(gpu, fault))


@pytest.mark.parametrize(
    ("name", "other", "usual"), [("power_limit_w", 500.0, 700.0), ("mig", 1, 0)]
)
def test_a_setting_that_is_changed_for_a_while(*, name, other, usual, gpu):
    """At both ends of the recording it is what it was: only in between it can be seen."""
    with FAST.recording([gpu.uuid(0)]) as recording:
        wait_until(lambda: _num_ticks(recording.trace()) >= 8)
        gpu.set(0, **{name: other})
        wait_until(lambda: other in _seen(recording, name))
        gpu.set(0, **{name: usual})
        wait_until(lambda: _seen(recording, name)[-1] == usual)

    assert codes(recording.trace()) == {"gpu-changed"}


def _seen(recording, name):
    values = [getattr(reading, name) for reading in recording.trace().gpus[0].readings]
    return [value for value in values if value is not None]


def test_counter_reset_then_past_the_old_value(gpu):
    """Zeus: silent, wrong positive. First and last reading alone look well."""
    gpu.set_power(0, 690.0)
    with FAST.recording([gpu.uuid(0)]) as recording:
        wait_until(lambda: _num_ticks(recording.trace()) >= 6)
        first_mj = recording.trace().gpus[0].readings[0].energy_mj
        gpu.reset(0)
        wait_until(lambda: _fell(recording.trace().gpus[0].readings))
        wait_until(lambda: recording.trace().gpus[0].readings[-1].energy_mj > first_mj)
    trace = recording.trace()
    readings = trace.gpus[0].readings

    assert readings[-1].energy_mj > readings[0].energy_mj
    assert codes(trace) & {"counter-reset"}
    with pytest.raises(MeterError, match="fell"):
        energy_at_ticks(readings, 0.0, math.inf)


def _fell(readings):
    return any(after.energy_mj < before.energy_mj for before, after in pairwise(readings))


def test_frozen_from_the_start(gpu):
    """Zeus: 0.0 and a warning; with ``approx_instant_energy`` silent, power times time."""
    gpu.freeze(0)
    trace = record(gpu, ticks_before=1)

    assert codes(trace) == {"counter-frozen"}


def test_a_100_ms_counter_under_30_ms_windows(gpu):
    """Zeus: 0 with a warning, or 40 J silently, where 12 J are true."""
    gpu.set(0, tick_s=0.1)
    gpu.set_power(0, 400.0)
    trace = record(gpu)
    readings = trace.gpus[0].readings

    for first in readings[20:]:
        window = {"start_s": first.time_s, "end_s": first.time_s + 0.03}
        assert counter_reasons(trace.gpus[0], **window, own_pids={OWN})
        with pytest.raises(MeterError, match="ticked"):
            energy_at_ticks(readings, **window)


def test_a_slow_tick(gpu):
    gpu.set(0, tick_s=60.0)

    assert codes(record(gpu, ticks_before=1)) <= {"counter-frozen", "counter-coarse"}
    assert codes(record(gpu, ticks_before=1))


def test_an_nvml_call_that_stalls_for_2_s(gpu):
    """Zeus: blocks, and the stall counts as window time."""
    trace = record(gpu, lambda mock: mock.stall(0, 2.0), seconds_after=2.1)

    assert codes(trace, max_gap_s=1.0) == {"meter-gap"}
    assert max(reading.took_s for reading in trace.gpus[0].readings) > 1.0


@pytest.mark.parametrize(
    "sent", [pytest.param(signal.SIGKILL, id="dies"), pytest.param(signal.SIGSTOP, id="hangs")]
)
def test_the_power_or_temperature_child(*, sent, gpu, monkeypatch):
    """Zeus: a stale value, and ``get_energy`` 0.0."""
    monkeypatch.setattr("pytest_joules.meter.END_TIMEOUT_S", 0.3)
    with FAST.recording([gpu.uuid(0)]) as recording:
        wait_until(lambda: _num_ticks(recording.trace()) >= 8)
        os.kill(recording.pid, sent)

    assert codes(recording.trace()) == {"meter-stopped"}


def test_the_wall_clock_steps_back(gpu, tmp_path, monkeypatch):
    """Zeus: silent, negative time. The sampler's wall clock here runs backwards."""
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "backwards = itertools.count(10**9, -3600)\n"
        "time.time = lambda: next(backwards)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("time.time", lambda: 0.0)
    before_s = time.monotonic()
    trace = record(gpu)
    start_s, end_s, energy_j = energy_at_ticks(trace.gpus[0].readings, 0.0, math.inf)

    assert before_s < start_s < end_s < time.monotonic()
    # 300 W between two ticks, each seen up to one reading late.
    pairs = pairwise(trace.gpus[0].readings)
    late_s = TICK_S + max(after.time_s - before.time_s for before, after in pairs)
    assert abs(energy_j - 300.0 * (end_s - start_s)) <= 300.0 * late_s
    assert codes(trace) == set()


# --- rows that keep from measuring ---------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said", "remedy"),
    [
        # The constructor succeeds; begin and end raise
        pytest.param(
            lambda mock: mock.set(0, energy_error=NOT_SUPPORTED),
            "energy counters exist since Volta",
            "Volta or newer",
            id="counter-not-supported",
        ),
        pytest.param(
            lambda mock: mock.set(0, energy_error=NO_PERMISSION),
            "this user may not read it",
            "/dev/nvidia",
            id="no-permission",
        ),
        pytest.param(
            lambda mock: mock.lose(0), "fell off the bus", "Xid", id="gpu-lost-before"
        ),
        # silent: {} and a total of 0
        pytest.param(
            lambda mock: mock.set_init_error(DRIVER_NOT_LOADED),
            "driver is not loaded",
            "modprobe",
            id="driver-down",
        ),
        pytest.param(
            lambda mock: mock.set_num_gpus(0), "finds 0 GPUs", "nvidia-smi", id="zero-gpus"
        ),
    ],
)
def test_a_fault_before_measuring(*, fault, said, remedy, gpu):
    fault(gpu)
    with pytest.raises(MeterError) as raised, FAST.recording([gpu.uuid(0)]):
        pass

    assert said in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        pytest.param(
            lambda mock: mock.set_init_error(DRIVER_NOT_LOADED),
            lambda mock: mock.set_init_error(0),
            id="driver-down",
        ),
        pytest.param(
            lambda mock: mock.set_num_gpus(0), lambda mock: mock.set_num_gpus(1), id="zero-gpus"
        ),
    ],
)
def test_the_driver_comes_back(*, break_it, mend_it, gpu):
    """Zeus remembers that there was none for as long as the process lives."""
    break_it(gpu)
    with pytest.raises(MeterError):
        FAST.identify()
    with pytest.raises(MeterError), FAST.recording([gpu.uuid(0)]):
        pass
    mend_it(gpu)

    assert len(FAST.identify()) == 1
    assert codes(record(gpu)) == set()


def test_no_nvml_library(gpu, tmp_path, monkeypatch):
    """Zeus: silent, {} and a total of 0."""
    (tmp_path / "libnvidia-ml.so.1").touch()  # found first, and no library
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(MeterError, match="cannot be loaded") as raised:
        FAST.recording([gpu.uuid(0)]).__enter__()
    assert "Install NVIDIA's driver" in str(raised.value)

    identify = "from pytest_joules.meter import ZeusMeter; ZeusMeter().identify()"
    root = str(Path(pytest_joules.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, "-c", identify],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 1
    assert "libnvidia-ml.so.1 cannot be loaded" in child.stderr


def test_mig_is_on(gpu):
    """Zeus: silent."""
    gpu.set(0, mig=1)

    assert FAST.identify()[0].mig
    assert codes(record(gpu)) == {"mig-on"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        # silently no GPU
        pytest.param("", "names no GPU", id="empty"),
        pytest.param("MIG-1f", "names the MIG slice 'MIG-1f'", id="mig"),
        # raw ValueError
        pytest.param("0,MIG-x", "names the MIG slice 'MIG-x'", id="number-and-mig"),
        pytest.param("0,", "holds ''", id="trailing-comma"),
        pytest.param("GPU-99999999", "which is no GPU", id="unknown-uuid"),
        pytest.param("GPU-0000000", "which is 2 GPU", id="ambiguous-uuid"),
        pytest.param("GPU-", "which is no GPU", id="no-uuid"),
        # counts GPU 0 twice
        pytest.param("0,0", "names GPU 0 twice", id="twice"),
        pytest.param("0,GPU-00000000", "names GPU 0 twice", id="twice-by-number-and-uuid"),
        pytest.param("2", "names GPU 2, but there are 2", id="out-of-range"),
        pytest.param("-1", "holds '-1'", id="minus-one"),
        pytest.param("all", "holds 'all'", id="word"),
    ],
)
def test_cuda_visible_devices(*, value, said, mock_nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(MeterError) as raised:
        ZeusMeter().identify()

    assert said in str(raised.value)
    assert f"CUDA_VISIBLE_DEVICES={value!r}" in str(raised.value)
    assert mock_nvml.path.exists()


def test_a_gpu_is_counted_twice(gpu):
    with pytest.raises(MeterError, match="named 2 times"):
        FAST.recording([gpu.uuid(0)] * 2).__enter__()
    trace = record(gpu)

    assert codes(MeterTrace(gpus=trace.gpus * 2)) == {"gpu-twice"}
