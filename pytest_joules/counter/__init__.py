"""Whether an energy counter can be believed: rules on one GPU's readings in a window.

Zeus returns negative, zero or stale energy without an error; here each of its silent
misbehaviours breaks a rule.
"""

import math
from collections.abc import Collection, Sequence
from itertools import groupby, pairwise
from statistics import fmean, stdev

from pytest_joules import contract
from pytest_joules.counter.circumstances import (
    GPU_CHANGED,
    circumstance_notes,
    circumstance_reasons,
)
from pytest_joules.counter.gpu_window import CounterLimits, GpuWindow
from pytest_joules.counter.ticks import Tick, counter_tick_s, energy_at_ticks, ticks
from pytest_joules.result import Reason
from pytest_joules.trace import GpuTrace, MeterTrace
from pytest_joules.units import percent, si

__all__ = [
    "GPU_CHANGED",
    "CounterLimits",
    "counter_notes",
    "counter_reasons",
    "counter_tick_s",
    "energy_at_ticks",
    "meter_reasons",
]


def counter_reasons(
    trace: GpuTrace,
    *,
    start_s: float,
    end_s: float,
    own_pids: Collection[int],
    limits: CounterLimits | None = None,
) -> tuple[Reason, ...]:
    """Judge one GPU's readings in ``[start_s, end_s]``; empty when they can be believed.

    Args:
        trace: All readings, also those around the window.
        start_s: Beginning of the window.
        end_s: End of the window.
        own_pids: The engine's processes; any other on the GPU is foreign.
        limits: Thresholds; the defaults are ``CounterLimits()``.
    """
    window = GpuWindow(trace, start_s, end_s, own_pids, limits or CounterLimits())
    around = circumstance_reasons(window)
    if len(window.readings) < 2:  # noqa: PLR2004  energy is a difference
        return (*around, _missing(window))
    # A counter that fell or leapt makes every mean wrong, too: one cause, one reason.
    broken = (*_falls(window), *_jumps(window), *_frozen(window), *_gaps(window))
    return (*around, *(broken or (*_coarse(window), *_implausible(window), *_checked(window))))


def counter_notes(
    trace: GpuTrace,
    *,
    start_s: float,
    end_s: float,
    own_pids: Collection[int],
    limits: CounterLimits | None = None,
) -> tuple[Reason, ...]:
    """Tell what a reader should know of the window though it invalidates nothing."""
    window = GpuWindow(trace, start_s, end_s, own_pids, limits or CounterLimits())
    return (*_unchecked(window), *circumstance_notes(window))


def meter_reasons(
    trace: MeterTrace,
    *,
    start_s: float,
    end_s: float,
    own_pids: Collection[int],
    limits: CounterLimits | None = None,
) -> tuple[Reason, ...]:
    """Judge all GPUs of a measurement, and that each is there once."""
    uuids = [gpu.gpu.uuid for gpu in trace.gpus]
    twice = tuple(
        contract.reason(
            "gpu-twice",
            f"{uuid} is in the trace {uuids.count(uuid)} times, so its energy would count as "
            "often.",
        )
        for uuid in dict.fromkeys(uuids)
        if uuids.count(uuid) > 1
    )
    judged = (
        counter_reasons(gpu, start_s=start_s, end_s=end_s, own_pids=own_pids, limits=limits)
        for gpu in trace.gpus
    )
    return (*twice, *(reason for reasons in judged for reason in reasons))


def _missing(window: GpuWindow) -> Reason:
    return window.reason(
        "counter-missing",
        f"{len(window.readings)} readings in the window of {_seconds(window)}; energy is the "
        "difference of two.",
    )


def _falls(window: GpuWindow) -> tuple[Reason, ...]:
    reasons = []
    for before, after in window.steps:
        if after.energy_mj >= before.energy_mj:
            continue
        seconds = after.time_s - before.time_s + window.tick_s
        is_reset = after.energy_mj / 1000 <= window.power_limit_w * seconds
        seen = f"the counter fell from {before.energy_mj} mJ to {after.energy_mj} mJ"
        reasons.append(
            window.reason(
                "counter-reset" if is_reset else "counter-backwards",
                f"{seen}{', beginning from zero' if is_reset else ''}; it must only rise.",
            )
        )
    return tuple(reasons[:1])


