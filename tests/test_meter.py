import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pynvml
import pytest
from zeus.device import get_gpus

import pytest_joules
from pytest_joules.counter import GPU_CHANGED, energy_at_ticks
from pytest_joules.errors import FormatError, MeterError
from pytest_joules.meter import PERIOD_S, ZeusMeter, read_trace
from pytest_joules.meter.rapl import Total, domains
from pytest_joules.meter.visible import visible_indices
from tests.fakes.mock_nvml import (
    NO_PERMISSION,
    NOT_SUPPORTED,
    OPERATING_SYSTEM,
    UNKNOWN,
    MockNvml,
)
from tests.fakes.waiting import wait_until

FIRST, SECOND = (f"GPU-{i:08d}-0000-4000-8000-{i:012d}" for i in range(2))
SAID = {OPERATING_SYSTEM: "a sandbox around this process", UNKNOWN: "without a known remedy"}
SLOWER = (
    "power_w",
    "temperature_c",
    "sm_clock_hz",
    "memory_clock_hz",
    "clock_event_reasons",
    "busy_share",
    "memory_used_bytes",
    "process_ids",
    "power_limit_w",
    "mig",
)


def record_until(meter, uuids, condition):
    with meter.recording(uuids) as recording:
        wait_until(lambda: condition(recording.trace()))
    return recording.trace()


def has_readings(count):
    return lambda trace: all(len(gpu.readings) >= count for gpu in trace.gpus)


