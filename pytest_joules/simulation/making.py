"""Batches of images and videos on a virtual clock."""

from pytest_joules import pipelines
from pytest_joules.batches import least_batches, num_missing
from pytest_joules.latent import DiffusionMachine, Machine
from pytest_joules.point import Point
from pytest_joules.simulation.batching import Cost, Span
from pytest_joules.trace import BatchTrace

_FIRST_BATCH = 1.5
"""Latency of the first batch over that of the others: kernels are chosen."""


def batch_spans(
    point: Point, made: DiffusionMachine, *, now_s: float, min_window_s: float
) -> tuple[list[Span], int]:
    """Make as many batches as a live run would; return them and the least number."""
    step = made.batch(point.batch_size)
    capped_s = step.terms_s.get("power cap", 0.0)
    cost = Cost(
        duration_s=step.duration_s,
        power_w=step.power_w,
        clock_ratio=made.clock_factor * (1 - capped_s / step.duration_s),
        busy_share=1 - step.waiting_s / step.duration_s,
        is_capped=capped_s > 0,
    )
    least = least_batches(point.work_unit, pipelines.shape(point).steps)
    fixed = point.num_requests // point.batch_size if point.num_requests else None
    spans: list[Span] = []
    batches: list[BatchTrace] = []
    while num_missing(batches, least=least, min_window_s=min_window_s, fixed=fixed):
        spans.append(_span(now_s, cost, 1.0 if spans else _FIRST_BATCH))
        batches.append(BatchTrace(started_s=now_s, finish_s=spans[-1].end_s))
        now_s = spans[-1].end_s
    return spans, least


def _span(now_s: float, cost: Cost, times: float) -> Span:
    return Span(
        start_s=now_s,
        end_s=now_s + times * cost.duration_s,
        steps=1,
        tokens=0,
        prompt_tokens=0,
        running=1,
        waiting=0,
        memory_share=0.0,
        preemptions=0,
        cost=cost,
    )


def static_power_w(made: Machine) -> float:
    """Return what one GPU of the machine draws while it waits."""
    p = made.parameters
    ratio = (
        p.diffusion_static_power_ratio
        if isinstance(made, DiffusionMachine)
        else p.static_power_ratio
    )
    return ratio * p.gpu.tdp_w * made.static_power_factor
