"""Whether load, window and engine met the contract; every broken rule is a reason.

A result with reasons can be neither passed nor recorded. Rules on the energy counter are
in ``counter``; the table of all is ``contract``.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from pytest_joules import contract
from pytest_joules.assess.energy import WindowEnergy
from pytest_joules.assess.request_times import request_times
from pytest_joules.assess.surroundings import rise
from pytest_joules.batches import PRECISION, relative_error
from pytest_joules.point import Point
from pytest_joules.procedure import SHORTEST_TRUSTED_WINDOW_S, Procedure
from pytest_joules.result import Reason
from pytest_joules.steady_state import Window, full_batch_window, window_batches
from pytest_joules.trace import BatchLoad, Load, LoadTrace, ServerSample
from pytest_joules.units import percent

_MUCH = 0.05
"""Share of a request's time in the server from which its preparation is named as a cause."""


def load_reasons(
    load: Load, window: Window, procedure: Procedure, *, num_ticks: int
) -> tuple[Reason, ...]:
    """Return every rule on load and window that the measurement broke.

    Args:
        load: What client and server, or the worker, recorded.
        window: The steady state.
        procedure: Thresholds.
        num_ticks: Ticks of the energy counter in the window.
    """
    short = _length_reasons(window, procedure, num_ticks=num_ticks)
    if isinstance(load, BatchLoad):
        return (*short, *_batch_work_reasons(load, window, procedure))
    return (
        *short,
        *_ramp_up_reasons(load, window, procedure),
        *_batch_reasons(load, window, procedure),
        *_foreign_reasons(load, window, procedure),
        *_request_reasons(load, procedure),
        *_client_reasons(load, procedure),
        *_scrape_reasons(load, window, procedure),
    )


def load_notes(load: Load, measured: WindowEnergy, procedure: Procedure) -> tuple[Reason, ...]:
    """Return what a reader should know though it invalidates nothing."""
    return (
        *_short_note(measured.window),
        *_drift_note(measured, procedure),
        *(
            _uneven_note(load, measured.window)
            if isinstance(load, BatchLoad)
            else (*_preemption_note(load, measured.window), *_counted_note(load))
        ),
    )


def answer_reasons(load: LoadTrace, point: Point) -> tuple[Reason, ...]:
    """Return where the answers are not of the requests that the point fixed.

    Tokens that client and server both count wrongly agree with each other, but not with these.
    """
    pairs = zip(load.requests, point.but(num_requests=None).requests(), strict=False)
    for number, (answer, asked) in enumerate(pairs):
        outputs = asked.output_tokens if point.mode == "fixed" else answer.output_tokens
        found = (answer.index, answer.prompt_tokens, answer.output_tokens)
        # Images and a chat's template come on top; how much they are only the model knows.
        least = asked.prompt_tokens
        prompts = least if point.vision is None else max(least, answer.prompt_tokens)
        wanted = (asked.index, prompts, outputs)
        if answer.error is None and found != wanted:
            text = (
                f"answer {number} is of request {answer.index} with {answer.prompt_tokens} "
                f"prompt and {answer.output_tokens} output tokens; it should be of "
                f"{asked.index} with {prompts} and {outputs}."
            )
            return (contract.reason("answers-differ", text),)
    if point.num_requests is not None and len(load.requests) != point.num_requests:
        text = f"{len(load.requests)} requests ended, {point.num_requests} were fixed."
        return (contract.reason("answers-differ", text),)
    return ()


def revision_note(revision: str | None, point: Point) -> tuple[Reason, ...]:
    """Say where a model's weights may have changed unseen; dummy ones have no commit."""
    if revision or point.weights == "dummy":
        return ()
    text = f"which commit of {point.model} was served is not known."
    return (contract.reason("revision-unknown", text),)


def trust_note(point: Point) -> tuple[Reason, ...]:
    """Say where a model's repository ran code of its own."""
    if not point.trust_remote_code:
        return ()
    text = f"code that {point.model} brings along was trusted (trust_remote_code=True)."
    return (contract.reason("remote-code", text),)


def mean_batch_size(samples: Sequence[ServerSample], window: Window) -> float | None:
    """Return the mean batch in the window: of running requests, see ``time_weighted_mean``."""
    return time_weighted_mean(samples, window, "running")


def time_weighted_mean(
    samples: Sequence[ServerSample],
    window: Window,
    name: Literal["running", "waiting", "kv_cache_usage"],
) -> float | None:
    """Return the time-weighted mean of a gauge in the window.

    ``None`` where it was read less than twice there. Weighted, because a busy server answers
    late, so that samples are fewest when it is fullest.
    """
    inside = [(s.time_s, getattr(s, name)) for s in samples if window.holds(s.time_s)]
    return _mean_over_time([(time_s, value) for time_s, value in inside if value is not None])


