"""Down-sampled series of one launch, for people to look at; no verdict rests on them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_joules.assess.energy import ticks
from pytest_joules.result import Series, Timeline
from pytest_joules.steady_state import Window
from pytest_joules.trace import GpuTrace, Load, LoadTrace
from pytest_joules.units import significant

MOST_STEPS = 120
MOST_BINS = 20
_DIGITS = 4
Floats = NDArray[np.floating[Any]]


def timeline(gpus: Sequence[GpuTrace], load: Load, window: Window) -> Timeline:
    """Draw power, running batch, KV cache and temperature of one launch, with its window.

    A pipeline of images or videos has no server to ask: power and temperature are drawn.
    """
    begin_s, end_s = _span(gpus)
    step_s = max(1.0, (end_s - begin_s) / MOST_STEPS)
    edges = begin_s + step_s * np.arange(max(1, math.ceil((end_s - begin_s) / step_s)) + 1)
    hottest = ((r.time_s, r.temperature_c) for gpu in gpus for r in gpu.readings)
    server, requests = (load.server, load.requests) if isinstance(load, LoadTrace) else ((), ())
    lengths = [r.output_tokens for r in requests if r.error is None]
    edges_tokens, counts = _histogram(lengths)
    return Timeline(
        step_s=step_s,
        window_start_s=window.start_s - begin_s,
        window_end_s=window.end_s - begin_s,
        power_w=_rounded(np.sum([_power_w(gpu, edges) for gpu in gpus], axis=0)),
        running=_binned(((s.time_s, s.running) for s in server), edges),
        kv_cache_usage=_binned(((s.time_s, s.kv_cache_usage) for s in server), edges),
        temperature_c=_binned(hottest, edges, highest=True),
        output_tokens_edges=edges_tokens,
        output_tokens_counts=counts,
    )


def _span(gpus: Sequence[GpuTrace]) -> tuple[float, float]:
    begin_s = min(gpu.readings[0].time_s for gpu in gpus)
    return begin_s, max(gpu.readings[-1].time_s for gpu in gpus)


def _power_w(gpu: GpuTrace, edges: Floats) -> Floats:
    """Return a GPU's mean power between edges; NaN outside its counter's ticks."""
    tick_s, joules = ticks(gpu.readings)
    if not len(tick_s):
        return np.full(len(edges) - 1, math.nan)
    inside = np.clip(edges, tick_s[0], tick_s[-1])
    spans = np.diff(inside)
    spans[spans <= 0] = math.nan
    watts: Floats = np.diff(np.interp(inside, tick_s, joules)) / spans
    return watts


def _binned(
    values: Iterable[tuple[float, float | None]], edges: Floats, *, highest: bool = False
) -> Series:
    """Reduce the values between two edges to their mean, or to the highest; () for none."""
    known = [(time_s, value) for time_s, value in values if value is not None]
    if not known:
        return ()
    at_s, seen = np.array(known).T
    place = np.digitize(at_s, edges) - 1
    bins = [seen[place == index] for index in range(len(edges) - 1)]
    reduce = np.max if highest else np.mean
    return _rounded(np.array([reduce(each) if len(each) else math.nan for each in bins]))


def _rounded(values: Floats) -> Series:
    return tuple(
        None if math.isnan(value) else significant(float(value), _DIGITS) for value in values
    )


def _histogram(lengths: Sequence[int]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return edges and counts, with as many bins as there are lengths to tell apart."""
    if not lengths:
        return (), ()
    number = min(MOST_BINS, max(lengths) - min(lengths) + 1)
    counts, edges = np.histogram(lengths, bins=number)
    return tuple(float(edge) for edge in edges), tuple(int(count) for count in counts)
