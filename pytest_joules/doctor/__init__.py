"""What this machine can measure, and what stands in the way; nothing here prints."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_joules import catalog
from pytest_joules.counter.ticks import counter_tick_s, ticks
from pytest_joules.errors import MeterError
from pytest_joules.meter import Recording, ZeusMeter, nvml, rapl
from pytest_joules.trace import GpuTrace
from pytest_joules.units import si

Status = Literal["ok", "warning", "problem"]

PROBE_S = 0.6
"""How long a counter is watched: six ticks of 100 ms."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """``NVML``, ``CUDA_VISIBLE_DEVICES``, ``GPU 0: persistence``, ``RAPL``, ..."""

    status: Status
    """A ``problem`` keeps from measuring, a ``warning`` from measuring everything well."""

    text: str
    remedy: str = ""
    """What to do; empty where all is well."""


def diagnose(
    *,
    environ: Mapping[str, str] = os.environ,
    powercap: Path = rapl.POWERCAP,
    probe_s: float = PROBE_S,
    wait: Callable[[float], None] = time.sleep,
) -> tuple[Finding, ...]:
    """Look at everything that a measurement needs.

    Args:
        environ: Read for ``CUDA_VISIBLE_DEVICES``.
        powercap: Where Linux keeps CPU energy counters.
        probe_s: How long to watch each GPU's counter.
        wait: How to let that time pass.
    """
    meter = ZeusMeter(powercap=powercap)

    def watch(uuid: str) -> GpuTrace:
        return _watch(meter.recording([uuid]), lambda: wait(probe_s))

    return (*_nvml(environ, watch), _rapl(powercap))


def _watch(recording: AbstractContextManager[Recording], wait: Callable[[], None]) -> GpuTrace:
    with recording as recorded:
        wait()
    return recorded.trace().gpus[0]


def _nvml(environ: Mapping[str, str], watch: Callable[[str], GpuTrace]) -> tuple[Finding, ...]:
    try:
        with nvml.session():
            library, driver = nvml.versions()
            return (
                Finding(subject="NVML library", status="ok", text=f"version {library}"),
                Finding(subject="driver", status="ok", text=f"version {driver}"),
                *_gpus(environ, watch),
            )
    except MeterError as error:
        subject = "NVML library" if "libnvidia-ml" in str(error) else "driver"
        return (_problem(subject, error),)


def _gpus(environ: Mapping[str, str], watch: Callable[[str], GpuTrace]) -> Iterator[Finding]:
    try:
        found = nvml.visible(environ)
    except MeterError as error:
        subject = "CUDA_VISIBLE_DEVICES" if "CUDA_VISIBLE" in str(error) else "GPUs"
        yield _problem(subject, error)
        return
    names = ", ".join(str(index) for index, _ in found)
    value = environ.get("CUDA_VISIBLE_DEVICES")
    said = "not set" if value is None else repr(value)
    yield Finding(
        subject="CUDA_VISIBLE_DEVICES", status="ok", text=f"{said}: GPU {names} visible"
    )
    for index, handle in found:
        try:
            yield from _gpu(nvml.state(index, handle), watch)
        except MeterError as error:
            yield _problem(f"GPU {index}", error)


def _gpu(state: nvml.GpuState, watch: Callable[[str], GpuTrace]) -> Iterator[Finding]:
    yield _identity(state)
    yield _mig(state)
    yield _persistence(state)
    yield _processes(state)
    yield _counter(state, watch)


def _identity(state: nvml.GpuState) -> Finding:
    gpu = state.identity
    limit = "unknown" if gpu.power_limit_w is None else si(gpu.power_limit_w, "W")
    text = (
        f"{gpu.name} (--gpu={catalog.gpu_slug(gpu.name)}), {gpu.uuid}, "
        f"{gpu.memory_bytes / 2**30:.0f} GiB, power limit {limit}"
    )
    if gpu.power_limit_w is None:
        remedy = "Jumps of the counter cannot be told from load; use a data-centre GPU."
        return _finding(state, "", "warning", text=text, remedy=remedy)
    return _finding(state, "", "ok", text=text)


def _mig(state: nvml.GpuState) -> Finding:
    if not state.identity.mig:
        return _finding(state, "MIG", "ok", text="off")
    text = "on: the energy counter cannot tell slices apart"
    remedy = f"Switch it off: `sudo nvidia-smi -i {state.index} -mig 0`."
    return _finding(state, "MIG", "problem", text=text, remedy=remedy)


def _persistence(state: nvml.GpuState) -> Finding:
    if state.persistence:
        return _finding(state, "persistence", "ok", text="on")
    seen = "unknown" if state.persistence is None else "off"
    text = f"{seen}: the driver may unload between programs and reset the energy counter"
    remedy = f"Switch it on: `sudo nvidia-smi -i {state.index} -pm 1`."
    return _finding(state, "persistence", "warning", text=text, remedy=remedy)


def _processes(state: nvml.GpuState) -> Finding:
    used = "" if state.memory_used_bytes is None else _memory(state.memory_used_bytes)
    if state.process_ids is None:
        text = f"NVML does not tell them{used}"
        remedy = "Foreign load cannot be seen; make sure that nothing else uses the GPU."
        return _finding(state, "processes", "warning", text=text, remedy=remedy)
    if not state.process_ids:
        return _finding(state, "processes", "ok", text=f"none{used}")
    text = f"{', '.join(_process(pid) for pid in state.process_ids)}{used}"
    remedy = "End them, or choose another GPU: their energy would be counted, too."
    return _finding(state, "processes", "problem", text=text, remedy=remedy)


def _memory(used_bytes: int) -> str:
    return f"; {used_bytes / 2**30:.1f} GiB of memory taken"


def _process(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return f"{pid} (in another container)"
    return f"{pid} ({name})"


def _counter(state: nvml.GpuState, watch: Callable[[str], GpuTrace]) -> Finding:
    try:
        trace = watch(state.identity.uuid)
    except MeterError as error:
        return _problem(f"GPU {state.index}: energy counter", error)
    if trace.error is not None:
        remedy = "See `dmesg | grep NVRM`, reset the GPU, and try again."
        return _finding(state, "energy counter", "problem", text=trace.error, remedy=remedy)
    watched_s = trace.readings[-1].time_s - trace.readings[0].time_s
    moves = ticks(trace.readings)
    if len(moves) < 2 or moves[-1].energy_mj <= moves[0].energy_mj:  # noqa: PLR2004  an interval
        text = f"moved {len(moves)} times in {si(watched_s, 's')} and did not rise"
        remedy = "Reload the driver (`sudo nvidia-smi --gpu-reset`); do not measure with it."
        return _finding(state, "energy counter", "problem", text=text, remedy=remedy)
    seconds = moves[-1].time_s - moves[0].time_s
    power_w = (moves[-1].energy_mj - moves[0].energy_mj) / 1000 / seconds
    tick_s = counter_tick_s(trace.readings)
    text = f"ticks every {si(tick_s, 's', 2)} and tells {si(power_w, 'W')}"
    return _finding(state, "energy counter", "ok", text=text)


def _rapl(powercap: Path) -> Finding:
    unread = "CPU and DRAM energy will not be reported"
    try:
        domains = rapl.domains(powercap)
    except OSError as error:
        remedy = "Let this user read them: `sudo chmod a+r " + f"{powercap}/*/energy_uj`."
        text = f"{error.strerror or error}; {unread}"
        return Finding(subject="RAPL", status="warning", text=text, remedy=remedy)
    if domains:
        names = f"{sum(not d.is_dram for d in domains)} CPU, {sum(d.is_dram for d in domains)}"
        return Finding(subject="RAPL", status="ok", text=f"{names} DRAM counters")
    text = f"no counters under {powercap}; {unread}"
    remedy = "On bare metal: `sudo modprobe intel_rapl_msr`. Virtual machines have none."
    return Finding(subject="RAPL", status="warning", text=text, remedy=remedy)


def _finding(
    state: nvml.GpuState, what: str, status: Status, *, text: str, remedy: str = ""
) -> Finding:
    subject = f"GPU {state.index}: {what}" if what else f"GPU {state.index}"
    return Finding(subject=subject, status=status, text=text, remedy=remedy)


def _problem(subject: str, error: MeterError) -> Finding:
    if isinstance(error, nvml.NvmlFault):
        return Finding(
            subject=subject, status="problem", text=error.reason, remedy=error.remedy
        )
    text, _, remedy = str(error).partition(". ")
    return Finding(subject=subject, status="problem", text=text, remedy=remedy)
