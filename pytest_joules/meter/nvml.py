"""What NVML says of GPUs, through ``pynvml``: who they are and how they are.

Energy is read through Zeus, in ``sampler``; this module holds the rest. Importing it loads
``pynvml``, so it is imported where it is used.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

from pytest_joules.errors import MeterError, is_expected
from pytest_joules.meter.visible import visible_indices
from pytest_joules.trace import GpuIdentity

__tracebackhide__ = is_expected

Handle = Any
"""NVML's pointer to a device."""

Answer = TypeVar("Answer")


class NvmlFault(MeterError):
    """NVML refused: what it said, what that means, and what to do."""

    def __init__(
        self, subject: str, *, reason: str, remedy: str, is_blocked: bool = False
    ) -> None:
        super().__init__(f"{subject}: {reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.is_blocked = is_blocked
        """Whether something may stand between NVML and the driver, as a sandbox does."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """A GPU and what stands in the way of measuring it."""

    identity: GpuIdentity
    index: int
    memory_used_bytes: int | None
    persistence: bool | None
    process_ids: tuple[int, ...] | None


@contextmanager
def session() -> Iterator[None]:
    """Keep NVML open for a while.

    Raises:
        NvmlFault: NVML cannot be loaded or started.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise fault("Starting NVML", error) from error
    try:
        yield
    finally:
        # A lost GPU may break the end, too; there is nothing left to protect.
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def fault(subject: str, error: pynvml.NVMLError) -> NvmlFault:
    """Explain one of NVML's error codes."""
    reason, remedy = _FAULTS.get(error.value, _UNKNOWN)
    return NvmlFault(
        subject,
        reason=f"NVML says {str(error)!r}: {reason}",
        remedy=remedy,
        is_blocked=error.value in _BLOCKED,
    )


def unless_blocked(read: Callable[..., Answer], *args: Any) -> Answer | None:
    """Read what a measurement can do without; ``None`` where a sandbox keeps it back."""
    try:
        return read(*args)
    except NvmlFault as error:
        if error.is_blocked:
            return None
        raise


def versions() -> tuple[str, str]:
    """Return the versions of NVML and of the driver; ``session`` must be open."""
    return (
        str(_ask("NVML", pynvml.nvmlSystemGetNVMLVersion)),
        str(_ask("driver", pynvml.nvmlSystemGetDriverVersion)),
    )


def handles() -> tuple[Handle, ...]:
    """Return every GPU of the machine, by NVML index; ``session`` must be open.

    Raises:
        NvmlFault: A GPU does not answer.
        MeterError: There is no GPU.
    """
    count = pynvml.nvmlDeviceGetCount()
    if not count:
        raise MeterError(
            "NVML finds 0 GPUs: nothing can be measured on this machine. Check `nvidia-smi "
            "-L`; in a container, pass the GPUs in (--gpus all)."
        )
    return tuple(_ask(f"GPU {i}", pynvml.nvmlDeviceGetHandleByIndex, i) for i in range(count))


def visible(environ: Mapping[str, str] = os.environ) -> tuple[tuple[int, Handle], ...]:
    """Return NVML index and handle of the GPUs that CUDA would see, in its order.

    Raises:
        MeterError: There is none, or ``CUDA_VISIBLE_DEVICES`` is wrong.
    """
    found = handles()
    uuids = [uuid(handle) for handle in found]
    names = [_ask(uuids[i], pynvml.nvmlDeviceGetName, found[i]) for i in range(len(found))]
    return tuple((i, found[i]) for i in visible_indices(environ, uuids, names))


def uuid(handle: Handle) -> str:
    """Return what names the GPU wherever it is plugged."""
    return str(_ask("GPU", pynvml.nvmlDeviceGetUUID, handle))


def identity(handle: Handle) -> GpuIdentity:
    """Return which GPU it is.

    Raises:
        NvmlFault: It does not answer.
    """
    name = uuid(handle)
    return GpuIdentity(
        uuid=name,
        name=_ask(name, pynvml.nvmlDeviceGetName, handle),
        memory_bytes=_ask(name, pynvml.nvmlDeviceGetMemoryInfo, handle).total,
        power_limit_w=unless_blocked(power_limit_w, handle, name),
        mig=mig(handle, name),
        driver=_ask("driver", pynvml.nvmlSystemGetDriverVersion),
        tells_power=_tells_power(handle),
        links=_links(name, handle),
    )


_ANCESTORS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: "board",
    pynvml.NVML_TOPOLOGY_SINGLE: "switch",
    pynvml.NVML_TOPOLOGY_MULTIPLE: "switches",
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "host-bridge",
    pynvml.NVML_TOPOLOGY_NODE: "numa-node",
    pynvml.NVML_TOPOLOGY_SYSTEM: "system",
}
"""What two GPUs have in common, from near to far (nvml.h, ``nvmlGpuTopologyLevel_t``)."""