def run_python(code, **environ):
    root = str(Path(pytest_joules.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, **environ},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


# --- the mock carries the real wheels ------------------------------------------------------


def test_zeus_reads_the_mock_in_this_process(mock_nvml):
    mock_nvml.set_clock(1000.0)
    mock_nvml.set_counter(1, 2.5)
    mock_nvml.set_power(1, 300.0)
    mock_nvml.set_clock(1010.0)

    gpu = get_gpus().gpus[1]

    assert gpu.get_name() == "NVIDIA H200"
    assert gpu.get_total_energy_consumption() == 3_002_500
    assert gpu.get_average_power_usage() == gpu.get_instant_power_usage() == 300_000
    assert gpu.get_gpu_temperature() == 40


def test_the_counter_stands_between_its_ticks(mock_nvml):
    mock_nvml.set(0, tick_s=0.1)
    mock_nvml.set_clock(1000.0)
    mock_nvml.set_counter(0, 0.0)
    mock_nvml.set_power(0, 500.0)

    def counted_mj(time_s):
        mock_nvml.set_clock(time_s)
        return get_gpus().gpus[0].get_total_energy_consumption()

    assert [counted_mj(t) for t in (1000.15, 1000.19, 1000.25)] == [50_000, 50_000, 100_000]


def test_zeus_reads_the_mock_in_a_child_process(mock_nvml):
    mock_nvml.set(0, name="NVIDIA B200")
    code = "from zeus.device import get_gpus; print(get_gpus().gpus[0].get_name())"

    assert run_python(code, **mock_nvml.variables()) == "NVIDIA B200"


def test_power_may_change_at_any_time_from_any_process(mock_nvml):
    """80 W for 10 s, 500 W for 4 s, 200 W for 1 s: 3,000 J."""
    mock_nvml.set_clock(5000.0)
    mock_nvml.set_counter(0, 0.0)
    mock_nvml.set_clock(5010.0)
    elsewhere = MockNvml(mock_nvml.path, mock_nvml.library)
    elsewhere.set_power(0, 500.0)
    elsewhere.set_clock(5014.0)
    mock_nvml.set_power(0, 200.0)
    mock_nvml.set_clock(5015.0)

    assert get_gpus().gpus[0].get_total_energy_consumption() == 3_000_000
    assert mock_nvml.true_energy_j(0, 5000.0, 5015.0) == 3000.0


def test_a_profile_of_power(mock_nvml):
    mock_nvml.set_clock(5000.0)
    mock_nvml.set_counter(0, 0.0)
    mock_nvml.set_profile(0, [(2.0, 100.0), (2.0, 300.0), (1.0, 0.0)])
    mock_nvml.set_clock(5003.0)

    assert get_gpus().gpus[0].get_total_energy_consumption() == 500_000
    assert get_gpus().gpus[0].get_instant_power_usage() == 300_000


def test_more_changes_of_power_than_the_mock_remembers(mock_nvml):
    """3,000 times 1 s of 100 W: what is forgotten stays counted."""
    mock_nvml.set(0, tick_s=0.0)
    mock_nvml.set_clock(5000.0)
    mock_nvml.set_counter(0, 0.0)
    mock_nvml.set_profile(0, [(1.0, 100.0)] * 3000)
    mock_nvml.set_clock(8000.0)

    assert get_gpus().gpus[0].get_total_energy_consumption() == 300_000_000


# --- who the GPUs are ----------------------------------------------------------------------


def test_every_gpu_is_identified_once(mock_nvml):
    mock_nvml.set(1, name="NVIDIA B200", power_limit_w=1000.0, mig=1, memory_total=192 * 10**9)

    first, second = ZeusMeter().identify()

    assert (first.uuid, first.name, first.power_limit_w) == (FIRST, "NVIDIA H200", 700.0)
    assert (first.mig, first.driver, first.memory_bytes) == (
        False,
        "590.48.01",
        150_754_820_096,
    )
    assert (second.uuid, second.name, second.power_limit_w) == (SECOND, "NVIDIA B200", 1000.0)
    assert (second.mig, second.memory_bytes) == (True, 192 * 10**9)


def test_what_nvml_does_not_offer_is_none(mock_nvml):
    mock_nvml.set(0, power_limit_w=0.0, mig=-1, temperature_c=float("nan"))
    mock_nvml.set(0, clock_event_reasons=-1, processes_error=NOT_SUPPORTED)

    trace = record_until(ZeusMeter(), [FIRST], has_readings(1))
    reading = trace.gpus[0].readings[0]

    assert (trace.gpus[0].gpu.power_limit_w, trace.gpus[0].gpu.mig) == (None, False)
    assert reading.temperature_c is reading.clock_event_reasons is reading.process_ids is None
    assert reading.power_w == 80.0


@pytest.mark.parametrize("code", [OPERATING_SYSTEM, UNKNOWN])
def test_what_a_sandbox_keeps_back_from_the_start_is_not_offered(code, mock_nvml):
    """But not what the energy rests on, and nothing that was told before."""
    mock_nvml.set(0, processes_error=code)
    blocked = record_until(ZeusMeter(), [FIRST], has_readings(60))
    mock_nvml.set(0, processes_error=0)
    with ZeusMeter().recording([FIRST]) as recording:
        mock_nvml.set(0, processes_error=code)
        wait_until(lambda: recording.trace().gpus[0].error)
    mock_nvml.set(0, processes_error=0, energy_error=code)

    assert blocked.gpus[0].error is None
    assert {reading.process_ids for reading in blocked.gpus[0].readings} == {None}
    assert blocked.gpus[0].readings[-1].power_w == 80.0
    with pytest.raises(MeterError, match=rf"NVML says .*{SAID[code]}"):
        record_until(ZeusMeter(), [FIRST], has_readings(1))


def test_links_between_gpus(mock_nvml):
    def links():
        return [gpu.links for gpu in ZeusMeter().identify()]

    assert links() == [((SECOND, "host-bridge"),), ((FIRST, "host-bridge"),)]
    mock_nvml.set(1, socket=1)
    assert links() == [((SECOND, "system"),), ((FIRST, "system"),)]
    mock_nvml.set(0, nvlinks=18)
    assert links() == [((SECOND, "system"),), ((FIRST, "system"),)]
    mock_nvml.set(1, nvlinks=17)  # one is down
    assert links() == [((SECOND, "nvlink-18"),), ((FIRST, "nvlink-17"),)]
    mock_nvml.set(0, topology_error=NOT_SUPPORTED)
    assert links() == [(), ((FIRST, "nvlink-17"),)]


def test_links_reach_the_trace_and_a_neighbour_s_fault_is_no_change(mock_nvml):
    mock_nvml.set(0, nvlinks=18)
    mock_nvml.set(1, nvlinks=18)
    with ZeusMeter().recording([FIRST]) as recording:
        wait_until(lambda: has_readings(2)(recording.trace()))
        mock_nvml.lose(1)

    (gpu,) = recording.trace().gpus
    assert gpu.gpu.links == ((SECOND, "nvlink-18"),)
    assert gpu.error is None


@pytest.mark.parametrize(("code", "tells"), [(NOT_SUPPORTED, False), (NO_PERMISSION, True)])
def test_only_nvml_itself_says_that_a_gpu_cannot_tell_its_power(code, tells, mock_nvml):
    mock_nvml.set(0, power_error=code)

    trace = record_until(ZeusMeter(), [FIRST], has_readings(1))

    assert trace.gpus[0].gpu.tells_power is tells
    assert trace.gpus[0].readings[0].power_w is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, [FIRST, SECOND], id="not-set"),
        pytest.param("1", [SECOND], id="number"),
        pytest.param("1,0", [SECOND, FIRST], id="order"),
        pytest.param(" 1 , 0 ", [SECOND, FIRST], id="spaces"),
        pytest.param(f"{SECOND}", [SECOND], id="uuid"),
        pytest.param("GPU-00000001,GPU-00000000", [SECOND, FIRST], id="uuid-beginnings"),
        pytest.param(f"0,{SECOND}", [FIRST, SECOND], id="mixed"),
    ],
)
def test_the_gpus_are_those_that_cuda_sees(*, value, expected, mock_nvml, monkeypatch):
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    assert [gpu.uuid for gpu in ZeusMeter().identify()] == expected
    assert mock_nvml.uuid(0) == FIRST


