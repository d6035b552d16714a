"""The process that reads the counters: ``python -m pytest_joules.meter.sampler SPEC``.

A process of its own, because a thread would compete with the load generator's loop
and be late exactly when the machine is busy. It appends one JSON line a reading to a file,
so that whatever ends it leaves all but the last line whole, and ends itself when its
standard input closes: when the parent says so, or is gone.
"""

import json
import math
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pynvml
from zeus.device import get_gpus
from zeus.device.gpu.common import ZeusBaseGPUError

from pytest_joules.errors import MeterError, is_expected
from pytest_joules.meter import nvml, rapl

__tracebackhide__ = is_expected

STATE_EVERY_S = 0.5
PROCESSES_EVERY_S = 1.0
_STDIN, _STDOUT = 0, 1


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to read, where to write it, how often."""

    uuids: tuple[str, ...]
    path: str
    period_s: float
    power_every_s: float
    powercap: str

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        values = json.loads(text)
        return cls(**{**values, "uuids": tuple(values["uuids"])})


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """One of ``Reading``'s slower fields."""

    name: str
    every_s: float
    read: Callable[[nvml.Handle], Any]

    def is_due(self, asked_s: float, now_s: float) -> bool:
        return now_s - asked_s >= self.every_s


_QUANTITIES = (
    _Quantity(name="temperature_c", every_s=STATE_EVERY_S, read=nvml.temperature_c),
    _Quantity(name="sm_clock_hz", every_s=STATE_EVERY_S, read=nvml.sm_clock_hz),
    _Quantity(name="memory_clock_hz", every_s=STATE_EVERY_S, read=nvml.memory_clock_hz),
    _Quantity(name="clock_event_reasons", every_s=STATE_EVERY_S, read=nvml.clock_event_reasons),
    _Quantity(name="busy_share", every_s=STATE_EVERY_S, read=nvml.busy_share),
    _Quantity(name="memory_used_bytes", every_s=STATE_EVERY_S, read=nvml.memory_used_bytes),
    _Quantity(name="power_limit_w", every_s=STATE_EVERY_S, read=nvml.power_limit_w),
    _Quantity(name="mig", every_s=STATE_EVERY_S, read=nvml.mig),
    _Quantity(name="process_ids", every_s=PROCESSES_EVERY_S, read=nvml.process_ids),
)


class _Gpu:
    """One GPU: its energy through Zeus, all else through NVML."""

    def __init__(self, position: int, zeus_gpu: Any) -> None:
        self._position = position
        self._zeus_gpu = zeus_gpu
        self.identity = asdict(nvml.identity(zeus_gpu.handle))
        self.failed = False
        self._is_first = True
        self._blocked: set[str] = set()

    def line(self, due: tuple[_Quantity, ...]) -> list[Any]:
        """Read it; the line tells a reading, or why there will be no more of them."""
        began_s = time.monotonic()
        try:
            energy_mj = self._zeus_gpu.get_total_energy_consumption()
            answered_s = time.monotonic()  # before the rest, which takes its time
            more = {q.name: self._asked(q) for q in due}
        except (ZeusBaseGPUError, MeterError) as error:
            self.failed = True
            return ["error", self._position, _explained(self.identity["uuid"], error)]
        self._is_first = False
        return [self._position, answered_s, answered_s - began_s, energy_mj, more]

    def _asked(self, quantity: _Quantity) -> Any:
        """Read it; what is blocked from the start is not offered, later on it is a fault."""
        if quantity.name in self._blocked:
            return None
        handle = self._zeus_gpu.handle
        if not self._is_first or quantity.name == "memory_used_bytes":
            return quantity.read(handle)
        try:
            return quantity.read(handle)
        except nvml.NvmlFault as error:
            if not error.is_blocked:
                raise
            self._blocked.add(quantity.name)
            return None

    def last_line(self) -> list[Any]:
        """Tell who the GPU is now: a power limit may have been changed meanwhile."""
        try:
            return ["after", self._position, asdict(nvml.identity(self._zeus_gpu.handle))]
        except MeterError as error:
            return ["error", self._position, str(error)]


def _explained(uuid: str, error: Exception) -> str:
    # Zeus wraps NVML's error; its code says what to do.
    cause = error.__cause__
    return str(nvml.fault(uuid, cause)) if isinstance(cause, pynvml.NVMLError) else str(error)


