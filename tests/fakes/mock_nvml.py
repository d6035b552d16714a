"""Steers the mock NVML library: sets what GPUs say, integrates power, switches faults on.

    mock = MockNvml.create(tmp_path / "state", library, num_gpus=2)
    subprocess.run([...], env=mock.env())     # children read it through zeus and pynvml
    mock.set_power(0, 350.0)                  # from any thread or process, at any time
    mock.freeze(0)

Other processes steer the same GPUs with ``MockNvml(path, library)``.
"""

import ctypes
import fcntl
import math
import mmap
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml
import pytest
import zeus.device.gpu.nvidia

SOURCE = Path(__file__).parent / "nvml" / "nvml.c"
SONAME = "libnvidia-ml.so.1"
MAX_GPUS, MAX_POINTS, MAX_PROCESSES = 8, 2048, 16
NO_PERMISSION, NOT_SUPPORTED, DRIVER_NOT_LOADED, OPERATING_SYSTEM, UNKNOWN = 4, 3, 9, 17, 999
START_ENERGY_J = 123_456.0


class Point(ctypes.Structure):
    """From ``time_s`` on the GPU draws ``power_w``; ``energy_j`` were drawn until then."""

    _fields_ = [(name, ctypes.c_double) for name in ("time_s", "energy_j", "power_w")]


class Gpu(ctypes.Structure):
    """One GPU, laid out as ``gpu_t``."""

    _fields_ = [
        ("name", ctypes.c_char * 96),
        ("uuid", ctypes.c_char * 96),
        *(
            (name, ctypes.c_double)
            for name in (
                "power_limit_w",
                "temperature_c",
                "sm_clock_mhz",
                "memory_clock_mhz",
                "tick_s",
                "frozen_from_s",
                "reset_at_s",
                "offset_at_s",
                "offset_j",
                "lost_from_s",
                "stall_from_s",
                "stall_until_s",
                "power_gain",
                "busy_percent",
            )
        ),
        *(
            (name, ctypes.c_int64)
            for name in (
                "memory_total",
                "memory_used",
                "clock_event_reasons",
                "mig",
                "persistence",
                "architecture",
                "energy_error",
                "power_error",
                "processes_error",
                "num_processes",
            )
        ),
        ("pids", ctypes.c_int64 * MAX_PROCESSES),
        *((name, ctypes.c_int64) for name in ("nvlinks", "socket", "topology_error")),
        ("num_points", ctypes.c_int64),
        ("points", Point * MAX_POINTS),
    ]


