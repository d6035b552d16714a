"""Batch work: when a pipeline has warmed up, and how many batches are enough; pure.

A batch warms up as long as it differs from the one before by more than ``SETTLED``: kernels
are chosen, memory is gathered, clocks rise. The first always does. The rest are measured.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Final

from pytest_joules.errors import NoSteadyState, is_expected
from pytest_joules.trace import BatchLoad, BatchTrace

__tracebackhide__ = is_expected

SETTLED: Final = 0.05
"""Relative difference of successive latencies at which warming up ends."""

MOST_WARM_UP: Final = 30
PRECISION: Final = 0.01
"""Standard error over mean of the batch latency that is good enough."""

LONGEST_WINDOW: Final = 2.0
"""Least windows after which uneven batches are taken as they are."""

_FEW_STEPS: Final = 30


def least_batches(work_unit: str, steps: int) -> int:
    """Return how many batches a window holds at the least.

    Source:
        The published data: 8 batches with up to 30 steps, 4 with more, 2 of videos
        (ML.ENERGY Benchmark v3).
    """
    if work_unit == "video":
        return 2
    return 8 if steps <= _FEW_STEPS else 4


def num_warm_up(batches: Sequence[BatchTrace]) -> int | None:
    """Return how many leading batches warmed up; ``None`` where the latency never settled.

    It depends on the first batches only, so who runs them and who judges them agree.
    """
    for index, (before, after) in enumerate(pairwise(batches), start=1):
        if abs(after.latency_s - before.latency_s) <= SETTLED * before.latency_s:
            return index
    return None


def require_warm_up(load: BatchLoad) -> int:
    """Return how many leading batches warmed up.

    Raises:
        NoSteadyState: The latency never settled.
    """
    found = num_warm_up(load.batches)
    if found is None:
        seen = ", ".join(f"{batch.latency_s:.3f}" for batch in load.batches[-5:])
        raise NoSteadyState(
            f"the latency of {len(load.batches)} batches never settled: no two in a row were "
            f"within {SETTLED:.0%}; the last took {seen} s. Free the machine, or make batches "
            "longer (batch_size, steps)."
        )
    return found


def num_missing(
    batches: Sequence[BatchTrace], *, least: int, min_window_s: float, fixed: int | None = None
) -> int:
    """Return how many more batches to run before looking again; 0 when it is enough.

    Args:
        batches: All so far.
        least: Batches that the window must hold.
        min_window_s: How long the window must be; uneven batches make it longer.
        fixed: Where set, batches to make in all, whatever they take.
    """
    if fixed is not None:
        return fixed - len(batches)
    warm_up = num_warm_up(batches)
    if warm_up is None:
        return int(len(batches) < MOST_WARM_UP)
    measured = [batch.latency_s for batch in batches[warm_up:]]
    left_s = min_window_s - sum(measured)
    missing = max(least - len(measured), math.ceil(left_s / fmean(measured)), 0)
    is_uneven = relative_error(measured) > PRECISION
    if missing == 0 and is_uneven and sum(measured) < LONGEST_WINDOW * min_window_s:
        return math.ceil(len(measured) / 4)
    return missing


def relative_error(latencies_s: Sequence[float]) -> float:
    """Return the standard error of the mean over the mean; infinite for fewer than two."""
    if len(latencies_s) < 2:  # noqa: PLR2004  a spread needs two
        return math.inf
    return stdev(latencies_s) / math.sqrt(len(latencies_s)) / fmean(latencies_s)
