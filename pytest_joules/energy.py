"""Joules and work units of a window, from counter readings and server counters.

A counter is a staircase: between two ticks it stands still. Edges are therefore placed on
ticks of the first GPU, where its value is exact to the reading period; the other GPUs and
the work units are interpolated linearly between their own ticks and samples there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_joules.errors import MeterError, NoSteadyState
from pytest_joules.steady_state import Window
from pytest_joules.trace import GpuTrace, LoadTrace, Reading

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Maps times, shape ``(n,)`` in seconds, to accumulated values, shape ``(n,)``."""


@dataclass(frozen=True, kw_only=True)
class WindowEnergy:
    """Energy and work of one window with its edges on counter ticks."""

    window: Window
    gpu_energy_j: tuple[float, ...]
    """Joules of each GPU, in the trace's order."""

    work_units: float
    series_energy_j: tuple[float, ...]
    """Joules of all GPUs in consecutive sub-windows, shape ``(n,)``."""

    series_work_units: tuple[float, ...]

    @property
    def energy_per_work_unit_j(self) -> float:
        return sum(self.gpu_energy_j) / self.work_units


def ticks(readings: Sequence[Reading]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return times (s) and values (J) at which the counter advanced, shapes ``(n,)``.

    A tick's time is that of the first reading that shows the new value: late by at most
    one reading period, the same at both edges of a window on average.
    """
    time_s = np.array([reading.time_s for reading in readings])
    energy_j = np.array([reading.energy_mj for reading in readings]) / 1000
    advanced = np.flatnonzero(np.diff(energy_j) != 0) + 1
    return time_s[advanced], energy_j[advanced]


def energy_curve(trace: GpuTrace) -> Curve:
    """Return a GPU's accumulated energy as a function of time.

    Raises:
        MeterError: The counter did not advance twice, so there is nothing to interpolate.
    """
    times, joules = ticks(trace.readings)
    if len(times) < 2:  # noqa: PLR2004  a line needs two points
        raise MeterError(
            f"{trace.gpu.uuid}: the energy counter advanced {len(times)} times in "
            f"{len(trace.readings)} readings; nothing can be measured with it. Run "
            "`joules doctor`."
        )
    return lambda at: np.interp(at, times, joules)


def work_curve(load: LoadTrace) -> Curve:
    """Return the server's generated tokens as a function of time."""
    times = np.array([sample.time_s for sample in load.server])
    tokens = np.array([sample.output_tokens for sample in load.server])
    return lambda at: np.interp(at, times, tokens)


def window_energy(
    gpus: Sequence[GpuTrace], work: Curve, window: Window, *, sub_window_s: float = 1.0
) -> WindowEnergy:
    """Measure a window whose edges move inwards to the nearest counter ticks.

    Args:
        gpus: Readings of every GPU in use; the first one's ticks are the edges.
        work: Accumulated work units over time.
        window: Where to measure.
        sub_window_s: Aimed length of the series' sub-windows.

    Raises:
        MeterError: A counter does not advance.
        NoSteadyState: No two ticks fall into the window, or no work was done.
    """
    curves = [energy_curve(gpu) for gpu in gpus]
    edges = _edges(ticks(gpus[0].readings)[0], window, sub_window_s)
    joules = np.diff(np.array([curve(edges) for curve in curves]), axis=1)
    units = np.diff(work(edges))
    if units.sum() <= 0:
        raise NoSteadyState("no work unit was finished in the window; see the engine's log.")
    return WindowEnergy(
        window=Window(start_s=float(edges[0]), end_s=float(edges[-1])),
        gpu_energy_j=tuple(float(value) for value in joules.sum(axis=1)),
        work_units=float(units.sum()),
        series_energy_j=tuple(float(value) for value in joules.sum(axis=0)),
        series_work_units=tuple(float(value) for value in units),
    )


def _edges(
    tick_s: NDArray[np.float64], window: Window, sub_window_s: float
) -> NDArray[np.float64]:
    inside = tick_s[(tick_s >= window.start_s) & (tick_s <= window.end_s)]
    if len(inside) < 2:  # noqa: PLR2004  a window needs two edges
        raise NoSteadyState(
            f"only {len(inside)} ticks of the energy counter fall into a window of "
            f"{window.duration_s:.2f} s; measure longer (--joules-window)."
        )
    number = max(1, int((inside[-1] - inside[0]) / sub_window_s))
    aims = np.linspace(inside[0], inside[-1], number + 1)
    chosen = inside[np.clip(np.searchsorted(inside, aims), 0, len(inside) - 1)]
    return np.unique(chosen)
