"""What went on around a GPU while its energy was counted: who used it, what held it back."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from statistics import fmean

from pytest_joules.counter.gpu_window import GpuWindow
from pytest_joules.result import Reason
from pytest_joules.units import percent, si

GPU_CHANGED = "GPU changed while recording"
"""How ``GpuTrace.error`` begins when power limit, MIG mode or driver changed meanwhile."""

POWER_CAP = 0x4
"""Bit of NVML's clock-event reasons: the power limit, which is normal under load."""

BRAKES = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of NVML's clock-event reasons that mean a fault of the machine.

Source:
    nvml.h, ``nvmlClocksEventReason*``. Idle, set clocks, the power cap, boost groups and
    displays (1, 2, 4, 16, 256) are no faults.
"""

_LEAST_FOR_DRIFT = 8


def circumstance_reasons(window: GpuWindow) -> tuple[Reason, ...]:
    """Tell what makes the window's energy another GPU's, another user's or a fault's."""
    changed = _stopped(window) or _changed(window)
    return (*changed, *_mig(window), *_foreign(window), *_brakes(window))


def circumstance_notes(window: GpuWindow) -> tuple[Reason, ...]:
    """Tell what was not seen, what drifted, and whether the power cap held clocks down."""
    return (
        *_unseen(window),
        *_power_cap(window),
        *_temperature_drift(window),
        *_clock_drift(window),
    )


def _stopped(window: GpuWindow) -> tuple[Reason, ...]:
    error = window.trace.error
    if error is None:
        return ()
    if error.startswith(GPU_CHANGED):
        return (window.reason("gpu-changed", f"{error}."),)
    code = "gpu-lost" if "lost" in error.lower() else "meter-stopped"
    return (window.reason(code, f"reading ended early: {error.rstrip('.')}."),)


def _changed(window: GpuWindow) -> tuple[Reason, ...]:
    """Find settings that somebody changed and set back before the recording ended."""
    for name in ("power_limit_w", "mig"):
        known = getattr(window.trace.gpu, name)
        other = next((value for value in window.values(name) if value != known), None)
        if None not in (known, other):
            text = f"{GPU_CHANGED}: {name} was {known}, meanwhile {other}."
            return (window.reason("gpu-changed", text),)
    return ()


def _mig(window: GpuWindow) -> tuple[Reason, ...]:
    if not window.trace.gpu.mig:
        return ()
    text = "MIG mode is on, and the counter tells the energy of all slices together."
    return (window.reason("mig-on", text),)


def _foreign(window: GpuWindow) -> tuple[Reason, ...]:
    seen = {pid for reading in window.readings for pid in reading.process_ids or ()}
    foreign = sorted(seen - set(window.own_pids))
    if not foreign:
        return ()
    text = (
        f"{_plural('process', foreign)} {', '.join(map(str, foreign))} used the GPU and "
        f"{'is' if len(foreign) == 1 else 'are'} not the engine's, so the energy is not the "
        "engine's alone."
    )
    return (window.reason("foreign-process", text),)


def _plural(noun: str, things: Sequence[object]) -> str:
    return noun if len(things) == 1 else f"{noun}es"


def _brakes(window: GpuWindow) -> tuple[Reason, ...]:
    masks = [int(mask) for mask in window.values("clock_event_reasons")]
    seen = reduce(or_, masks, 0)
    names = [name for bit, name in BRAKES.items() if seen & bit]
    if not names:
        return ()
    braked = sum(bool(mask & reduce(or_, BRAKES)) for mask in masks)
    text = (
        f"{' and '.join(names)} held the clocks down in {braked} of {len(masks)} readings "
        f"(mask {seen:#x}); none is allowed."
    )
    return (window.reason("clock-brake", text),)


def _unseen(window: GpuWindow) -> tuple[Reason, ...]:
    notes = []
    lists = [r.process_ids for r in window.readings if r.process_ids is not None]
    if not any(set(pids) & set(window.own_pids) for pids in lists):
        text = (
            "NVML did not show the engine's own processes on the GPU, so it may hide foreign "
            "ones, too."
        )
        notes.append(window.reason("processes-unseen", text))
    if not window.values("clock_event_reasons"):
        text = "NVML did not tell why clocks were held down."
        notes.append(window.reason("clocks-unseen", text))
    return tuple(notes)


def _power_cap(window: GpuWindow) -> tuple[Reason, ...]:
    masks = [int(mask) for mask in window.values("clock_event_reasons")]
    capped = sum(bool(mask & POWER_CAP) for mask in masks)
    if not capped:
        return ()
    text = f"the power limit held the clocks down in {capped} of {len(masks)} readings."
    return (window.reason("power-capped", text),)


def _temperature_drift(window: GpuWindow) -> tuple[Reason, ...]:
    first, last = _quarters(window.values("temperature_c"))
    if abs(last - first) <= window.limits.temperature_drift_c:
        return ()
    text = (
        f"temperature went from {first:.1f} C in the first quarter of the window to "
        f"{last:.1f} C in the last."
    )
    return (window.reason("temperature-drift", text),)


def _clock_drift(window: GpuWindow) -> tuple[Reason, ...]:
    first, last = _quarters(window.values("sm_clock_hz"))
    if not first or abs(last / first - 1) <= window.limits.clock_drift:
        return ()
    text = (
        f"the SM clock went from {si(first, 'Hz', 4)} in the first quarter of the window to "
        f"{si(last, 'Hz', 4)} in the last ({percent(last / first - 1)})."
    )
    return (window.reason("clock-drift", text),)


def _quarters(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the first and the last quarter; equal where there are too few to tell."""
    if len(values) < _LEAST_FOR_DRIFT:
        return (0.0, 0.0)
    size = len(values) // 4
    return fmean(values[:size]), fmean(values[-size:])
