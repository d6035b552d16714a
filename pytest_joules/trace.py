"""What engines and meters record: event times and counter readings, nothing derived.

Every time is in seconds of the machine's monotonic clock (``time.monotonic``), which all
processes of one machine share, so traces of different processes can be laid side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

from pytest_joules.errors import LoadError, MeterError, is_expected

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class RequestTrace:
    """One request as the client saw it."""

    index: int
    sent_s: float
    finish_s: float
    prompt_tokens: int
    """As the server's usage says."""

    output_tokens: int
    """As the server's usage says; 0 for a failed request."""

    first_token_s: float | None = None
    """Only of the streamed sample."""

    itl_s: tuple[float, ...] = ()
    """Inter-token latencies; only of the streamed sample."""

    error: str | None = None
    """Why the request failed; ``None`` for a good one."""


@dataclass(frozen=True, kw_only=True)
class ServerSample:
    """The server's own counters at one moment (vLLM's ``/metrics``).

    Counters count from the server's start; take differences.
    """

    time_s: float
    """When the answer came."""

    took_s: float
    """How long the answer took: the sample's uncertainty in time."""

    running: float
    waiting: float
    output_tokens: float
    prompt_tokens: float
    first_tokens: float
    """Requests that have emitted their first token."""

    finished: float
    steps: float | None = None
    """Engine steps; tokens over steps is the true batch."""

    kv_cache_usage: float | None = None
    """Share of the KV cache in use, 0 to 1."""

    preemptions: float | None = None
    e2el_s: float | None = None
    """Summed over finished requests: from the server's taking it to its last token."""

    queue_s: float | None = None
    """Likewise: from the engine core's taking it to its first scheduling."""

    inference_s: float | None = None
    """Likewise: from its first scheduling to its last token."""


@dataclass(frozen=True, kw_only=True)
class LoadTrace:
    """One closed-loop load: all that the client and the server counted."""

    max_concurrency: int
    """Requests kept in flight while the queue lasted, B."""

    started_s: float
    ended_s: float
    requests: tuple[RequestTrace, ...]
    """In order of ``index``."""

    server: tuple[ServerSample, ...]
    """In order of time, from before the first request to after the last."""

    client_cpu_s: float
    """CPU time the load generator used."""

    client_lag_s: float
    """Longest time for which the load generator did not look at its sockets."""

    counted_by: Literal["server", "client", "both", "engine"] = "server"
    """Who counted: ``both`` means the client the tokens and the server the batch; ``engine``
    that it feeds itself, so that there is no client and nothing to reconcile."""


@dataclass(frozen=True, kw_only=True)
class BatchTrace:
    """One batch of a diffusion pipeline."""

    started_s: float
    finish_s: float

    @property
    def latency_s(self) -> float:
        return self.finish_s - self.started_s


@dataclass(frozen=True, kw_only=True)
class BatchLoad:
    """One pipeline called again and again with the same shape: all that was recorded."""

    batch_size: int
    """Images or videos that each call makes."""

    least_batches: int
    """Batches that the window must hold."""

    batches: tuple[BatchTrace, ...]
    """In order of time, those that warmed up included."""

    @property
    def started_s(self) -> float:
        return self.batches[0].started_s


Load = LoadTrace | BatchLoad


@dataclass(frozen=True, kw_only=True)
class GpuIdentity:
    """Which GPU it is; what must be equal before energies may be compared."""

    uuid: str
    name: str
    """NVML's device name."""

    memory_bytes: int
    power_limit_w: float | None
    """Enforced power limit; ``None`` where NVML does not tell."""

    mig: bool
    driver: str
    tells_power: bool = True
    """``False`` where NVML says that this GPU does not support telling its power."""

    links: tuple[tuple[str, str], ...] = ()
    """How it reaches each other GPU of the machine, by that one's UUID: ``nvlink-18`` (active
    links), or the nearest common ancestor on PCIe, such as ``host-bridge``."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One reading of one GPU; ``None`` where NVML does not offer the quantity."""

    time_s: float
    """When the energy counter's answer came."""

    took_s: float
    """How long the energy counter's answer took."""

    energy_mj: int
    """NVML's total energy counter, in millijoules since the driver was loaded."""

    power_w: float | None = None
    temperature_c: float | None = None
    sm_clock_hz: float | None = None
    memory_clock_hz: float | None = None
    clock_event_reasons: int | None = None
    """NVML's bit mask of why clocks are not at their highest."""

    busy_share: float | None = None
    """Share of the last sample period in which any kernel ran, 0 to 1."""

    memory_used_bytes: int | None = None
    process_ids: tuple[int, ...] | None = None
    """Processes on the GPU; ``None`` in readings that did not ask."""

    power_limit_w: float | None = None
    mig: bool | None = None