class State(ctypes.Structure):
    """The whole file, laid out as ``state_t``."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("magic", "sequence", "init_error", "num_gpus")),
        ("clock_s", ctypes.c_double),
        ("driver", ctypes.c_char * 80),
        ("gpus", Gpu * MAX_GPUS),
    ]


_MAGIC = ctypes.sizeof(State) * 100_000 + ctypes.sizeof(Gpu)


def compile_library(folder: Path) -> Path:
    """Compile the mock into ``folder``; ``cc`` must be installed."""
    library = folder / SONAME
    shape = ["-shared", "-fPIC", f"-Wl,-soname,{SONAME}"]
    strict = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *strict, *shape, "-o", library, SOURCE, "-lm"], check=True)
    return library


class MockNvml:
    """GPUs that draw what they are told, behind the real ``pynvml`` and ``zeus``."""

    def __init__(self, path: Path, library: Path) -> None:
        self.path, self.library = path, library
        with path.open("r+b") as file:
            self._state = State.from_buffer(mmap.mmap(file.fileno(), 0))

    @classmethod
    def create(cls, path: Path, library: Path, num_gpus: int = 1) -> "MockNvml":
        """Write a state of healthy, idle H200s; never over a file that may be mapped."""
        state = State(magic=_MAGIC, num_gpus=num_gpus, clock_s=math.nan, driver=b"590.48.01")
        now_s = time.monotonic()
        for index in range(MAX_GPUS):
            state.gpus[index] = _healthy(index, now_s)
        path.with_suffix(".new").write_bytes(bytes(state))
        path.with_suffix(".new").rename(path)
        return cls(path, library)

    def env(self) -> dict[str, str]:
        """Return the environment of a child process that shall see these GPUs."""
        dropped = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        return {**env, **self.variables()}

    def variables(self) -> dict[str, str]:
        """Return only the variables that make a process see these GPUs."""
        before = os.environ.get("LD_LIBRARY_PATH", "")
        folders = [str(self.library.parent), *([before] if before else [])]
        return {"LD_LIBRARY_PATH": ":".join(folders), "MOCK_NVML_STATE": str(self.path)}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this process and its children see these GPUs, until the test ends."""
        for name, value in self.variables().items():
            monkeypatch.setenv(name, value)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.delenv(name, raising=False)
        # pynvml and zeus remember the library and its answers for the whole process.
        monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(self.library)))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr("zeus.device.gpu._gpus", None)
        zeus.device.gpu.nvidia.nvml_is_available.cache_clear()

    def now_s(self) -> float:
        """The clock that the GPUs go by."""
        virtual_s = float(self._state.clock_s)
        return time.monotonic() if math.isnan(virtual_s) else virtual_s

    def set_clock(self, time_s: float) -> None:
        """Go by a virtual clock from now on; power changes so far must lie before it."""
        with self._edit() as state:
            state.clock_s = time_s

    # --- what a GPU says -----------------------------------------------------------------

    def set(self, gpu_index: int, **values: Any) -> None:
        """Set fields of ``Gpu``: ``set(0, name="NVIDIA B200", temperature_c=60)``."""
        with self._edit() as state:
            for name, value in values.items():
                if name not in dict(Gpu._fields_):  # a typo would only set an attribute
                    raise AttributeError(name)
                encoded = value.encode() if isinstance(value, str) else value
                setattr(state.gpus[gpu_index], name, encoded)

    def set_counter(self, gpu_index: int, joules: float) -> None:
        """Let the counter stand here now, as if the driver had been loaded lately."""
        with self._edit() as state:
            gpu = state.gpus[gpu_index]
            gpu.points[0] = Point(self.now_s(), joules, gpu.points[gpu.num_points - 1].power_w)
            gpu.num_points = 1

    def uuid(self, gpu_index: int) -> str:
        return str(self._state.gpus[gpu_index].uuid.decode())

    def set_processes(self, gpu_index: int, pids: Sequence[int]) -> None:
        with self._edit() as state:
            state.gpus[gpu_index].num_processes = len(pids)
            state.gpus[gpu_index].pids[: len(pids)] = list(pids)

    def set_power(self, gpu_index: int, watts: float) -> None:
        """Draw so much from now on; energy until now is kept exactly."""
        self.set_profile(gpu_index, [(math.inf, watts)])

    def set_profile(
        self, gpu_index: int, steps: Iterable[tuple[float, float]], from_s: float | None = None
    ) -> None:
        """Draw ``watts`` for ``seconds``, step after step; the last one stays."""
        with self._edit() as state:
            gpu = state.gpus[gpu_index]
            at_s = self.now_s() if from_s is None else from_s
            # The newest point is enough as a rule: this runs every 50 ms in some tests.
            newest = gpu.points[gpu.num_points - 1]
            if newest.time_s >= at_s:
                earlier = [point for point in _points(gpu) if point[0] < at_s]
                gpu.num_points = max(1, len(earlier))
            for seconds, watts in steps:
                last = gpu.points[gpu.num_points - 1]
                energy_j = last.energy_j + last.power_w * (at_s - last.time_s)
                _append(gpu, Point(at_s, energy_j, watts))
                at_s += seconds

    def true_energy_j(self, gpu_index: int, start_s: float, end_s: float) -> float:
        """Joules drawn between two times: the oracle, computed apart from the C code."""
        points = _points(self._state.gpus[gpu_index])
        return _energy_j(points, end_s) - _energy_j(points, start_s)

    # --- faults, each from a time on (default: now) --------------------------------------

    def set_init_error(self, code: int) -> None:
        """NVML cannot start: 9 is a driver that is not loaded; 0 is well again."""
        with self._edit() as state:
            state.init_error = code

    def set_num_gpus(self, count: int) -> None:
        with self._edit() as state:
            state.num_gpus = count

    def lose(self, gpu_index: int, at_s: float | None = None) -> None:
        """The GPU falls off the bus."""
        self.set(gpu_index, lost_from_s=self._or_now(at_s))

    def freeze(self, gpu_index: int, at_s: float | None = None) -> None:
        """The counter stands still."""
        self.set(gpu_index, frozen_from_s=self._or_now(at_s))

    def reset(self, gpu_index: int, at_s: float | None = None) -> None:
        """The counter starts from zero again."""
        self.set(gpu_index, reset_at_s=self._or_now(at_s))

    def jump(self, gpu_index: int, joules: float, at_s: float | None = None) -> None:
        """The counter leaps; backwards when negative."""
        self.set(gpu_index, offset_at_s=self._or_now(at_s), offset_j=joules)

    def stall(self, gpu_index: int, seconds: float, at_s: float | None = None) -> None:
        """Reading the counter blocks until ``seconds`` after ``at_s``."""
        from_s = self._or_now(at_s)
        self.set(gpu_index, stall_from_s=from_s, stall_until_s=from_s + seconds)

    def _or_now(self, at_s: float | None) -> float:
        return self.now_s() if at_s is None else at_s

    @contextmanager
    def _edit(self) -> Iterator[Any]:
        # The lock orders writers, the odd sequence makes readers try again.
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._state.sequence += 1
            try:
                yield self._state
            finally:
                self._state.sequence += 1


def _healthy(index: int, now_s: float) -> Gpu:
    gpu = Gpu(
        name=b"NVIDIA H200",
        uuid=f"GPU-{index:08d}-0000-4000-8000-{index:012d}".encode(),
        power_limit_w=700.0,
        temperature_c=40.0,
        sm_clock_mhz=1980.0,
        memory_clock_mhz=3201.0,
        tick_s=0.1,
        power_gain=1.0,
        busy_percent=97.0,
        memory_total=150_754_820_096,
        memory_used=500_000_000,
        persistence=1,
        architecture=9,
        num_points=1,
    )
    for name in ("frozen_from_s", "reset_at_s", "offset_at_s", "lost_from_s", "stall_from_s"):
        setattr(gpu, name, math.inf)
    gpu.points[0] = Point(now_s, START_ENERGY_J, 80.0)
    return gpu


def _points(gpu: Gpu) -> list[tuple[float, float, float]]:
    return [(p.time_s, p.energy_j, p.power_w) for p in gpu.points[: gpu.num_points]]


def _energy_j(points: Sequence[tuple[float, float, float]], time_s: float) -> float:
    before = [point for point in points if point[0] <= time_s]
    at_s, energy_j, power_w = before[-1] if before else points[0]
    return energy_j + power_w * (time_s - at_s)


def _append(gpu: Gpu, point: Point) -> None:
    if gpu.num_points == MAX_POINTS:  # forget the older half
        gpu.points[: MAX_POINTS // 2] = [Point(*p) for p in _points(gpu)[MAX_POINTS // 2 :]]
        gpu.num_points = MAX_POINTS // 2
    gpu.points[gpu.num_points] = point
    gpu.num_points += 1
