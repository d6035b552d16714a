"""Lets mock GPUs draw power for the work that a real worker does on the CPU."""

import threading
import time
from pathlib import Path
from typing import Self

from pytest_joules.engines.workers import SCRIPT
from tests.fakes.mock_nvml import MockNvml

IDLE_W = 10.0
WATTS_A_CORE = 400.0
PERIOD_S = 0.05


class CpuFollower:
    """Draws ``IDLE_W`` on every GPU, and ``WATTS_A_CORE`` shared for each core in use.

    Power follows processor time, not whether the worker runs: what another process of this
    machine takes away makes a batch longer and its power lower.
    """

    def __init__(self, mock: MockNvml, num_gpus: int) -> None:
        self.factor = 1.0
        self._mock, self._num_gpus = mock, num_gpus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        seen: dict[int, float] = {}
        last_s = time.monotonic()
        while not self._stop.wait(PERIOD_S):
            used = {pid: cpu_s(pid) for pid in worker_pids()}
            now_s = time.monotonic()
            grown = sum(max(0.0, used[pid] - seen[pid]) for pid in used if pid in seen)
            busy = grown / (now_s - last_s)
            seen, last_s = used, now_s
            for gpu in range(self._num_gpus):
                watts = IDLE_W + self.factor * WATTS_A_CORE * busy / self._num_gpus
                self._mock.set_power(gpu, min(watts, 690.0))


def worker_pids() -> list[int]:
    """Return the processes that run the worker's script: not those that start them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if SCRIPT in words and "torch.distributed.run" not in words:
            found.append(int(path.parent.name))
    return found


def cpu_s(pid: int) -> float:
    """Return the processor time of all threads of a process."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(path.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return total_ns / 1e9