def test_numbers_of_unequal_gpus_need_one_numbering():
    """CUDA numbers the fastest first, NVML by bus: GPU 0 need not be GPU 0."""
    uuids, names = [FIRST, SECOND], ["NVIDIA H200", "NVIDIA L4"]

    with pytest.raises(MeterError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_indices({"CUDA_VISIBLE_DEVICES": "0"}, uuids, names)
    ordered = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_indices(ordered, uuids, names) == (1,)
    assert visible_indices({"CUDA_VISIBLE_DEVICES": SECOND}, uuids, names) == (1,)
    assert visible_indices({}, uuids, names) == (0, 1)


def test_importing_the_meter_loads_neither_zeus_nor_nvml():
    code = "import sys, pytest_joules.meter; print({'zeus', 'pynvml'} & {*sys.modules})"

    assert run_python(code) == "set()"


# --- recording -----------------------------------------------------------------------------


def test_a_recording_begins_and_ends_with_full_readings(mock_nvml):
    mock_nvml.set_processes(0, [os.getpid()])
    before_s = time.monotonic()
    with ZeusMeter().recording([FIRST, SECOND]) as recording:
        inside_s = time.monotonic()
        first = [gpu.readings[0] for gpu in recording.trace().gpus]
        leaving_s = time.monotonic()
    after_s = time.monotonic()
    last = [gpu.readings[-1] for gpu in recording.trace().gpus]

    assert all(before_s < reading.time_s < inside_s for reading in first)
    assert all(leaving_s < reading.time_s < after_s for reading in last)
    for reading in (*first, *last):
        assert all(getattr(reading, name) is not None for name in SLOWER)
    assert first[0].process_ids == (os.getpid(),)
    assert first[1].process_ids == ()


def test_gpus_come_in_the_order_that_was_asked(mock_nvml, monkeypatch):
    """Even GPUs that CUDA_VISIBLE_DEVICES hides: the caller has resolved it already."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    mock_nvml.set_power(1, 0.0)
    mock_nvml.set_counter(1, 77.0)

    trace = record_until(ZeusMeter(), [SECOND, FIRST], has_readings(1))

    assert [gpu.gpu.uuid for gpu in trace.gpus] == [SECOND, FIRST]
    assert trace.gpus[0].readings[0].energy_mj == 77_000


def test_readings_follow_each_other_on_the_monotonic_clock(mock_nvml):
    assert mock_nvml.env()["MOCK_NVML_STATE"]
    trace = record_until(ZeusMeter(), [FIRST], has_readings(90))
    times_s = [reading.time_s for reading in trace.gpus[0].readings]

    assert times_s == sorted(set(times_s))
    # A busy machine may delay readings; it cannot make them come early.
    assert times_s[-2] - times_s[0] >= 0.999 * PERIOD_S * (len(times_s) - 2)
    slow = [r for r in trace.gpus[0].readings if r.power_w is not None]
    assert 3 <= len(slow) < len(times_s) / 2


def test_recorded_energy_is_the_energy_that_was_drawn(mock_nvml):
    """Power changes all the time; the answer lies between what the last ticks allow."""
    levels = [100.0, 650.0, 300.0, 480.0]
    with ZeusMeter().recording([FIRST]) as recording:
        for i in range(24):
            mock_nvml.set_power(0, levels[i % 4])
            seen = 4 * (i + 1)
            wait_until(lambda: len(recording.trace().gpus[0].readings) >= seen)  # noqa: B023
    readings = recording.trace().gpus[0].readings
    start_s, end_s, energy_j = energy_at_ticks(readings, 0.0, float("inf"))

    # A value is at most one tick old when it is read.
    took_s = 0.1 + max(reading.took_s for reading in readings)
    assert mock_nvml.true_energy_j(0, start_s, end_s - took_s) <= energy_j + 0.001
    assert energy_j - 0.001 <= mock_nvml.true_energy_j(0, start_s - took_s, end_s)
    assert energy_j > 500


def test_zeus_s_daemon_is_not_asked(mock_nvml, monkeypatch):
    monkeypatch.setenv("ZEUSD_SOCK_PATH", "/no/such/daemon.sock")

    trace = record_until(ZeusMeter(), [mock_nvml.uuid(0)], has_readings(2))

    assert trace.gpus[0].error is None


def test_the_sampler_finds_the_package_and_no_module_of_it_hides_another(
    mock_nvml, monkeypatch, tmp_path
):
    """Its process may find the plugin only by the path that it is given."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        "pathlib.Path(__file__).with_name('path').write_text('\\n'.join(sys.path))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    record_until(ZeusMeter(), [mock_nvml.uuid(0)], has_readings(1))

    package = Path(pytest_joules.__file__).parent
    folders = [Path(line) for line in (tmp_path / "path").read_text().splitlines() if line]
    ahead = folders[: folders.index(tmp_path)]
    assert package.parent in ahead
    assert package not in folders  # its trace.py would be taken for the standard library's


def test_one_lost_gpu_leaves_the_other_s_readings(mock_nvml):
    with ZeusMeter().recording([FIRST, SECOND]) as recording:
        mock_nvml.lose(0)
        wait_until(lambda: recording.trace().gpus[0].error)
        count = len(recording.trace().gpus[1].readings)
        wait_until(lambda: len(recording.trace().gpus[1].readings) > count + 5)
    lost, well = recording.trace().gpus

    assert "GPU is lost" in lost.error
    assert "Xid" in lost.error
    assert lost.readings
    assert well.error is None


def test_a_changed_power_limit_is_told(mock_nvml):
    with ZeusMeter().recording([FIRST]) as recording:
        mock_nvml.set(0, power_limit_w=500.0)
    error = recording.trace().gpus[0].error

    assert error.startswith(GPU_CHANGED)
    assert "power_limit_w=700.0" in error
    assert "power_limit_w=500.0" in error


def test_a_killed_sampler_is_told_and_its_readings_are_kept(mock_nvml):
    with ZeusMeter().recording([FIRST, SECOND]) as recording:
        wait_until(lambda: has_readings(5)(recording.trace()))
        psutil.Process(recording.pid).kill()
        wait_until(lambda: _has_ended(recording.pid))
    trace = recording.trace()

    assert [gpu.error for gpu in trace.gpus] == ["the sampler ended early with status -9"] * 2
    assert has_readings(5)(trace)
    assert mock_nvml.path.exists()


def test_the_sampler_ends_with_its_parent_and_takes_its_folder_along(mock_nvml):
    code = (
        "import os\n"
        "from pytest_joules.meter import ZeusMeter\n"
        f"with ZeusMeter().recording(['{FIRST}']) as recording:\n"
        "    print(recording.pid, recording.folder, flush=True)\n"
        "    os._exit(0)\n"
    )
    pid, folder = run_python(code, **mock_nvml.variables()).split()

    wait_until(lambda: _has_ended(int(pid)))
    assert Path(folder).name.startswith("joules-meter-")
    assert not Path(folder).exists()


def test_the_folder_goes_when_the_recording_ends(mock_nvml):
    with ZeusMeter().recording([mock_nvml.uuid(0)]) as recording:
        assert recording.folder.exists()
        assert recording.folder.stat().st_mode & 0o077 == 0

    assert not recording.folder.exists()
    assert recording.trace().gpus


def test_an_error_in_the_block_ends_the_sampler(mock_nvml):
    with pytest.raises(ZeroDivisionError), ZeusMeter().recording([mock_nvml.uuid(0)]) as made:
        _ = 1 / 0

    assert _has_ended(made.pid)


@pytest.mark.parametrize(
    ("uuids", "said"),
    [
        pytest.param([], "No GPU was named", id="none"),
        pytest.param([FIRST, FIRST], "named 2 times", id="twice"),
        pytest.param(["GPU-other"], "GPU-other is not a GPU of this machine", id="unknown"),
    ],
)
def test_what_cannot_be_recorded(uuids, said, mock_nvml):
    assert mock_nvml.uuid(0) == FIRST
    with pytest.raises(MeterError, match=said), ZeusMeter().recording(uuids):
        pass


# --- the file ------------------------------------------------------------------------------

IDENTITY = {
    "uuid": FIRST,
    "name": "NVIDIA H200",
    "memory_bytes": 1,
    "power_limit_w": 700.0,
    "mig": False,
    "driver": "590",
}


def _file(tmp_path, *lines, tail=""):
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    lines = ["gpu", 0, IDENTITY], [0, 1.5, 0.001, 42, {"process_ids": [7]}]
    trace = read_trace(_file(tmp_path, *lines, tail="[0,1.525,0.001,4"))

    (reading,) = trace.gpus[0].readings
    assert (reading.time_s, reading.energy_mj, reading.process_ids) == (1.5, 42, (7,))


def test_a_whole_line_that_is_no_reading_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="no reading"):
        read_trace(_file(tmp_path, ["gpu", 0, IDENTITY], [0, 1.5]))