def _mean_over_time(points: Sequence[tuple[float, float]]) -> float | None:
    if len(points) < 2 or points[0][0] == points[-1][0]:  # noqa: PLR2004  a span
        return None
    area = sum((t1 - t0) * (y0 + y1) / 2 for (t0, y0), (t1, y1) in pairwise(points))
    return area / (points[-1][0] - points[0][0])


def _length_reasons(
    window: Window, procedure: Procedure, *, num_ticks: int
) -> Iterator[Reason]:
    least_s, least_ticks = procedure.least_window_s, procedure.least_ticks
    if window.duration_s < least_s or num_ticks < least_ticks:
        yield contract.reason(
            "window-short",
            f"steady state of {window.duration_s:.1f} s with {num_ticks} counter ticks; "
            f"at least {least_s:g} s and {least_ticks} ticks are needed.",
        )


def _ramp_up_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    full = full_batch_window(load)
    cut = (window.start_s - full.start_s) / full.duration_s
    if cut >= procedure.largest_cut:
        yield contract.reason(
            "window-late",
            f"the ramp-up took {cut:.0%} of the time with a full batch, less than "
            f"{procedure.largest_cut:.0%} is trusted.",
        )


def _batch_work_reasons(
    load: BatchLoad, window: Window, procedure: Procedure
) -> Iterator[Reason]:
    inside = window_batches(load, window)
    if len(inside) < load.least_batches:
        yield contract.reason(
            "batches-few",
            f"{len(inside)} batches in the window, at least {load.least_batches} are needed.",
        )
    busy = sum(batch.latency_s for batch in inside) / window.duration_s
    if not busy >= procedure.least_busy_share:
        yield contract.reason(
            "batches-apart",
            f"the pipeline ran in {busy:.1%} of the window, at least "
            f"{procedure.least_busy_share:.0%} is needed: the rest of the energy is not its "
            "own.",
        )


def _uneven_note(load: BatchLoad, window: Window) -> Iterator[Reason]:
    inside = [batch.latency_s for batch in window_batches(load, window)]
    error = relative_error(inside)
    if not error <= PRECISION:
        yield contract.reason(
            "batches-uneven",
            f"the mean latency of {len(inside)} batches is uncertain by {error:.1%}, more "
            f"than {PRECISION:.0%}.",
        )


def _batch_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    batch, asked = mean_batch_size(load.server, window), load.max_concurrency
    # Asked the other way round, NaN would pass; so below.
    if batch is None or not batch >= procedure.least_batch_share * asked:
        achieved = "nothing was sampled" if batch is None else f"{batch:.1f} running on average"
        yield contract.reason(
            "batch-starved",
            f"asked for a batch of {asked}, {achieved}; at least "
            f"{procedure.least_batch_share:.0%} is needed.{_why_starved(load, window)}",
        )


def _foreign_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    """Find requests of somebody else, who may also have come and gone between two samples."""
    asked = load.max_concurrency
    above = _mean_over_time(
        [(s.time_s, max(s.running - asked, 0)) for s in load.server if window.holds(s.time_s)]
    )
    if above is not None and not above <= procedure.largest_batch_excess * asked:
        yield contract.reason(
            "foreign-requests",
            f"{above:.2f} requests more ran on average than the {asked} offered at once; at "
            f"most {procedure.largest_batch_excess:.0%} of the batch is trusted.",
        )
    begun = load.server[-1].first_tokens - load.server[0].first_tokens
    offered = len(load.requests)
    if not begun <= offered * (1 + procedure.token_disagreement):
        yield contract.reason(
            "foreign-requests",
            f"the server began to answer {begun:.0f} requests, {offered} were offered.",
        )


def _why_starved(load: LoadTrace, window: Window) -> str:
    """Name preemptions, or the preparation on the CPU where it took long; else nothing."""
    preempted = rise(load.server, window, "preemptions")
    if preempted:
        return f" The engine preempted requests {preempted:.0f} times meanwhile."
    times = request_times(load.server, window)
    if times is None or not times.preprocessing_s > _MUCH * times.whole_s:
        return ""
    return (
        f" Of {times.whole_s:.2f} s in the server, a request was prepared on the CPU for "
        f"{times.preprocessing_s:.2f} s."
    )