@dataclass(frozen=True, kw_only=True)
class GpuTrace:
    """All readings of one GPU, in order of time.

    The energy counter is read often (``meter.PERIOD_S``); the slower quantities are filled
    in some of the readings only.
    """

    gpu: GpuIdentity
    readings: tuple[Reading, ...]
    error: str | None = None
    """Why reading stopped early, as NVML said it; ``None`` when it did not."""


@dataclass(frozen=True, kw_only=True)
class MeterTrace:
    """The readings of all GPUs of one measurement, each GPU once."""

    gpus: tuple[GpuTrace, ...]
    cpu_energy_j: float | None = None
    """RAPL package energy between first and last reading; ``None`` where unreadable."""

    dram_energy_j: float | None = None


LARGEST_ENERGY_MJ = 2**64 - 1
"""NVML's counter is an unsigned 64-bit integer."""

_HUGE = 1e30
_NUMBERS = (int, float)  # a tuple: a union is made anew at each of some ten thousand looks


def require_load(load: Load) -> None:
    """Refuse a load that nothing can be computed of.

    Raises:
        LoadError: It is empty, or holds what is not a number or not in order; names it.
    """
    if isinstance(load, BatchLoad):
        _require_batches(load)
    else:
        _require_requests(load)


def _require_batches(load: BatchLoad) -> None:
    if not load.batches or load.batch_size < 1:
        raise LoadError(f"{len(load.batches)} batches of {load.batch_size}: nothing was made.")
    latest_s = -inf
    for number, batch in enumerate(load.batches):
        for name, value in _unmeasured(vars(batch)):
            raise LoadError(f"{name} of batch {number} is {value}, which nobody measured.")
        if not latest_s <= batch.started_s < batch.finish_s:
            raise LoadError(
                f"batch {number} ran from {batch.started_s} s to {batch.finish_s} s, after one "
                f"that ended at {latest_s} s; the monotonic clock only rises."
            )
        latest_s = batch.finish_s


def _require_requests(load: LoadTrace) -> None:
    if load.max_concurrency < 1:
        raise LoadError(
            f"max_concurrency is {load.max_concurrency}: no request can be in flight."
        )
    if not load.requests or not load.server:
        raise LoadError(
            f"{len(load.requests)} requests ended and the server's counters were read "
            f"{len(load.server)} times; without them there is nothing to measure. See its log."
        )
    times = {"started_s": load.started_s, "ended_s": load.ended_s}
    client = {"client_cpu_s": load.client_cpu_s, "client_lag_s": load.client_lag_s}
    for place, values in (
        ("the load", {**times, **client}),
        *((f"request {request.index}", vars(request)) for request in load.requests),
        *((f"sample {i}", vars(sample)) for i, sample in enumerate(load.server)),
    ):
        for name, value in _unmeasured(values):
            raise LoadError(f"{name} of {place} is {value}, which nobody measured.")


def require_meter(meter: MeterTrace) -> None:
    """Refuse readings that nothing can be computed of.

    Raises:
        MeterError: One is no number, beyond the counter's range, or not in order of time.
    """
    for gpu in meter.gpus:
        latest_s = -inf
        for reading in gpu.readings:
            for name, value in _unmeasured(vars(reading)):
                raise MeterError(f"{gpu.gpu.uuid}: {name}={value} was never measured.")
            if not 0 <= reading.energy_mj <= LARGEST_ENERGY_MJ:
                raise MeterError(
                    f"{gpu.gpu.uuid}: the energy counter shows {reading.energy_mj} mJ, but it "
                    f"counts from 0 to {LARGEST_ENERGY_MJ}. Run `joules doctor`."
                )
            if reading.time_s < latest_s:
                raise MeterError(
                    f"{gpu.gpu.uuid}: a reading of {reading.time_s} s follows one of "
                    f"{latest_s} s, but the monotonic clock only rises."
                )
            latest_s = reading.time_s


def _unmeasured(fields: Mapping[str, object]) -> list[tuple[str, float]]:
    """Return the numbers that are NaN, infinite or beyond all sense; energy is judged apart."""
    return [
        (name, value)
        for name, value in fields.items()
        if isinstance(value, _NUMBERS) and not -_HUGE < value < _HUGE and name != "energy_mj"
    ]
