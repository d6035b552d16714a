"""One GPU's readings inside a window, and the limits that they are judged by."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from pytest_joules import contract
from pytest_joules.counter.ticks import counter_tick_s, energy_at_ticks, ticks
from pytest_joules.errors import MeterError
from pytest_joules.result import Reason
from pytest_joules.trace import GpuTrace, Reading


@dataclass(frozen=True, kw_only=True)
class CounterLimits:
    """What counters and GPUs may do in a valid measurement."""

    jump_over_limit: float = 1.2
    """Power between two readings over the power limit: spikes are short, this is room."""

    unknown_limit_w: float = 3000.0
    """Taken for the power limit where NVML tells none; no board draws as much."""

    stalled_ticks: float = 3.0
    """Longest time on one value, in ticks."""

    min_ticks: int = 2
    """Ticks in a window below which there is no energy; validity asks for many more."""

    idle_power_w: float | None = None
    """Measured idle power, where known; a busy GPU cannot draw less."""

    idle_share: float = 0.9
    """Mean power over idle power that is still believed."""

    min_power_share: float = 0.04
    """Mean power over the power limit that is still believed where idle is unknown. Idle
    data-centre GPUs draw 10 % and more of theirs, idle desktop cards 3 % to 5 %."""

    max_power_share: float = 1.1
    """Mean power over the power limit that is still believed: the limit holds on average,
    and boards differ by 5 % in gain."""

    disagreement: float = 0.03
    """Between counter and integral of sampled power, under load."""

    disagreement_errors: float = 3.0
    """Standard errors of the mean of the sampled power that are allowed on top."""

    load_share: float = 0.2
    """Mean power over the power limit from which on the two are compared: at idle they
    were seen to differ 1.7 times."""

    min_power_readings: int = 10
    """Samples of power below which there is nothing to compare the counter with."""

    max_power_gap_s: float = 2.0
    """Longest time without a sample of power; ten times a second is usual."""

    max_gap_s: float = 1.0
    """Longest time without a reading."""

    temperature_drift_c: float = 3.0
    """From the window's first to its last quarter; noted."""

    clock_drift: float = 0.02
    """Relative, from the window's first to its last quarter; noted."""


@dataclass(frozen=True)
class GpuWindow:
    """What the rules look at."""

    trace: GpuTrace
    start_s: float
    end_s: float
    own_pids: Collection[int]
    limits: CounterLimits

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """Readings inside the window."""
        return tuple(
            reading
            for reading in self.trace.readings
            if self.start_s <= reading.time_s <= self.end_s
        )

    @cached_property
    def tick_s(self) -> float:
        """The counter's tick over the whole trace; the window where it hardly ticks."""
        return min(counter_tick_s(self.trace.readings), self.end_s - self.start_s)

    @property
    def steps(self) -> Sequence[tuple[Reading, Reading]]:
        """Neighbouring readings."""
        return tuple(pairwise(self.readings))

    @cached_property
    def span(self) -> tuple[float, float, float] | None:
        """First tick, last tick and the joules between; ``None`` where they do not exist."""
        try:
            return energy_at_ticks(self.trace.readings, self.start_s, self.end_s)
        except MeterError:
            return None

    @cached_property
    def edge_error(self) -> float:
        """How far the span's duration may be off, relative: an edge may be seen late."""
        if self.span is None:
            return 0.0
        start_s, end_s, _ = self.span
        edges = (tick for tick in ticks(self.trace.readings) if tick.time_s in self.span[:2])
        return max(tick.uncertainty_s for tick in edges) / (end_s - start_s)

    @property
    def power_limit_w(self) -> float:
        """The GPU's power limit, or what no GPU draws."""
        return self.trace.gpu.power_limit_w or self.limits.unknown_limit_w

    def reason(self, code: str, text: str) -> Reason:
        """Name the GPU in front of what is wrong with it."""
        return contract.reason(code, f"{self.trace.gpu.uuid}: {text}")

    def values(self, name: str) -> tuple[float, ...]:
        """Return one of the slower quantities, where it was read."""
        found = (getattr(reading, name) for reading in self.readings)
        return tuple(value for value in found if value is not None)