def _request_reasons(load: LoadTrace, procedure: Procedure) -> Iterator[Reason]:
    failed = [request for request in load.requests if request.error is not None]
    if failed:
        yield contract.reason(
            "request-failed",
            f"{len(failed)} of {len(load.requests)} requests failed; the first, number "
            f"{failed[0].index}: {failed[0].error}.",
        )
    client = sum(request.output_tokens for request in load.requests)
    server = load.server[-1].output_tokens - load.server[0].output_tokens
    if not abs(server - client) <= procedure.token_disagreement * max(client, 1):
        yield contract.reason(
            "tokens-disagree",
            f"the server counted {server:.0f} output tokens, its answers sum to {client}; "
            f"they may differ by {procedure.token_disagreement:.1%}.",
        )


def _client_reasons(load: LoadTrace, procedure: Procedure) -> Iterator[Reason]:
    if not load.client_lag_s <= procedure.largest_client_lag_s:
        yield contract.reason(
            "client-lagged",
            f"the load generator stood still for {load.client_lag_s:.2f} s, at most "
            f"{procedure.largest_client_lag_s:g} s is trusted.",
        )
    lasted_s = load.ended_s - load.started_s
    cores = load.client_cpu_s / lasted_s if lasted_s > 0 else float("inf")
    if not cores <= procedure.largest_client_cores:
        yield contract.reason(
            "client-busy",
            f"the load generator used {cores:.2f} cores, at most "
            f"{procedure.largest_client_cores:g} is trusted.",
        )


def _scrape_reasons(load: LoadTrace, window: Window, procedure: Procedure) -> Iterator[Reason]:
    seen = tuple(_ages(load))
    for edge_s in (window.start_s, window.end_s):
        apart_s, age_s = min((abs(time_s - edge_s), age_s) for time_s, age_s in seen)
        yield from _slow(max(age_s, apart_s), "at a window's edge", procedure.largest_scrape_s)
    inside = [(time_s, age_s) for time_s, age_s in seen if window.holds(time_s)]
    times_s = [window.start_s, *(time_s for time_s, _ in inside), window.end_s]
    gap_s = max(after - before for before, after in pairwise(times_s))
    oldest_s = max((age_s for _, age_s in inside), default=0.0)
    yield from _slow(max(gap_s, oldest_s), "inside the window", procedure.largest_scrape_gap_s)


def _ages(load: LoadTrace) -> Iterator[tuple[float, float]]:
    """Return when each sample came, and how old what it says may be.

    Something before the server may have kept what it said some time ago: as old as the first
    answer that is left out. One that is never counted is no sign of that: the tokens tell.
    """
    finished_s = sorted(r.finish_s for r in load.requests if r.error is None)
    first, last = load.server[0].finished, load.server[-1].finished
    never = max(0, len(finished_s) - round(last - first))
    for sample in load.server:
        counted = max(0, round(sample.finished - first)) + never
        left_out_s = finished_s[counted] if counted < len(finished_s) else math.inf
        yield sample.time_s, max(sample.took_s, sample.time_s - left_out_s)


def _slow(seconds: float, where: str, limit_s: float) -> Iterator[Reason]:
    if not seconds <= limit_s:
        yield contract.reason(
            "scrape-slow",
            f"{where} the server's counters are {seconds:.2f} s uncertain, at most "
            f"{limit_s:g} s is trusted.",
        )


def _short_note(window: Window) -> Iterator[Reason]:
    if window.duration_s < SHORTEST_TRUSTED_WINDOW_S:
        yield contract.reason(
            "window-user-short",
            f"steady state of {window.duration_s:.1f} s, shorter than "
            f"{SHORTEST_TRUSTED_WINDOW_S:g} s: the noise of short windows is not known.",
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
        yield contract.reason(
            "window-drift",
            f"energy per work unit changed by {change} from the window's first quarter "
            "to its last; it may not have been steady.",
        )


def _counted_note(load: LoadTrace) -> Iterator[Reason]:
    if load.counted_by in ("server", "engine"):
        return
    batch = "as the server tells it" if load.counted_by == "both" else "the client's"
    yield contract.reason(
        "client-counted",
        "the server tells no token counters, so tokens are what its answers said, spread "
        "evenly from a request's first token to its end, and reconciled with nothing; the "
        f"batch is {batch}.",
    )


def _preemption_note(load: LoadTrace, window: Window) -> Iterator[Reason]:
    preempted = rise(load.server, window, "preemptions")
    if preempted:
        yield contract.reason(
            "preempted",
            f"{preempted:.0f} preemptions in the window: the KV cache is too small for this "
            "batch, and work was done twice.",
        )