def _jumps(window: GpuWindow) -> tuple[Reason, ...]:
    # From tick to tick: a counter that stood a while may catch up.
    for before, after in pairwise((_origin(window), *ticks(window.trace.readings))):
        seconds = after.time_s - before.time_s + before.uncertainty_s
        allowed_j = window.limits.jump_over_limit * window.power_limit_w * seconds
        grown_j = (after.energy_mj - before.energy_mj) / 1000
        if window.start_s <= after.time_s <= window.end_s and grown_j > allowed_j:
            reason = window.reason(
                "counter-jump",
                f"the counter rose by {si(grown_j, 'J')} in {si(seconds, 's')}; at a power "
                f"limit of {si(window.power_limit_w, 'W')} at most {si(allowed_j, 'J')} are "
                "possible.",
            )
            return (reason,)
    return ()


def _origin(window: GpuWindow) -> Tick:
    """The first reading, whose value may already have been one tick old."""
    first = window.trace.readings[0]
    return Tick(time_s=first.time_s, energy_mj=first.energy_mj, uncertainty_s=window.tick_s)


def _frozen(window: GpuWindow) -> tuple[Reason, ...]:
    # Only readings prove a standstill, from the first that came to the last that was asked
    # for; time without readings is another rule's.
    stood_s = max(
        run[-1].time_s - run[-1].took_s - run[0].time_s
        for run in (list(same) for _, same in groupby(window.readings, lambda r: r.energy_mj))
    )
    allowed_s = window.limits.stalled_ticks * window.tick_s
    never = len({reading.energy_mj for reading in window.readings}) == 1
    if stood_s <= allowed_s and not (never and _expected_ticks(window) > 1):
        return ()
    seen = "never moved" if never else f"stood still for {si(stood_s, 's')}"
    reason = window.reason(
        "counter-frozen",
        f"the counter {seen}; its tick is {si(window.tick_s, 's')} and "
        f"{window.limits.stalled_ticks:g} ticks are allowed.",
    )
    return (reason,)


def _expected_ticks(window: GpuWindow) -> float:
    tick_s = counter_tick_s(window.trace.readings)
    return math.inf if math.isinf(tick_s) else (window.end_s - window.start_s) / tick_s


def _gaps(window: GpuWindow) -> tuple[Reason, ...]:
    times_s = [window.start_s, *(r.time_s for r in window.readings), window.end_s]
    gap_s, at_s = max((after - before, before) for before, after in pairwise(times_s))
    if gap_s <= window.limits.max_gap_s:
        return ()
    reason = window.reason(
        "meter-gap",
        f"no reading for {si(gap_s, 's')}, {si(at_s - window.start_s, 's')} into the window; "
        f"at most {si(window.limits.max_gap_s, 's')} are allowed.",
    )
    return (reason,)


def _coarse(window: GpuWindow) -> tuple[Reason, ...]:
    found = ticks(window.trace.readings)
    count = sum(window.start_s <= tick.time_s <= window.end_s for tick in found)
    if count >= window.limits.min_ticks and window.span:
        return ()
    reason = window.reason(
        "counter-coarse",
        f"the counter ticked {count} times in the window of {_seconds(window)}; at least "
        f"{window.limits.min_ticks} are needed.",
    )
    return (reason,)


def _implausible(window: GpuWindow) -> tuple[Reason, ...]:
    if window.span is None:
        return ()
    limits, mean_w = window.limits, _mean_power_w(window.span)
    least_w = limits.min_power_share * (window.trace.gpu.power_limit_w or 0.0)
    if limits.idle_power_w is not None:
        least_w = limits.idle_share * limits.idle_power_w
    most_w = limits.max_power_share * window.power_limit_w
    if least_w <= mean_w <= most_w:
        return ()
    code = "counter-below-idle" if mean_w < least_w else "counter-above-limit"
    reason = window.reason(
        code,
        f"by the counter the GPU drew {si(mean_w, 'W')} on average; between "
        f"{si(least_w, 'W')} and {si(most_w, 'W')} is possible.",
    )
    return (reason,)