def test_a_gpu_s_own_error_says_more_than_the_sampler_s(tmp_path):
    lines = ["gpu", 0, IDENTITY], ["gpu", 1, {**IDENTITY, "uuid": SECOND}], ["error", 1, "lost"]

    trace = read_trace(_file(tmp_path, *lines), "the sampler ended")

    assert [gpu.error for gpu in trace.gpus] == ["the sampler ended", "lost"]


# --- CPU and DRAM --------------------------------------------------------------------------


def powercap(root, **energies_uj):
    """Two packages, each with cores and DRAM, and the MMIO view that doubles package 0."""
    for i in range(2):
        for suffix, name in (("", f"package-{i}"), (":0", "core"), (":1", "dram")):
            folder = root / f"intel-rapl:{i}{suffix}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{name}\n")
            (folder / "max_energy_range_uj").write_text("1000000\n")
            (folder / "energy_uj").write_text("100\n")
    mirror = root / "intel-rapl-mmio:0"
    mirror.mkdir()
    (mirror / "name").write_text("package-0\n")
    for path, energy_uj in energies_uj.items():
        set_uj(root, path, energy_uj)
    return root


def set_uj(root, domain, energy_uj):
    (root / domain / "energy_uj").write_text(f"{energy_uj}\n")


def test_cpu_energy_worked_by_hand(tmp_path):
    """Package 0 wraps at 1 J: 0.9 J to 0.2 J is 0.3 J; package 1 adds 0.5 J."""
    root = powercap(tmp_path, **{"intel-rapl:0": 900_000, "intel-rapl:1": 0})
    total = Total(domains=domains(root))
    total.update()
    set_uj(root, "intel-rapl:0", 200_000)
    set_uj(root, "intel-rapl:1", 500_000)
    set_uj(root, "intel-rapl:1:0", 999_999)
    set_uj(root, "intel-rapl:1:1", 250_100)
    total.update()

    assert total.energy_j(dram=False) == pytest.approx(0.8)
    assert total.energy_j(dram=True) == pytest.approx(0.25)


def test_cpu_energy_is_recorded_beside_the_gpus(mock_nvml, tmp_path):
    root = powercap(tmp_path / "powercap")
    with ZeusMeter(powercap=root).recording([mock_nvml.uuid(0)]) as recording:
        set_uj(root, "intel-rapl:0", 600_100)
    trace = recording.trace()

    assert (trace.cpu_energy_j, trace.dram_energy_j) == (pytest.approx(0.6), 0.0)


def test_cpu_energy_that_cannot_be_read_is_none_not_zero(mock_nvml, tmp_path):
    gone = powercap(tmp_path / "powercap")
    with ZeusMeter(powercap=gone).recording([mock_nvml.uuid(0)]) as recording:
        (gone / "intel-rapl:1" / "energy_uj").unlink()
    trace = recording.trace()
    without = record_until(
        ZeusMeter(powercap=tmp_path / "none"), [mock_nvml.uuid(0)], has_readings(1)
    )

    assert (trace.cpu_energy_j, trace.dram_energy_j) == (None, None)
    assert (without.cpu_energy_j, without.dram_energy_j) == (None, None)


def _has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_mock_s_constants_are_nvml_s():
    assert pynvml.NVML_ERROR_NOT_SUPPORTED == NOT_SUPPORTED
