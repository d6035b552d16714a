"""What a GPU's energy and power sensors do, told from one recording: tick, averaging, gain.

Data sheets do not say it, and boards of one model differ. ``joules doctor --probe`` records
idle and, where a command is named, loaded, and prints what these functions make of it.

Source:
    Yang, Adamek, Armour: Part-time Power Measurements: nvidia-smi's Lack of Attention
    (arXiv:2312.02741): update period, averaging window and gain error of NVML's power.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

from pytest_joules.counter.ticks import counter_tick_s, energy_at_ticks, sharp_ticks
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.steady_state import Window
from pytest_joules.trace import GpuTrace, Reading

__tracebackhide__ = is_expected

LONGEST_AVERAGE_S = 3.0
"""Averaging windows are looked for up to here; NVML's longest known one is 1 s."""

_STEP = 1.5
"""Ratio of highest to lowest power without which an averaging window cannot be told."""


@dataclass(frozen=True, kw_only=True)
class LoadPhase:
    """When something ran on the GPU, steadily, and what."""

    window: Window
    pids: frozenset[int] = frozenset()
    """Its processes."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn in one phase."""

    seconds: float
    power_w: float
    """Mean, by the energy counter from tick to tick."""

    power_over_counter: float | None
    """Mean of the sampled power over ``power_w``; ``None`` where NVML tells no power."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What one GPU's sensors were seen to do."""

    uuid: str
    name: str
    driver: str
    tick_s: float
    """Median time between two changes of the energy counter."""

    resolution_j: float
    """Greatest common divisor of the counter's steps."""

    read_s: float
    """Median time that one reading of the counter took."""

    power_period_s: float | None
    """Median time between two changes of the power; ``None`` where it never changed."""

    power_window_s: float | None
    """Span that a power reading is the mean of, to one tick; ``None`` where power varied too
    little to tell."""

    idle: Draw
    load: Draw | None
    shows_load: bool | None
    """Whether NVML showed a process of the load's; ``None`` without a load."""

    other_pids: tuple[int, ...]
    """Other processes that it showed meanwhile."""


def sense(trace: GpuTrace, idle: Window, load: LoadPhase | None = None) -> Sensor:
    """Tell what the sensors did.

    Args:
        trace: Both phases and what lies between, read more often than the counter ticks.
        idle: When nothing ran on the GPU.
        load: When something did, and its processes.

    Raises:
        MeterError: The GPU could not be read, or its counter did not move in a phase.
    """
    if trace.error is not None:
        raise MeterError(f"{trace.gpu.uuid}: {trace.error}.")
    readings = trace.readings
    tick_s = counter_tick_s(readings)
    seen = _processes(readings, load.window) if load else frozenset()
    return Sensor(
        uuid=trace.gpu.uuid,
        name=trace.gpu.name,
        driver=trace.gpu.driver,
        idle=_draw(readings, idle),
        load=_draw(readings, load.window) if load else None,
        shows_load=bool(seen & load.pids) if load else None,
        other_pids=tuple(sorted(seen - load.pids)) if load else (),
        tick_s=tick_s,
        resolution_j=_resolution_j(readings),
        read_s=median(reading.took_s for reading in readings),
        power_period_s=_power_period_s(readings),
        power_window_s=_power_window_s(readings, tick_s),
    )


def _processes(readings: Sequence[Reading], phase: Window) -> frozenset[int]:
    inside = (r for r in readings if phase.holds(r.time_s))
    return frozenset(pid for reading in inside for pid in reading.process_ids or ())


def _draw(readings: Sequence[Reading], phase: Window) -> Draw:
    start_s, end_s, energy_j = energy_at_ticks(readings, phase.start_s, phase.end_s)
    power_w = energy_j / (end_s - start_s)
    sampled = [(t, w) for t, w in _power(readings) if start_s <= t <= end_s]
    ratio = None
    if len(sampled) > 1 and power_w > 0:
        times, watts = np.transpose(sampled)
        ratio = float(np.trapezoid(watts, times) / (times[-1] - times[0]) / power_w)
    return Draw(seconds=end_s - start_s, power_w=power_w, power_over_counter=ratio)


def _power(readings: Sequence[Reading]) -> list[tuple[float, float]]:
    return [(r.time_s, r.power_w) for r in readings if r.power_w is not None]


def _resolution_j(readings: Sequence[Reading]) -> float:
    steps = (after.energy_mj - before.energy_mj for before, after in pairwise(readings))
    return math.gcd(*steps) / 1000


def _power_period_s(readings: Sequence[Reading]) -> float | None:
    seen = _power(readings)
    changes = [after[0] for before, after in pairwise(seen) if after[1] != before[1]]
    gaps = [after - before for before, after in pairwise(changes)]
    return median(gaps) if gaps else None


def _power_window_s(readings: Sequence[Reading], tick_s: float) -> float | None:
    """Find the span over which the counter's mean is most like the power reading.

    The counter is the integral of power, so its mean over the right span is the reading.
    """
    moves = sharp_ticks(readings)
    at_s = np.array([tick.time_s for tick in moves])
    energy_j = np.array([tick.energy_mj / 1000 for tick in moves])
    seen = [p for p in _power(readings) if at_s[0] + LONGEST_AVERAGE_S <= p[0] <= at_s[-1]]
    if not seen or not _varies([watts for _, watts in seen]):
        return None
    times, watts = np.transpose(seen)
    spans_s = tick_s * np.arange(1, max(2, math.floor(LONGEST_AVERAGE_S / tick_s) + 1))
    now_j = np.interp(times, at_s, energy_j)
    errors = [
        float(np.mean(((now_j - np.interp(times - s, at_s, energy_j)) / s - watts) ** 2))
        for s in spans_s
    ]
    return float(spans_s[int(np.argmin(errors))])


def _varies(watts: Sequence[float]) -> bool:
    return max(watts) > _STEP * max(min(watts), 1e-9)