def _links(name: str, handle: Handle) -> tuple[tuple[str, str], ...]:
    try:
        others = {uuid(other): other for other in handles()}
        found = {each: _link(handle, others[each]) for each in sorted(others) if each != name}
    except MeterError:
        return ()  # another GPU's fault must not keep this one from being read
    return tuple((each, kind) for each, kind in found.items() if kind)


def _link(handle: Handle, other: Handle) -> str:
    """Say how two GPUs are connected; empty where NVML does not tell."""
    by_nvlink = _ask_or_none(
        "links", pynvml.nvmlDeviceGetP2PStatus, handle, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    )
    if by_nvlink == pynvml.NVML_P2P_STATUS_OK:
        return f"nvlink-{_active_nvlinks(handle)}"
    level = _ask_or_none("topology", pynvml.nvmlDeviceGetTopologyCommonAncestor, handle, other)
    return _ANCESTORS.get(level, "")


def _active_nvlinks(handle: Handle) -> int:
    """Count the links that are up: a board may have lost some."""
    count = 0
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        try:
            count += bool(pynvml.nvmlDeviceGetNvLinkState(handle, link))
        except pynvml.NVMLError as error:
            if error.value not in (*_NOT_OFFERED, pynvml.NVML_ERROR_INVALID_ARGUMENT):
                raise fault("links", error) from error
    return count


def _tells_power(handle: Handle) -> bool:
    # Only where NVML itself says "not supported": a missing permission has a remedy.
    try:
        pynvml.nvmlDeviceGetPowerUsage(handle)
    except pynvml.NVMLError as error:
        return bool(error.value != pynvml.NVML_ERROR_NOT_SUPPORTED)
    return True


def state(index: int, handle: Handle) -> GpuState:
    """Return what a doctor asks of one GPU."""
    name = uuid(handle)
    persistence = unless_blocked(
        _ask_or_none, name, pynvml.nvmlDeviceGetPersistenceMode, handle
    )
    return GpuState(
        identity=identity(handle),
        index=index,
        memory_used_bytes=memory_used_bytes(handle),
        persistence=None if persistence is None else bool(persistence),
        process_ids=unless_blocked(process_ids, handle),
    )


