"""When an energy counter ticked, and the energy between two ticks.

NVML's counter does not run, it ticks: about every 100 ms on A100 and H100. Between ticks
its value is as old as the last tick, so a window's edges are put on ticks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median

from pytest_joules.errors import MeterError
from pytest_joules.trace import Reading

_SHARP = 3.0
"""A tick is sharp if it was seen within so many usual reading periods."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The first reading that shows a new value."""

    time_s: float
    """When that reading came: late by at most ``uncertainty_s``, never early."""

    energy_mj: int
    uncertainty_s: float
    """Time since the reading before was asked for, which still showed the old value."""


class _Same:
    """Readings as a key: the very tuple, as comparing thousands costs more than a search."""

    def __init__(self, readings: tuple[Reading, ...]) -> None:
        self.readings = readings

    def __hash__(self) -> int:
        return id(self.readings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.readings is other.readings


def ticks(readings: Sequence[Reading]) -> tuple[Tick, ...]:
    """Find every change of the counter, in order of time; the first reading is none.

    Every rule of a window asks for them, so those of the last few tuples are kept.
    """
    return _kept_ticks(_Same(readings)) if isinstance(readings, tuple) else _found(readings)


@lru_cache(maxsize=8)
def _kept_ticks(same: _Same) -> tuple[Tick, ...]:
    return _found(same.readings)


def _found(readings: Sequence[Reading]) -> tuple[Tick, ...]:
    return tuple(
        Tick(
            time_s=after.time_s,
            energy_mj=after.energy_mj,
            uncertainty_s=after.time_s - (before.time_s - before.took_s),
        )
        for before, after in pairwise(readings)
        if after.energy_mj != before.energy_mj
    )


def sharp_ticks(readings: Sequence[Reading]) -> tuple[Tick, ...]:
    """Find the ticks that were seen within three usual reading periods.

    After a gap in the readings a new value may be as old as the gap, so that its time does
    not fit its energy.
    """
    periods = [after.time_s - before.time_s for before, after in pairwise(readings)]
    latest_s = _SHARP * median(periods) if periods else 0.0
    return tuple(tick for tick in ticks(readings) if tick.uncertainty_s <= latest_s)


def counter_tick_s(readings: Sequence[Reading]) -> float:
    """Estimate the counter's tick: the median time between two changes.

    A median, because a stall or a late reading must not stretch the very yardstick that it
    is judged by. Readings that are farther apart than the ticks give their own period.
    Infinite with fewer than two changes.
    """
    found = ticks(readings)
    if len(found) < 2:  # noqa: PLR2004  two points make an interval
        return math.inf
    return median(after.time_s - before.time_s for before, after in pairwise(found))


def energy_at_ticks(
    readings: Sequence[Reading], start_s: float, end_s: float
) -> tuple[float, float, float]:
    """Return the first and last tick inside ``[start_s, end_s]`` and the joules between.

    Each edge is late by up to one reading period, alike at both ends, so the span is
    uncertain by one period in the worst case (25 ms) and unbiased. Ticks seen late, after a
    gap in the readings, are passed over.

    Args:
        readings: All readings, also those around the window, in order of time.
        start_s: Earliest time of the first edge.
        end_s: Latest time of the second edge.

    Returns:
        ``(edge_start_s, edge_end_s, energy_j)``.

    Raises:
        MeterError: Fewer than two ticks are inside, or the counter fell between them.
    """
    inside = [tick for tick in ticks(readings) if start_s <= tick.time_s <= end_s]
    sharp = [tick for tick in sharp_ticks(readings) if start_s <= tick.time_s <= end_s]
    if len(sharp) < 2:  # noqa: PLR2004  a window has two edges
        raise MeterError(
            f"The energy counter ticked {len(sharp)} times in {end_s - start_s:.3g} s; a "
            "window begins and ends on a tick. Measure for longer: counters tick about "
            "every 0.1 s."
        )
    for before, after in pairwise(inside):
        if after.energy_mj < before.energy_mj:
            raise MeterError(
                f"The energy counter fell from {before.energy_mj} mJ to {after.energy_mj} mJ "
                "inside the window, so it does not tell the energy. Measure again; see "
                "whether something reloads the driver."
            )
    first, last = sharp[0], sharp[-1]
    return first.time_s, last.time_s, (last.energy_mj - first.energy_mj) / 1000
