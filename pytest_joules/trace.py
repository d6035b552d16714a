"""What engines and meters record: event times and counter readings, nothing derived.

Every time is in seconds of the machine's monotonic clock (``time.monotonic``), which all
processes of one machine share, so traces of different processes can be laid side by side.
"""

from dataclasses import dataclass


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
    """Longest delay of the load generator's event loop."""


@dataclass(frozen=True, kw_only=True)
class BatchTrace:
    """One batch of a diffusion pipeline."""

    started_s: float
    finish_s: float


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
