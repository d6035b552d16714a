"""What one side of a comparison measured, as the diagnosis needs it; absent is ``None``."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any, TypeGuard

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Evidence, Result

__tracebackhide__ = is_expected


_JITTER = 0.01
"""Client and engine count requests at other moments: so much less in flight than in the
batch is no contradiction."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Means over the launches of one side; powers are of all GPUs together."""

    energy_j: float
    """Per work unit, the geometric mean of the launches."""

    throughput_per_s: float
    """Work units, likewise."""

    num_gpus: int
    asked_batch: float
    work_unit: str
    declared: dict[str, str]
    """What was asked for and sets the work of a step: model, task, precision, GPU, ..."""

    batch: float | None = None
    """Requests in the engine's batch, mean over time."""

    in_flight: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    preemptions: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    sm_clock_hz: float | None = None
    power_limit_w: float | None = None
    capped_share: float | None = None
    clock_reasons: int | None = None
    busy_share: float | None = None
    idle_power_w: float | None = None

    @property
    def power_w(self) -> float:
        return self.energy_j * self.throughput_per_s

    @property
    def step_s(self) -> float:
        """Time in which every request of the batch gets one work unit."""
        return (self.batch or 1.0) / self.throughput_per_s

    @property
    def context_tokens(self) -> float | None:
        """Mean tokens that one request keeps in memory, halfway through its answer.

        Of the answer alone where the prompts are not known.
        """
        if self.output_tokens is None:
            return None
        return (self.prompt_tokens or 0.0) + self.output_tokens / 2


_OF_NO_STEP = frozenset({"batch_size", "num_gpus", "num_requests", "shared_server"})
"""Fields of a point that have causes of their own, or leave a step what it is."""

_DECLARED = tuple(f.name for f in fields(Point) if f.name not in _OF_NO_STEP)


def facts(results: Sequence[Result]) -> Facts:
    """Reduce the launches of one point to what they say together.

    Raises:
        ConfigurationError: There are none, or they are of several points or GPUs, or an
            energy or a throughput is none.
    """
    if len({(result.point, result.gpu) for result in results}) != 1:
        named = sorted({f"{result.point.id} on {result.gpu}" for result in results})
        raise ConfigurationError(
            f"{', '.join(named) or 'no results'}: one side of an explanation is the launches "
            "of one point on one GPU model."
        )
    first = results[0]
    read = Facts(
        energy_j=_geometric(results, "energy_per_work_unit_j"),
        throughput_per_s=_geometric(results, "throughput_work_units_per_s"),
        num_gpus=first.provenance.identity.num_gpus,
        asked_batch=float(first.point.batch_size),
        work_unit=first.point.work_unit,
        declared=_declared(first),
        batch=_mean([result.mean_batch_size for result in results]) or None,
        kv_cache_usage=_mean([result.kv_cache_usage for result in results], most=1.0),
        output_tokens=_mean([result.mean_output_tokens for result in results]),
        power_limit_w=first.provenance.identity.power_limit_w,
        in_flight=_of(results, lambda e: e.mean_in_flight),
        waiting=_of(results, lambda e: e.mean_waiting),
        preemptions=_of(results, lambda e: e.preemptions),
        prompt_tokens=_of(results, lambda e: e.mean_prompt_tokens),
        sm_clock_hz=_of(results, lambda e: e.mean_sm_clock_hz),
        capped_share=_of(results, lambda e: e.power_capped_share, most=1.0),
        clock_reasons=_reasons(results),
        busy_share=_of(results, lambda e: e.busy_share, most=1.0),
        idle_power_w=_of(results, lambda e: e.idle_power_w),
    )
    return _without_contradictions(read)


def _without_contradictions(read: Facts) -> Facts:
    """Forget readings that no machine can have together: no cause may rest on them."""
    if read.in_flight is not None and read.in_flight < (1 - _JITTER) * (read.batch or 0.0):
        read = replace(read, in_flight=None)
    if read.idle_power_w is not None and read.idle_power_w > read.power_w:
        read = replace(read, idle_power_w=None)
    return read


def _declared(result: Result) -> dict[str, str]:
    values = {name: str(getattr(result.point, name)) for name in _DECLARED}
    return {"gpu": result.gpu, **values}


def _of(
    results: Sequence[Result],
    read: Callable[[Evidence], float | None],
    *,
    most: float = math.inf,
) -> float | None:
    return _mean([read(r.evidence) if r.evidence else None for r in results], most=most)


def _mean(values: Sequence[float | None], *, most: float = math.inf) -> float | None:
    """Return the mean; ``None`` where a launch has no reading, or an impossible one."""
    present = [value for value in values if _is_number(value) and 0 <= value <= most]
    return fmean(present) if len(present) == len(values) else None


def _is_number(value: Any) -> TypeGuard[float]:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _geometric(results: Sequence[Result], name: str) -> float:
    values = [getattr(result, name) for result in results]
    for value in values:
        if not _is_number(value) or value <= 0:
            raise ConfigurationError(
                f"{results[0].point.id}: {name}={value!r} is no measured value, so nothing "
                "can be explained; leave that result out or measure it again."
            )
    return math.exp(fmean(math.log(value) for value in values))


def _reasons(results: Sequence[Result]) -> int | None:
    masks = [r.evidence.clock_event_reasons if r.evidence else None for r in results]
    seen = 0
    for mask in masks:
        if mask is None:
            return None
        seen |= mask
    return seen
