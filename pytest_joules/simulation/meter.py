"""A virtual machine's GPUs: their power over time, and the counters that integrate it.

Counters advance in ticks and in whole millijoules, as real ones do, and are read every half
tick. Shared by the public fakes and by the simulated source.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_joules import catalog
from pytest_joules.counter.circumstances import POWER_CAP
from pytest_joules.trace import GpuIdentity, GpuTrace, MeterTrace, Reading

TICK_S = 0.1
"""The counter's update period."""

ENGINE_PID = 4242
FULL_CLOCK_HZ = 1.98e9
_SLOW_EVERY = 5
"""Clocks, temperature and the like are read in every fifth reading."""

Array = NDArray[np.float64]


@dataclass(kw_only=True)
class Clock:
    """Virtual time, shared by everything on one machine."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one GPU drew and did between ``edges_s``; constant between neighbours."""

    edges_s: Array
    """Shape ``(n + 1,)``."""

    power_w: Array
    """Shape ``(n,)``, as all below."""

    clock_hz: Array
    busy_share: Array
    is_capped: Array


@dataclass(kw_only=True)
class VirtualGpus:
    """Equal GPUs; each draws what it is told, and idles in between."""

    gpu: str
    clock: Clock
    label: str = "fake"
    """Stands in UUIDs and driver, so that nobody takes them for a machine's."""

    num_gpus: int = 8
    idle_w: float = 150.0
    power_limit_factor: float = 1.0
    full_clock_hz: float = FULL_CLOCK_HZ
    held_memory_bytes: int = 0
    foreign_pids: tuple[int, ...] = ()
    draws: list[Draw] = field(default_factory=list)

    @property
    def power_limit_w(self) -> float:
        known = catalog.gpu(self.gpu)
        return (known.tdp_w if known else 700.0) * self.power_limit_factor

    def identify(self) -> tuple[GpuIdentity, ...]:
        """Return the GPUs, as a meter does."""
        known = catalog.gpu(self.gpu)
        return tuple(
            GpuIdentity(
                uuid=f"GPU-{self.label}-{self.gpu}-{index}",
                name=known.nvml_names[0] if known else self.gpu,
                memory_bytes=int((known.memory_gib if known else 80) * 2**30),
                power_limit_w=self.power_limit_w,
                mig=False,
                driver=self.label,
            )
            for index in range(self.num_gpus)
        )

    @contextmanager
    def recording(self, uuids: Sequence[str]) -> Iterator["VirtualRecording"]:
        """Record counters from entering to leaving, as a meter does."""
        recording = VirtualRecording(gpus=self, uuids=tuple(uuids), start_s=self.clock.now_s)
        self.clock.now_s += 2 * TICK_S
        yield recording
        self.clock.now_s += 2 * TICK_S
        recording.end_s = self.clock.now_s

    def energy_j(self, times_s: Array) -> Array:
        """Return one GPU's energy since time 0."""
        joules = self.idle_w * times_s
        for draw in self.draws:
            over_j = np.concatenate(
                ([0.0], np.cumsum((draw.power_w - self.idle_w) * np.diff(draw.edges_s)))
            )
            joules += np.interp(times_s, draw.edges_s, over_j)
        return joules

    def state(self, times_s: Array) -> tuple[Array, Array, Array, Array]:
        """Return one GPU's power, SM clock, busy share and whether its power is capped."""
        power_w = np.full_like(times_s, self.idle_w)
        clock_hz = np.full_like(times_s, self.full_clock_hz)
        busy, capped = np.zeros_like(times_s), np.zeros_like(times_s)
        for draw in self.draws:
            at = np.searchsorted(draw.edges_s, times_s, side="right") - 1
            inside = (at >= 0) & (at < len(draw.power_w))
            chosen = at[inside]
            power_w[inside], clock_hz[inside] = draw.power_w[chosen], draw.clock_hz[chosen]
            busy[inside], capped[inside] = draw.busy_share[chosen], draw.is_capped[chosen]
        return power_w, clock_hz, busy, capped


@dataclass(kw_only=True)
class VirtualRecording:
    """Counter readings of a span of virtual time."""

    gpus: VirtualGpus
    uuids: tuple[str, ...]
    start_s: float
    end_s: float = 0.0

    def trace(self) -> MeterTrace:
        """Return the readings of every GPU asked for."""
        readings = tuple(self._readings())
        chosen = [gpu for gpu in self.gpus.identify() if gpu.uuid in self.uuids]
        return MeterTrace(gpus=tuple(GpuTrace(gpu=gpu, readings=readings) for gpu in chosen))

    def energy_so_far_j(self) -> float:
        """Return what the GPUs have drawn since it began."""
        times_s: Array = np.array([self.start_s, self.gpus.clock.now_s])
        begun_j, now_j = self.gpus.energy_j(times_s)
        return len(self.uuids) * float(now_j - begun_j)

    def _readings(self) -> Iterator[Reading]:
        number = round((self.end_s - self.start_s) / (TICK_S / 2))
        times_s: Array = self.start_s + TICK_S / 2 * np.arange(number + 1, dtype=np.float64)
        ticks_s = np.floor(times_s / TICK_S + 1e-6) * TICK_S
        energy_mj = np.rint(1000 * self.gpus.energy_j(ticks_s)).astype(int)
        power_w, clock_hz, busy, capped = self.gpus.state(times_s)
        rows = zip(times_s, energy_mj, power_w, strict=True)
        for index, (time_s, millijoules, watts) in enumerate(rows):
            slow: dict[str, Any] = {}
            if index % _SLOW_EVERY == 0:
                slow = {
                    "temperature_c": 60.0,
                    "sm_clock_hz": float(clock_hz[index]),
                    "memory_clock_hz": 2.6e9,
                    "clock_event_reasons": POWER_CAP * int(capped[index]),
                    "busy_share": round(float(busy[index]), 2),
                    "memory_used_bytes": self.gpus.held_memory_bytes,
                    "process_ids": (ENGINE_PID, *self.gpus.foreign_pids),
                }
            yield Reading(
                time_s=float(time_s),
                took_s=0.0001,
                energy_mj=int(millijoules),
                power_w=float(watts),
                **slow,
            )
