"""Counters as the client saw them, for servers that offer none: a pure function of requests.

Every request streams then, so that its first token has a time. Its further tokens are taken
to come evenly from there to its end: a window holds whole requests but for those that its two
edges cut, where this is off by less than a request.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pytest_joules.trace import RequestTrace, ServerSample

PERIOD_S: Final = 0.1

Times = NDArray[np.float64]


def sample_times(started_s: float, ended_s: float) -> Times:
    """Return when a load is counted: ten times a second, from before it until after it."""
    number = int((ended_s - started_s) / PERIOD_S) + 3
    times: Times = started_s + PERIOD_S * np.arange(-1, number, dtype=np.float64)
    return times


def client_samples(
    requests: Sequence[RequestTrace],
    *,
    started_s: float,
    ended_s: float,
    gauges: Sequence[Mapping[str, Any]] = (),
) -> tuple[ServerSample, ...]:
    """Count, ten times a second, what the client knew at that moment.

    Requests between their first and their last token are running; so the batch leaves out
    those whose prompt is being read, and is never too large.

    Args:
        requests: All of the load, in any order.
        started_s: When it began.
        ended_s: When it ended.
        gauges: ``time_s``, ``running``, ``waiting`` and ``kv_cache_usage`` of a server that
            tells at least these; they replace the client's.
    """
    times = sample_times(started_s, ended_s)
    sent = _times([r.sent_s for r in requests])
    finish = _times([r.finish_s for r in requests])
    decoding = [r for r in requests if r.first_token_s is not None]
    first = _times([r.first_token_s for r in decoding])
    last = _times([r.finish_s for r in decoding])
    unanswered = _times([r.finish_s for r in requests if r.first_token_s is None])
    begun, ended = _count(first, times), _count(last, times)
    counted = {
        "running": begun - ended,
        "waiting": _count(sent, times) - begun - _count(unanswered, times),
        "output_tokens": _tokens(decoding, times),
        "prompt_tokens": _prompts(decoding, times),
        "first_tokens": begun,
        "finished": _count(finish, times),
        **_gauged(gauges, times),
    }
    return tuple(
        ServerSample(
            time_s=float(time_s),
            took_s=0.0,
            **{name: float(values[i]) for name, values in counted.items()},
        )
        for i, time_s in enumerate(times)
    )


def _times(values: Sequence[float | None]) -> Times:
    return np.sort(np.array(values, dtype=float))


def _count(moments: Times, at: Times) -> Times:
    """Return how many moments have come by each time."""
    return np.searchsorted(moments, at, side="right").astype(float)


def _tokens(decoding: Sequence[RequestTrace], at: Times) -> Times:
    total = np.zeros_like(at)
    for request in decoding:
        first_s = request.first_token_s
        assert first_s is not None
        lasted_s, later = request.finish_s - first_s, request.output_tokens - 1
        # Only the samples that the request changes: a long load has many of both.
        begin, end = np.searchsorted(at, [first_s, request.finish_s])
        if lasted_s > 0 and later > 0:
            total[begin:end] += 1 + later * (at[begin:end] - first_s) / lasted_s
        total[end:] += request.output_tokens
    return total


def _prompts(decoding: Sequence[RequestTrace], at: Times) -> Times:
    total = np.zeros_like(at)
    for request in decoding:
        assert request.first_token_s is not None
        total[np.searchsorted(at, request.first_token_s) :] += request.prompt_tokens
    return total


def _gauged(gauges: Sequence[Mapping[str, Any]], at: Times) -> dict[str, Times]:
    """Take the last gauge before each time: between two readings nobody knows."""
    if not gauges:
        return {}
    position = np.searchsorted([gauge["time_s"] for gauge in gauges], at, side="right") - 1
    chosen = np.clip(position, 0, None)
    names = [name for name in ("running", "waiting", "kv_cache_usage") if name in gauges[0]]
    return {name: np.array([gauge[name] for gauge in gauges])[chosen] for name in names}
