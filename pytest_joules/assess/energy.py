"""Joules and work units of a window, from counter readings and server counters.

A counter is a staircase: between two ticks it stands still. Edges are therefore placed on
ticks of the first GPU, where its value is exact to the reading period; the other GPUs and
the work units are interpolated linearly between their own ticks and samples there. Nothing
is ever extrapolated: a window reaches no farther than every GPU was read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytest_joules.counter.ticks import sharp_ticks
from pytest_joules.errors import LoadError, MeterError, NoSteadyState, is_expected
from pytest_joules.steady_state import Window
from pytest_joules.trace import BatchLoad, GpuTrace, Load, Reading

__tracebackhide__ = is_expected

_ROUNDING = 0.5
"""Tokens are whole: a counter that falls by less has only been added up differently."""

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
    """Return times (s) and values (J) of the counter's sharp ticks, shapes ``(n,)``.

    A tick's time is that of the first reading that shows the new value: late by at most
    one reading period, the same at both edges of a window on average.
    """
    found = sharp_ticks(readings)
    return (
        np.array([tick.time_s for tick in found]),
        np.array([tick.energy_mj for tick in found]) / 1000,
    )


def energy_curve(trace: GpuTrace) -> Curve:
    """Return a GPU's accumulated energy as a function of time, between its ticks.

    Raises:
        MeterError: The counter did not advance twice, so there is nothing to interpolate;
            or, when called, a time is before the first or after the last tick.
    """
    times, joules = ticks(trace.readings)
    if len(times) < 2:  # noqa: PLR2004  a line needs two points
        ended = f" ({trace.error})" if trace.error else ""
        raise MeterError(
            f"{trace.gpu.uuid}: the energy counter advanced {len(times)} times in "
            f"{len(trace.readings)} readings{ended}; nothing can be measured with it. Run "
            "`joules doctor`."
        )

    def curve(at: NDArray[np.float64]) -> NDArray[np.float64]:
        outside = _outside(at, times)
        if outside:
            raise MeterError(f"{trace.gpu.uuid}: the energy counter ticked {outside}.")
        values: NDArray[np.float64] = np.interp(at, times, joules)
        return values

    return curve


def work_curve(load: Load) -> Curve:
    """Return the work done as a function of time: generated tokens, or images and videos.

    Tokens are interpolated between the server's samples; of batch work each batch's units are
    spread over its duration.

    Raises:
        LoadError: There are fewer than two samples, they are not in order of time, or the
            counter fell or showed no number; or, when called, a time is before the first or
            after the last sample.
    """
    if isinstance(load, BatchLoad):
        ends = [end for batch in load.batches for end in (batch.started_s, batch.finish_s)]
        made = [load.batch_size * (index // 2) for index in range(1, len(ends) + 1)]
        times, units = np.array(ends), np.array(made, dtype=float)
    else:
        times = np.array([sample.time_s for sample in load.server])
        units = np.array([sample.output_tokens for sample in load.server])
    if len(times) < 2 or (np.diff(times) < 0).any():  # noqa: PLR2004  a line needs two points
        raise LoadError(
            f"the server's counters were read {len(times)} times, which must be twice or more "
            "and in order of time; without them no token is counted. See the server's log."
        )
    if not np.isfinite(units).all() or (np.diff(units) < -_ROUNDING).any():
        raise LoadError(
            f"the server's token counter went {_odd(units)}, but it must only rise. An engine "
            "process may have started anew: see the server's log."
        )

    def curve(at: NDArray[np.float64]) -> NDArray[np.float64]:
        outside = _outside(at, times)
        if outside:
            raise LoadError(f"the server's counters were read {outside}. See its log.")
        values: NDArray[np.float64] = np.interp(at, times, units)
        return values

    return curve


def _odd(values: NDArray[np.float64]) -> str:
    """Show the first step that is no rise."""
    step = int(np.argmin(np.diff(values) >= -_ROUNDING))  # NaN is no rise either
    return f"from {values[step]:.0f} to {values[step + 1]:.0f}"


def _outside(at: NDArray[np.float64], known_s: NDArray[np.float64]) -> str:
    """Say which times are not covered; empty where all are: ``np.interp`` would guess."""
    if at.min() >= known_s[0] and at.max() <= known_s[-1]:
        return ""
    return (
        f"from {known_s[0]:.3f} s to {known_s[-1]:.3f} s only, which does not cover "
        f"{at.min():.3f} s to {at.max():.3f} s"
    )


def window_energy(
    gpus: Sequence[GpuTrace],
    work: Curve,
    window: Window,
    *,
    sub_window_s: float = 1.0,
    ends_s: Sequence[float] = (),
) -> WindowEnergy:
    """Measure a window whose edges move inwards to the nearest counter ticks.

    Args:
        gpus: Readings of every GPU in use; the first one's ticks are the edges.
        work: Accumulated work units over time.
        window: Where to measure.
        sub_window_s: Aimed length of the series' sub-windows; where they end at given
            moments only, their least length.
        ends_s: Those moments, ascending: within a batch the power differs from phase to phase,
            so sub-windows are whole batches.

    Raises:
        MeterError: A counter does not advance, or there is none.
        LoadError: The work is not known in the whole window.
        NoSteadyState: No two ticks fall into the window, or no work was done.
    """
    if not gpus:
        raise MeterError("no GPU was read: there is no energy to measure.")
    curves = [energy_curve(gpu) for gpu in gpus]
    aims = _whole(ends_s, sub_window_s) if len(ends_s) else None
    edges = _edges(_shared_ticks(gpus), window, sub_window_s=sub_window_s, aims=aims)
    joules = np.diff(np.array([curve(edges) for curve in curves]), axis=1)
    units = np.diff(work(edges))
    if not units.sum() > 0:  # NaN, too
        raise NoSteadyState("no work unit was finished in the window; see the engine's log.")
    if joules.sum() <= 0:
        raise MeterError(
            f"the energy counters fell by {-joules.sum():.3f} J in the window; they must only "
            "rise. Keep the driver loaded (`sudo nvidia-smi -pm 1`) and measure again."
        )
    return WindowEnergy(
        window=Window(start_s=float(edges[0]), end_s=float(edges[-1])),
        gpu_energy_j=tuple(float(value) for value in joules.sum(axis=1)),
        work_units=float(units.sum()),
        series_energy_j=tuple(float(value) for value in joules.sum(axis=0)),
        series_work_units=tuple(float(value) for value in units),
    )


def _shared_ticks(gpus: Sequence[GpuTrace]) -> NDArray[np.float64]:
    """Return the first GPU's tick times that lie between the ticks of all others."""
    tick_s = [ticks(gpu.readings)[0] for gpu in gpus]
    first_s, last_s = max(each[0] for each in tick_s), min(each[-1] for each in tick_s)
    shared: NDArray[np.float64] = tick_s[0][(tick_s[0] >= first_s) & (tick_s[0] <= last_s)]
    return shared