def power_limit_w(handle: Handle, subject: str = "power limit") -> float | None:
    """Return the power limit that is enforced."""
    milliwatts = _ask_or_none(subject, pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return None if milliwatts is None else milliwatts / 1000


def mig(handle: Handle, subject: str = "MIG mode") -> bool:
    """Return whether MIG mode is on; a GPU that does not offer it has it off."""
    modes = _ask_or_none(subject, pynvml.nvmlDeviceGetMigMode, handle)
    return bool(modes and modes[0] == pynvml.NVML_DEVICE_MIG_ENABLE)


def power_w(handle: Handle) -> float | None:
    """Return the power drawn: on most GPUs since Ampere the mean of the last second."""
    milliwatts = _ask_or_none("power", pynvml.nvmlDeviceGetPowerUsage, handle)
    return None if milliwatts is None else milliwatts / 1000


def temperature_c(handle: Handle) -> float | None:
    """Return the GPU's temperature."""
    value = _ask_or_none(
        "temperature", pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU
    )
    if value is None:  # the same quantity, by the name that drivers before 565 know
        value = _ask_or_none(
            "temperature", pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
        )
    return None if value is None else float(value)


def sm_clock_hz(handle: Handle) -> float | None:
    """Return the clock of the multiprocessors."""
    return _clock_hz(handle, pynvml.NVML_CLOCK_SM)


def memory_clock_hz(handle: Handle) -> float | None:
    """Return the clock of the memory."""
    return _clock_hz(handle, pynvml.NVML_CLOCK_MEM)


def clock_event_reasons(handle: Handle) -> int | None:
    """Return the bits of why clocks are not at their highest."""
    reasons: int | None = _ask_or_none(
        "clocks", pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle
    )
    return reasons


def busy_share(handle: Handle) -> float | None:
    """Return the share of NVML's last sample period in which any kernel ran, 0 to 1."""
    rates = _ask_or_none("utilization", pynvml.nvmlDeviceGetUtilizationRates, handle)
    return None if rates is None else rates.gpu / 100


def memory_used_bytes(handle: Handle) -> int | None:
    """Return the memory that is taken."""
    memory = _ask_or_none("memory", pynvml.nvmlDeviceGetMemoryInfo, handle)
    return None if memory is None else int(memory.used)


def process_ids(handle: Handle) -> tuple[int, ...] | None:
    """Return the processes on the GPU, computing or drawing."""
    found = [
        _ask_or_none("processes", ask, handle)
        for ask in (
            pynvml.nvmlDeviceGetComputeRunningProcesses,
            pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        )
    ]
    if found[0] is None:
        return None
    return tuple(sorted({process.pid for some in found for process in some or ()}))


def _clock_hz(handle: Handle, which: int) -> float | None:
    megahertz = _ask_or_none("clocks", pynvml.nvmlDeviceGetClockInfo, handle, which)
    return None if megahertz is None else megahertz * 1e6


def _ask(subject: str, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except pynvml.NVMLError as error:
        raise fault(subject, error) from error


def _ask_or_none(subject: str, call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except pynvml.NVMLError as error:
        if error.value in _NOT_OFFERED:
            return None
        raise fault(subject, error) from error


_NOT_OFFERED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
)
_BLOCKED = (pynvml.NVML_ERROR_OPERATING_SYSTEM, pynvml.NVML_ERROR_UNKNOWN)
"""What NVML says where a sandbox does not pass a question on to the driver: "blocked by the
operating system" (gVisor, google/gvisor#10676), or it does not know what went wrong."""

_RELOAD = "Reboot, or reload the driver (`sudo modprobe nvidia`), until `nvidia-smi` works."
_UNKNOWN = ("an error without a known remedy", "See `nvidia-smi -q` and `dmesg | grep NVRM`.")
_FAULTS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 cannot be loaded, so no energy can be read",
        "Install NVIDIA's driver; in a container, use the NVIDIA runtime (--gpus all).",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: ("NVIDIA's kernel driver is not loaded", _RELOAD),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "library and kernel driver are of different versions",
        _RELOAD,
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "this user may not read it",
        "Give this user access to /dev/nvidia* or run as one who has it.",
    ),
    pynvml.NVML_ERROR_OPERATING_SYSTEM: (
        "the system, or a sandbox around this process, does not pass the question on",
        "Measure outside the sandbox, or in a container or virtual machine that has the GPU.",
    ),
    pynvml.NVML_ERROR_NOT_SUPPORTED: (
        "this GPU does not offer it; energy counters exist since Volta",
        "Measure on a data-centre GPU of Volta or newer, without virtual GPUs.",
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "the GPU fell off the bus",
        "Reset the machine and look for Xid errors in `dmesg`; the board may be failing.",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        "the GPU needs a reset",
        "Run `sudo nvidia-smi --gpu-reset`.",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "the driver is too old for this question",
        "Install a newer NVIDIA driver.",
    ),
}