class _Cpu:
    """RAPL, given up for good once it cannot be read."""

    def __init__(self, root: Path) -> None:
        self._total = rapl.Total(domains=())
        try:
            self._total = rapl.Total(domains=rapl.domains(root))
        except OSError:
            return  # usually root's alone; `joules doctor` tells

    def line(self) -> list[Any]:
        try:
            self._total.update()
        except OSError:
            self._total = rapl.Total(domains=())
        cpu_j, dram_j = (self._total.energy_j(dram=dram) for dram in (False, True))
        return ["cpu", cpu_j, dram_j]


class _Sampler:
    """Rounds of readings, each appended to the file at once."""

    def __init__(self, spec: Spec, gpus: list[_Gpu], out: BinaryIO) -> None:
        self._gpus, self._out = gpus, out
        self._period_s = spec.period_s
        self._cpu = _Cpu(Path(spec.powercap))
        power = _Quantity(name="power_w", every_s=spec.power_every_s, read=nvml.power_w)
        self._quantities = (power, *_QUANTITIES)
        self._asked_s = dict.fromkeys(self._quantities, -math.inf)

    def first_round(self) -> None:
        """Read everything once.

        Raises:
            MeterError: A GPU cannot be measured.
        """
        self._write([["gpu", i, gpu.identity] for i, gpu in enumerate(self._gpus)])
        failures = [line[2] for line in self._round(self._quantities) if line[0] == "error"]
        if failures:
            raise MeterError("; ".join(failures))

    def until(self, has_ended: Callable[[float], bool]) -> None:
        """Read at every period; ``has_ended`` sleeps the seconds in between."""
        next_s = time.monotonic() + self._period_s
        while not has_ended(next_s - time.monotonic()):
            now_s = time.monotonic()
            self._round(tuple(q for q, at_s in self._asked_s.items() if q.is_due(at_s, now_s)))
            # After a stall the missed readings are not made up for: the gap must be seen.
            next_s = max(next_s + self._period_s, time.monotonic())

    def last_round(self) -> None:
        """Read everything once more, so that the trace ends as complete as it began."""
        self._round(self._quantities)
        self._write([gpu.last_line() for gpu in self._gpus if not gpu.failed])

    def _round(self, due: tuple[_Quantity, ...]) -> list[list[Any]]:
        lines = [gpu.line(due) for gpu in self._gpus if not gpu.failed]
        now_s = time.monotonic()
        self._asked_s.update(dict.fromkeys(due, now_s))
        if any(quantity.every_s >= PROCESSES_EVERY_S for quantity in due):
            lines.append(self._cpu.line())
        self._write(lines)
        return lines

    def _write(self, lines: list[list[Any]]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        self._out.write(text.encode())


def main(text: str) -> None:
    """Read until standard input closes; say on standard output how starting went."""
    spec = Spec.from_json(text)
    parent, is_alone = os.getppid(), False
    try:
        with nvml.session(), Path(spec.path).open("ab", buffering=0) as out:
            sampler = _Sampler(spec, _open(spec.uuids), out)
            sampler.first_round()
            _say({"error": None})
            sampler.until(lambda seconds: _is_told_to_end(seconds, parent))
            sampler.last_round()
            # A parent that ends the recording says so; one that was killed leaves it to us.
            is_alone = os.getppid() != parent or not os.read(_STDIN, 1)
    except (MeterError, ZeusBaseGPUError) as error:
        _say({"error": str(error)})
    if is_alone:
        _clear(Path(spec.path).parent)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _open(uuids: tuple[str, ...]) -> list[_Gpu]:
    by_uuid = {nvml.uuid(handle): i for i, handle in enumerate(nvml.handles())}
    for uuid in uuids:
        if uuid not in by_uuid:
            raise MeterError(
                f"{uuid} is not a GPU of this machine, which has {', '.join(by_uuid)}. Ask "
                "for one of those."
            )
    # Zeus takes numbers only, each at its word, and remembers what it found.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(by_uuid[uuid]) for uuid in uuids)
    return [_Gpu(i, zeus_gpu) for i, zeus_gpu in enumerate(get_gpus().gpus)]


def _is_told_to_end(seconds: float, parent: int) -> bool:
    # The pipe closes with the parent, unless a fork of it holds the other end open.
    told, _, _ = select.select([_STDIN], [], [], max(0.0, seconds))
    return bool(told) or os.getppid() != parent


def _say(message: Mapping[str, Any]) -> None:
    os.write(_STDOUT, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