def _whole(ends_s: Sequence[float], sub_window_s: float) -> list[float]:
    """Return those ends that lie at least one sub-window after the one chosen before."""
    chosen = [ends_s[0]]
    for end_s in ends_s[1:]:
        if end_s - chosen[-1] >= sub_window_s:
            chosen.append(end_s)
    # What is left at the end belongs to the last one: it would be shorter than the others.
    return [*(chosen[:-1] or chosen), ends_s[-1]]


def _edges(
    tick_s: NDArray[np.float64],
    window: Window,
    *,
    sub_window_s: float,
    aims: Sequence[float] | None,
) -> NDArray[np.float64]:
    inside = tick_s[(tick_s >= window.start_s) & (tick_s <= window.end_s)]
    if len(inside) < 2:  # noqa: PLR2004  a window needs two edges
        raise NoSteadyState(
            f"only {len(inside)} ticks of the energy counter fall into a window of "
            f"{window.duration_s:.2f} s; measure longer (--joules-window)."
        )
    if aims is None:
        number = max(1, int((inside[-1] - inside[0]) / sub_window_s))
        aims = np.linspace(inside[0], inside[-1], number + 1).tolist()
    chosen = inside[np.clip(np.searchsorted(inside, aims), 0, len(inside) - 1)]
    return np.unique(chosen)
