"""Loads and counters made by hand: each computed by counting, not by the code under test."""

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from pytest_joules.trace import (
    BatchLoad,
    BatchTrace,
    GpuIdentity,
    GpuTrace,
    LoadTrace,
    Reading,
    RequestTrace,
    ServerSample,
)

PREFILL_S = 0.5


def closed_loop(
    durations_s: Sequence[float], slots: int, *, tokens: int = 100, samples_s: float = 0.125
) -> LoadTrace:
    """Serve requests in order, each in the slot that is free first, from time 0 on.

    A request makes its tokens evenly from being sent to its end; its first one comes
    ``PREFILL_S`` later or, if it is shorter, at its end.
    """
    free, requests = [0.0] * slots, []
    for index, duration_s in enumerate(durations_s):
        sent_s = heapq.heappop(free)
        heapq.heappush(free, sent_s + duration_s)
        requests.append(
            RequestTrace(
                index=index,
                sent_s=sent_s,
                first_token_s=sent_s + min(PREFILL_S, duration_s),
                finish_s=sent_s + duration_s,
                prompt_tokens=10,
                output_tokens=tokens,
                itl_s=(0.25, 0.25),
            )
        )
    ended_s = max(request.finish_s for request in requests)
    number = int(ended_s / samples_s) + 2
    return LoadTrace(
        max_concurrency=slots,
        started_s=0.0,
        ended_s=ended_s,
        requests=tuple(requests),
        server=tuple(_sample(requests, i * samples_s) for i in range(-1, number + 1)),
        client_cpu_s=0.0,
        client_lag_s=0.0,
    )


def batch_load(
    latencies_s: Sequence[float],
    *,
    batch_size: int = 4,
    pause_s: float = 0.0,
    least_batches: int = 8,
) -> BatchLoad:
    """Make one batch after the other from time 0 on, each after a pause but the first."""
    batches, now_s = [], 0.0
    for latency_s in latencies_s:
        batches.append(BatchTrace(started_s=now_s, finish_s=now_s + latency_s))
        now_s += latency_s + pause_s
    return BatchLoad(batch_size=batch_size, least_batches=least_batches, batches=tuple(batches))


def _sample(requests: Sequence[RequestTrace], time_s: float) -> ServerSample:
    shares = [
        min(1.0, max(0.0, (time_s - r.sent_s) / (r.finish_s - r.sent_s))) for r in requests
    ]
    return ServerSample(
        time_s=time_s,
        took_s=0.001,
        running=sum(r.sent_s <= time_s < r.finish_s for r in requests),
        waiting=0,
        output_tokens=sum(
            share * r.output_tokens for share, r in zip(shares, requests, strict=True)
        ),
        prompt_tokens=0,
        first_tokens=sum((r.first_token_s or 0.0) <= time_s for r in requests),
        finished=sum(r.finish_s <= time_s for r in requests),
        preemptions=0,
    )


def gpu_identity(index: int = 0, **changes: Any) -> GpuIdentity:
    """Make an H200."""
    return GpuIdentity(
        **{
            "uuid": f"GPU-{index}",
            "name": "NVIDIA H200",
            "memory_bytes": 141 * 10**9,
            "power_limit_w": 700.0,
            "mig": False,
            "driver": "580.1",
            **changes,
        }
    )


def staircase(
    joules: Callable[[float], float],
    *,
    until_s: float,
    index: int = 0,
    phase_s: float = 0.0,
    error: str | None = None,
) -> GpuTrace:
    """Make a counter that ticks every 100 ms, read every 25 ms from time 0 on.

    Args:
        joules: Energy drawn since time 0.
        until_s: Time of the last reading.
        index: Which GPU.
        phase_s: Time of the first tick.
        error: Why reading ended.
    """
    readings = [
        Reading(
            time_s=step / 40,
            took_s=0.0001,
            energy_mj=round(1000 * joules(_last_tick(step / 40, phase_s))),
        )
        for step in range(round(until_s * 40) + 1)
    ]
    return GpuTrace(gpu=gpu_identity(index), readings=tuple(readings), error=error)


def _last_tick(time_s: float, phase_s: float) -> float:
    return max(0.0, phase_s + int((time_s - phase_s) * 10 + 1e-6) / 10)
