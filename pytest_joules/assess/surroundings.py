"""What went on around a window: what the diagnosis needs beside energy and work."""

from collections.abc import Sequence
from statistics import fmean

from pytest_joules.counter.circumstances import POWER_CAP
from pytest_joules.steady_state import Window
from pytest_joules.trace import LoadTrace, MeterTrace, Reading, RequestTrace, ServerSample


def mean_in_flight(load: LoadTrace, window: Window) -> float:
    """Return how many requests the client waited for, time-weighted over the window."""
    return sum(_overlap_s(r, window) for r in load.requests) / window.duration_s


def _overlap_s(request: RequestTrace, window: Window) -> float:
    return max(0.0, min(request.finish_s, window.end_s) - max(request.sent_s, window.start_s))


def mean_prompt_tokens(load: LoadTrace) -> float | None:
    """Return the mean prompt of answered requests; ``None`` where none was answered."""
    answered = [r.prompt_tokens for r in load.requests if r.error is None]
    return fmean(answered) if answered else None


def rise(samples: Sequence[ServerSample], window: Window, name: str) -> float | None:
    """Return by how much a counter rose in the window; ``None`` where it was not read."""
    found = [getattr(s, name) for s in samples if window.holds(s.time_s)]
    seen = [value for value in found if value is not None]
    return float(seen[-1] - seen[0]) if seen else None


def idle_power_w(meter: MeterTrace, began_s: float) -> float | None:
    """Return the power of all GPUs before the load began; ``None`` where one was not read.

    The lowest reading of each: NVML's power is a mean of the last second, so the first may
    still hold what went on before.
    """
    lowest = [
        min(watts, default=None)
        for watts in (
            [r.power_w for r in g.readings if r.power_w is not None and r.time_s < began_s]
            for g in meter.gpus
        )
    ]
    known = [watts for watts in lowest if watts is not None]
    return sum(known) if known and len(known) == len(lowest) else None


def busy_share(readings: Sequence[Reading]) -> float | None:
    """Return the mean share of time in which kernels ran; ``None`` where nothing told it."""
    shares = [r.busy_share for r in readings if r.busy_share is not None]
    return fmean(shares) if shares else None


def power_capped_share(readings: Sequence[Reading]) -> float | None:
    """Return the share of readings that name the power limit as what holds clocks down."""
    masks = [r.clock_event_reasons for r in readings if r.clock_event_reasons is not None]
    return fmean(bool(mask & POWER_CAP) for mask in masks) if masks else None
