"""The contract a measurement must meet; every broken rule is a reason on the result.

A result with reasons can be neither passed nor recorded. Rules on the energy counter are
in ``counter``; this module adds those on load, window and engine, and lists all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from pytest_joules.counter import COUNTER_RULES
from pytest_joules.energy import WindowEnergy
from pytest_joules.procedure import SHORTEST_TRUSTED_WINDOW_S, Procedure
from pytest_joules.result import Reason
from pytest_joules.steady_state import Window, full_batch_window
from pytest_joules.trace import LoadTrace, ServerSample
from pytest_joules.units import percent

LOAD_RULES: Mapping[str, str] = {
    "window-short": "steady state shorter than the least window or too few counter ticks",
    "window-late": "the ramp-up took more than half of the time with a full batch",
    "batch-starved": "achieved mean batch below 85 % of the asked one",
    "request-failed": "a request failed",
    "tokens-disagree": "server and client token counts differ by more than 0.5 %",
    "client-lagged": "the load generator's event loop was held up",
    "client-busy": "the load generator used more than one core",
    "scrape-slow": "the server's counters answered too slowly at a window's edge",
}

LOAD_NOTES: Mapping[str, str] = {
    "window-user-short": "window shorter than 30 s because the user asked for it",
    "window-drift": "first and last quarter differ by more than 2 % in energy per work unit",
    "preempted": "the engine preempted requests: the KV cache is too small for this batch",
}

COUNTER_NOTES: Mapping[str, str] = {
    "counter-unchecked": "the counter was not compared with the sampled power",
    "processes-unseen": "NVML did not show the engine's own processes",
    "clocks-unseen": "NVML did not tell why clocks were held down",
    "power-capped": "the power limit held the clocks down",
    "temperature-drift": "the GPU's temperature drifted within the window",
    "clock-drift": "the SM clock drifted within the window",
}

RULES: Mapping[str, str] = {**COUNTER_RULES, **LOAD_RULES}
"""Every rule that makes a measurement invalid, by reason code."""

NOTES: Mapping[str, str] = {**COUNTER_NOTES, **LOAD_NOTES}
"""Everything that is noted though it invalidates nothing, by code."""


def load_reasons(
    load: LoadTrace, window: Window, procedure: Procedure, *, num_ticks: int
) -> tuple[Reason, ...]:
    """Return every rule on load and window that the measurement broke.

    Args:
        load: What client and server recorded.
        window: The steady state.
        procedure: Thresholds.
        num_ticks: Ticks of the energy counter in the window.
    """
    return (
        *_window_reasons(load, window, procedure, num_ticks=num_ticks),
        *_batch_reasons(load, window, procedure),
        *_request_reasons(load, procedure),
        *_client_reasons(load, procedure),
        *_scrape_reasons(load, window, procedure),
    )


def load_notes(
    load: LoadTrace, measured: WindowEnergy, procedure: Procedure
) -> tuple[Reason, ...]:
    """Return what a reader should know though it invalidates nothing."""
    return (
        *_short_note(measured.window),
        *_drift_note(measured, procedure),
        *_preemption_note(load, measured.window),
    )


def mean_batch_size(samples: Sequence[ServerSample], window: Window) -> float | None:
    """Return the time-weighted mean of running requests in the window; see below."""
    return time_weighted_mean(samples, window, "running")


def time_weighted_mean(
    samples: Sequence[ServerSample], window: Window, name: Literal["running", "waiting"]
) -> float | None:
    """Return the time-weighted mean of a count in the window.

    ``None`` with fewer than two samples there. Weighted, because a busy server answers late,
    so that samples are fewest when it is fullest.
    """
    inside = [s for s in samples if window.holds(s.time_s)]
    if len(inside) < 2 or inside[0].time_s == inside[-1].time_s:  # noqa: PLR2004  a span
        return None
    area = sum(
        (after.time_s - before.time_s) * (getattr(before, name) + getattr(after, name)) / 2
        for before, after in pairwise(inside)
    )
    return float(area / (inside[-1].time_s - inside[0].time_s))


def _window_reasons(
    load: LoadTrace, window: Window, procedure: Procedure, *, num_ticks: int
) -> Iterator[Reason]:
    least_s, least_ticks = procedure.least_window_s, procedure.least_ticks
    if window.duration_s < least_s or num_ticks < least_ticks:
        yield Reason(
            code="window-short",
            text=f"steady state of {window.duration_s:.1f} s with {num_ticks} counter ticks; "
            f"at least {least_s:g} s and {least_ticks} ticks are needed. Offer more requests "
            "(num_requests) or a longer window (--joules-window).",
        )
    full = full_batch_window(load)
    cut = (window.start_s - full.start_s) / full.duration_s
    if cut >= procedure.largest_cut:
        yield Reason(
            code="window-late",
            text=f"the ramp-up took {cut:.0%} of the time with a full batch, less than "
            f"{procedure.largest_cut:.0%} is trusted. Offer more requests.",
        )


def _batch_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    batch, asked = mean_batch_size(load.server, window), load.max_concurrency
    # Asked the other way round, NaN would pass; so below.
    if batch is None or not batch >= procedure.least_batch_share * asked:
        achieved = "nothing was sampled" if batch is None else f"{batch:.1f} running on average"
        yield Reason(
            code="batch-starved",
            text=f"asked for a batch of {asked}, {achieved}; at least "
            f"{procedure.least_batch_share:.0%} is needed. The KV cache may be too small, "
            "another client may hold slots, or the CPU cannot feed the GPU.",
        )


def _request_reasons(load: LoadTrace, procedure: Procedure) -> Iterator[Reason]:
    failed = [request for request in load.requests if request.error is not None]
    if failed:
        yield Reason(
            code="request-failed",
            text=f"{len(failed)} of {len(load.requests)} requests failed; the first, number "
            f"{failed[0].index}: {failed[0].error}. See the engine's log.",
        )
    client = sum(request.output_tokens for request in load.requests)
    server = load.server[-1].output_tokens - load.server[0].output_tokens
    if not abs(server - client) <= procedure.token_disagreement * max(client, 1):
        yield Reason(
            code="tokens-disagree",
            text=f"the server counted {server:.0f} output tokens, its answers sum to {client}; "
            f"they may differ by {procedure.token_disagreement:.1%}. Another client may be "
            "using the server.",
        )


def _client_reasons(load: LoadTrace, procedure: Procedure) -> Iterator[Reason]:
    if not load.client_lag_s <= procedure.largest_client_lag_s:
        yield Reason(
            code="client-lagged",
            text=f"the load generator stood still for {load.client_lag_s:.2f} s, at most "
            f"{procedure.largest_client_lag_s:g} s is trusted. Free a CPU core for it.",
        )
    lasted_s = load.ended_s - load.started_s
    cores = load.client_cpu_s / lasted_s if lasted_s > 0 else float("inf")
    if not cores <= procedure.largest_client_cores:
        yield Reason(
            code="client-busy",
            text=f"the load generator used {cores:.2f} cores, at most "
            f"{procedure.largest_client_cores:g} is trusted.",
        )


def _scrape_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    for edge_s in (window.start_s, window.end_s):
        nearest = min(load.server, key=lambda sample: abs(sample.time_s - edge_s))
        slow_s = max(nearest.took_s, abs(nearest.time_s - edge_s))
        if not slow_s <= procedure.largest_scrape_s:
            yield Reason(
                code="scrape-slow",
                text=f"at a window's edge the server's counters are {slow_s:.2f} s uncertain, "
                f"at most {procedure.largest_scrape_s:g} s is trusted. The server may be "
                "short of CPU.",
            )


def _short_note(window: Window) -> Iterator[Reason]:
    if window.duration_s < SHORTEST_TRUSTED_WINDOW_S:
        yield Reason(
            code="window-user-short",
            text=f"steady state of {window.duration_s:.1f} s, shorter than "
            f"{SHORTEST_TRUSTED_WINDOW_S:g} s: the noise of short windows is not known. "
            "Measure for longer (--joules-window).",
        )


def _drift_note(measured: WindowEnergy, procedure: Procedure) -> Iterator[Reason]:
    joules, units = measured.series_energy_j, measured.series_work_units
    size = len(joules) // 4
    if size == 0:
        return
    # The change as a ratio of products, for a quarter may have done no work at all.
    later = sum(joules[-size:]) * sum(units[:size])
    sooner = sum(joules[:size]) * sum(units[-size:])
    if abs(later - sooner) > procedure.largest_drift * abs(sooner):
        change = percent(later / sooner - 1) if sooner else "without bound"
        yield Reason(
            code="window-drift",
            text=f"energy per work unit changed by {change} from the window's first quarter "
            "to its last; it may not have been steady.",
        )


def _preemption_note(load: LoadTrace, window: Window) -> Iterator[Reason]:
    seen = [
        sample.preemptions
        for sample in load.server
        if window.holds(sample.time_s) and sample.preemptions is not None
    ]
    if seen and seen[-1] > seen[0]:
        yield Reason(
            code="preempted",
            text=f"{seen[-1] - seen[0]:.0f} preemptions in the window: the KV cache is too "
            "small for this batch, and work was done twice.",
        )
