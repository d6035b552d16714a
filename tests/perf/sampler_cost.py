"""Print what the sampler costs: ``python tests/perf/sampler_cost.py [SECONDS]``.

On a machine with GPUs it reads those that are visible, elsewhere the mock's. Nothing is
asserted: the figure belongs to the machine.
"""

import ctypes
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pytest_joules.counter.ticks import counter_tick_s, energy_at_ticks  # noqa: E402
from pytest_joules.errors import MeterError  # noqa: E402  the path comes first
from pytest_joules.meter import ZeusMeter  # noqa: E402
from tests.fakes.mock_nvml import MockNvml, compile_library  # noqa: E402


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder:
        try:
            ZeusMeter().identify()
        except MeterError as error:
            print(f"{error}\nUsing the mock with 8 GPUs.")
            mock = MockNvml.create(Path(folder) / "state", compile_library(Path(folder)), 8)
            os.environ.update(mock.variables())
            ctypes.CDLL(str(mock.library))
        report(seconds)


def report(seconds: float) -> None:
    meter = ZeusMeter()
    gpus = meter.identify()
    began_s = time.monotonic()
    with meter.recording([gpu.uuid for gpu in gpus]) as recording:
        print(f"first reading after {time.monotonic() - began_s:.2f} s")
        sampler = psutil.Process(recording.pid)
        before = sampler.cpu_times()
        time.sleep(seconds)
        after = sampler.cpu_times()
        memory_mb = sampler.memory_info().rss / 1e6
        size_kb = (recording.folder / "readings.jsonl").stat().st_size / 1e3
    used_s = after.user + after.system - before.user - before.system
    print(f"{len(gpus)} GPUs, {memory_mb:.0f} MB, {size_kb / seconds:.1f} kB/s written")
    print(f"CPU {100 * used_s / seconds:.2f} % of a core")
    for gpu in recording.trace().gpus:
        readings = gpu.readings
        took_ms = sorted(1000 * reading.took_s for reading in readings)
        start_s, end_s, energy_j = energy_at_ticks(readings, 0.0, float("inf"))
        print(
            f"{gpu.gpu.name}: {len(readings)} readings, a reading takes "
            f"{took_ms[len(took_ms) // 2]:.3f} ms (longest {took_ms[-1]:.3f}), tick "
            f"{counter_tick_s(readings):.4f} s, {energy_j / (end_s - start_s):.1f} W"
        )


if __name__ == "__main__":
    main()