def _checked(window: GpuWindow) -> tuple[Reason, ...]:
    """Compare the counter with the sampled power; where there is none, say so."""
    if window.span is None:
        return ()
    sampled = _sampled_power(window)
    if sampled is not None:
        return _differs(window, _mean_power_w(window.span), sampled)
    if not window.trace.gpu.tells_power:
        return ()
    reason = window.reason(
        "power-unseen",
        f"{len(_power_samples(window))} samples of power in {_seconds(window)}; at least "
        f"{window.limits.min_power_readings} are needed, and none missing for more than "
        f"{si(window.limits.max_power_gap_s, 's')}. Without them a counter that is off by a "
        "factor would not be seen.",
    )
    return (reason,)


def _differs(
    window: GpuWindow, counted_w: float, sampled: tuple[float, float]
) -> tuple[Reason, ...]:
    limits, (sampled_w, error_w) = window.limits, sampled
    if max(counted_w, sampled_w) < limits.load_share * window.power_limit_w:
        return ()
    error_w = limits.disagreement_errors * error_w + window.edge_error * counted_w
    allowed_w = limits.disagreement * sampled_w + error_w
    if abs(counted_w - sampled_w) <= allowed_w:
        return ()
    reason = window.reason(
        "counter-disagrees",
        f"the counter tells {si(counted_w, 'W')}, the sampled power {si(sampled_w, 'W')}: "
        f"{percent(counted_w / sampled_w - 1) if sampled_w else 'all'} apart, where "
        f"{percent(limits.disagreement)} and {si(error_w, 'W')} for sampling are "
        "allowed.",
    )
    return (reason,)


def _unchecked(window: GpuWindow) -> tuple[Reason, ...]:
    sampled = _sampled_power(window)
    if not window.trace.gpu.tells_power:
        why = "NVML says that this GPU does not tell its power"
    elif window.span is None or sampled is None:
        return ()  # a reason, not a note
    else:
        limit_w = window.limits.load_share * window.power_limit_w
        if max(_mean_power_w(window.span), sampled[0]) >= limit_w:
            return ()
        why = f"the GPU drew less than {si(limit_w, 'W')}, where they differ by nature"
    text = f"the counter was not compared with the sampled power: {why}."
    return (window.reason("counter-unchecked", text),)


def _mean_power_w(span: tuple[float, float, float]) -> float:
    start_s, end_s, energy_j = span
    return energy_j / (end_s - start_s)


def _sampled_power(window: GpuWindow) -> tuple[float, float] | None:
    """Mean of the sampled power between the counter's edges, and its standard error.

    ``None`` where samples are too few or missing for long, so that they do not stand for the
    whole span.
    """
    inside = _power_samples(window)
    if window.span is None or len(inside) < window.limits.min_power_readings:
        return None
    times_s = [window.span[0], *(time_s for time_s, _ in inside), window.span[1]]
    gap_s = max(after - before for before, after in pairwise(times_s))
    if gap_s > window.limits.max_power_gap_s:
        return None
    watts = [power_w for _, power_w in inside]
    mean_w = _trapezoid(inside) / (inside[-1][0] - inside[0][0])
    return mean_w, stdev(watts, fmean(watts)) / math.sqrt(len(watts))


def _power_samples(window: GpuWindow) -> list[tuple[float, float]]:
    start_s, end_s, _ = window.span or (window.start_s, window.end_s, 0.0)
    return [
        (r.time_s, r.power_w)
        for r in window.trace.readings
        if r.power_w is not None and start_s <= r.time_s <= end_s
    ]


def _trapezoid(points: Sequence[tuple[float, float]]) -> float:
    return sum((t1 - t0) * (p0 + p1) / 2 for (t0, p0), (t1, p1) in pairwise(points))


def _seconds(window: GpuWindow) -> str:
    return si(window.end_s - window.start_s, "s")
