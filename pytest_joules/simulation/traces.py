"""From batched spans to what engine and meter would have recorded, noise included."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pytest_joules.simulation.batching import Span
from pytest_joules.simulation.meter import TICK_S, Draw
from pytest_joules.trace import LoadTrace, RequestTrace, ServerSample

Array = NDArray[np.float64]

_STREAMED = 8
"""Requests whose every token is timed."""


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Noise of energy per work unit, second by second of a load.

    Above the power limit a GPU draws no more but takes longer, so what does not fit under
    the limit stretches time instead.
    """

    factors: Array
    """Energy per work unit over its undisturbed value, one for each second."""

    power_limit_w: float

    def disturb(self, spans: Sequence[Span], num_gpus: int) -> "Disturbed":
        """Lay the noise over the spans."""
        start_s, end_s = spans[0].start_s, spans[-1].end_s
        seconds = np.arange(start_s, end_s, 1.0)
        edges = np.union1d([span.start_s for span in spans], [*seconds, end_s])
        at = np.searchsorted([span.end_s for span in spans], edges[:-1], side="right")
        at = np.minimum(at, len(spans) - 1)
        per_gpu_w = np.array([span.cost.power_w / num_gpus for span in spans])[at]
        second = np.minimum((edges[:-1] - start_s).astype(int), len(self.factors) - 1)
        wanted_w = per_gpu_w * self.factors[second]
        power_w = np.minimum(wanted_w, np.maximum(self.power_limit_w, per_gpu_w))
        stretched = np.diff(edges) * wanted_w / power_w
        moved = start_s + np.concatenate(([0.0], np.cumsum(stretched)))
        return Disturbed(edges_s=edges, moved_s=moved, span_of=at, power_w=power_w)


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """The load's time with noise: where each undisturbed moment has gone."""

    edges_s: Array
    moved_s: Array
    span_of: NDArray[np.int64]
    power_w: Array
    """Of one GPU."""

    def at(self, times_s: Sequence[float] | Array) -> Array:
        """Return when undisturbed moments happen."""
        moved: Array = np.interp(times_s, self.edges_s, self.moved_s)
        return moved

    def draw(self, spans: Sequence[Span], full_clock_hz: float) -> Draw:
        """Return what one GPU draws."""

        def each(values: Sequence[float]) -> Array:
            return np.array(values, dtype=float)[self.span_of]

        return Draw(
            edges_s=self.moved_s,
            power_w=self.power_w,
            clock_hz=full_clock_hz * each([s.cost.clock_ratio for s in spans]),
            busy_share=each([s.cost.busy_share for s in spans]),
            is_capped=each([float(s.cost.is_capped) for s in spans]),
        )


def load_trace(
    spans: Sequence[Span],
    answered: Sequence[RequestTrace],
    disturbed: Disturbed,
    *,
    max_concurrency: int,
) -> LoadTrace:
    """Return what client and server would have counted."""
    moved = [_moved(request, disturbed) for request in answered]
    chosen = set(range(0, len(moved), max(1, len(moved) // _STREAMED)))
    requests = [
        replace(each, itl_s=_gaps(request, spans, disturbed)) if index in chosen else each
        for index, (request, each) in enumerate(zip(answered, moved, strict=True))
    ]
    start_s, end_s = float(disturbed.moved_s[0]), float(disturbed.moved_s[-1])
    return LoadTrace(
        max_concurrency=max_concurrency,
        started_s=start_s,
        ended_s=end_s,
        requests=tuple(sorted(requests, key=lambda request: request.index)),
        server=_samples(spans, moved, disturbed),
        client_cpu_s=0.0,
        client_lag_s=0.0,
    )


def _moved(request: RequestTrace, disturbed: Disturbed) -> RequestTrace:
    sent_s, first_s, finish_s = disturbed.at(
        [request.sent_s, request.first_token_s or request.finish_s, request.finish_s]
    )
    return replace(
        request,
        sent_s=float(sent_s),
        first_token_s=float(first_s),
        finish_s=float(finish_s),
    )


def _gaps(
    request: RequestTrace, spans: Sequence[Span], disturbed: Disturbed
) -> tuple[float, ...]:
    """Return the times between one request's tokens."""
    first_s = request.first_token_s or request.finish_s
    times = [first_s]
    for span in spans:
        if span.steps and span.start_s >= first_s - 1e-9 and span.end_s <= request.finish_s:
            times.extend(np.linspace(span.start_s, span.end_s, span.steps + 1)[1:])
    return tuple(float(gap) for gap in np.diff(disturbed.at(times)))


_COLUMNS = (
    "time_s",
    "running",
    "waiting",
    "output_tokens",
    "prompt_tokens",
    "first_tokens",
    "finished",
    "steps",
    "kv_cache_usage",
    "preemptions",
)


def _samples(
    spans: Sequence[Span], requests: Sequence[RequestTrace], disturbed: Disturbed
) -> tuple[ServerSample, ...]:
    """Count what the server would say, ten times a second."""
    ends_s = disturbed.at([span.end_s for span in spans])
    start_s, end_s = float(disturbed.moved_s[0]), float(disturbed.moved_s[-1])
    grid = np.arange(start_s - TICK_S, end_s, TICK_S)
    moments = np.append(grid[grid < end_s], end_s)  # rounding may put one on the end, or past
    edges_s = np.concatenate(([start_s], ends_s))

    def grown(values: Sequence[float]) -> Array:
        total = np.concatenate(([0.0], np.cumsum(values)))
        # Rounding must not let a counter fall.
        grown: Array = np.maximum.accumulate(np.interp(moments, edges_s, total))
        return grown

    def reached(times_s: Sequence[float]) -> Array:
        return np.searchsorted(np.sort(times_s), moments + 1e-9, side="right").astype(float)

    at = np.minimum(np.searchsorted(ends_s, moments, side="right"), len(spans) - 1)
    inside = (moments >= start_s) & (moments < end_s)
    columns = (
        moments,
        np.array([s.running for s in spans])[at] * inside,
        np.array([s.waiting for s in spans])[at] * inside,
        grown([s.tokens for s in spans]),
        grown([s.prompt_tokens for s in spans]),
        reached([r.first_token_s or r.finish_s for r in requests]),
        reached([r.finish_s for r in requests]),
        grown([s.steps for s in spans]),
        np.array([s.memory_share for s in spans])[at] * inside,
        np.array([s.preemptions for s in spans])[at],
    )
    return tuple(
        ServerSample(took_s=0.001, **dict(zip(_COLUMNS, map(float, row), strict=True)))
        for row in zip(*columns, strict=True)
    )
