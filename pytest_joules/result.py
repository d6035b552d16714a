"""The result of measuring one point once: what was measured; the rest is derived."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pytest_joules.errors import NotMeasured, WrongUnit, is_expected
from pytest_joules.intervals import LatencyIntervals
from pytest_joules.point import Point
from pytest_joules.provenance import Provenance
from pytest_joules.units import Quantity, si

__tracebackhide__ = is_expected

SourceName = Literal["live", "recorded", "simulated", "fake"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A rule that a measurement broke, or a note on one that counts all the same."""

    code: str
    """Stable identifier, such as ``counter-frozen``; ``contract`` lists all."""

    text: str
    """The value seen, what it should be, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latencies in seconds; ``None`` where they were not measured."""

    median_itl_s: float | None = None
    p90_itl_s: float | None = None
    p95_itl_s: float | None = None
    p99_itl_s: float | None = None
    median_ttft_s: float | None = None
    p99_ttft_s: float | None = None
    median_e2el_s: float | None = None
    mean_preprocessing_s: float | None = None
    """Of requests finished in the window: time in the server but neither in the engine's queue
    nor running there. Images and videos are decoded, resized and cut into patches then, texts
    tokenized, and all of it handed to the engine; waiting for a core to do so is included,
    receiving and parsing the HTTP request is not."""

    mean_queue_s: float | None = None
    """Of the same requests: time in the engine's queue."""

    batch_latency_s: float | None = None
    """Mean time of one diffusion batch."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Sums and series of one measured window; what the gate and the diagnosis work on."""

    launch_id: str
    """Identifies the server start: points that share it are not independent."""

    window_s: float
    """Duration of the steady-state window."""

    gpu_energy_j: tuple[float, ...]
    """Joules of each GPU in the window, in order of use."""

    work_units: float
    """Output tokens, images or videos finished in the window."""

    series_energy_j: tuple[float, ...] = ()
    """Joules of consecutive sub-windows of about 1 s, all GPUs together, shape ``(n,)``."""

    series_work_units: tuple[float, ...] = ()
    """Work units of the same sub-windows, shape ``(n,)``."""

    num_requests: int = 0
    """Requests offered: the fixed work."""

    start_index: int = 0
    """Requests finished when the window opened; later runs cut at the same work."""

    end_index: int = 0
    """Requests finished when the window closed."""

    idle_power_w: float | None = None
    """Drawn by all GPUs with the engine loaded, before the first request; reported, never
    subtracted."""

    cpu_energy_j: float | None = None
    """Of the CPU packages over the whole recording, ramp-up and drain included: RAPL is read
    at its ends only. Divide by ``recording_s``, not by the window's work."""

    dram_energy_j: float | None = None
    """Of the memory modules, likewise."""

    recording_s: float | None = None
    """From the first reading to the last."""

    mean_temperature_c: float | None = None
    mean_sm_clock_hz: float | None = None
    clock_event_reasons: int | None = None
    """All reasons seen in the window, or-ed."""

    mean_step_s: float | None = None
    """Duration over engine steps."""

    preemptions: float | None = None
    mean_in_flight: float | None = None
    """Time-weighted mean of requests that the client waited for."""

    mean_waiting: float | None = None
    """Time-weighted mean of requests that the engine had taken and not yet begun."""

    mean_prompt_tokens: float | None = None
    """Mean prompt tokens of a finished request, as the server counts: a chat's template, images
    and frames included."""

    busy_share: float | None = None
    """Share of the time in which any kernel ran, mean of all GPUs; the rest they waited."""

    power_capped_share: float | None = None
    """Share of readings in which the power limit held the clocks down."""


Series = tuple[float | None, ...]
"""Evenly spaced means; ``None`` where nothing was read."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """How one launch looked, from the first reading to the last, down-sampled for people.

    No verdict rests on it. Each value is the mean of one step; time 0 is the first reading.
    """

    step_s: float
    """Distance between two values of a series."""

    window_start_s: float
    window_end_s: float
    power_w: Series = ()
    """Of all GPUs together, by their energy counters."""

    running: Series = ()
    """Requests in the engine's running batch."""

    kv_cache_usage: Series = ()
    """Share of the KV cache in use, 0 to 1."""

    temperature_c: Series = ()
    """Of the hottest GPU."""

    output_tokens_edges: tuple[float, ...] = ()
    """Edges of the histogram of output lengths, shape ``(n + 1,)``."""

    output_tokens_counts: tuple[int, ...] = ()
    """Requests whose output length falls between two edges, shape ``(n,)``."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Energy, speed and circumstances of one point in steady state."""

    point: Point
    source: SourceName
    gpu: str
    """The GPU as ``--gpu`` names it."""

    energy_per_work_unit_j: float
    """Joules of all GPUs per output token, image or video (paper, section 2)."""

    throughput_work_units_per_s: float
    provenance: Provenance
    mean_batch_size: float | None = None
    """Achieved batch: time-weighted mean of requests in the engine."""

    mean_output_tokens: float | None = None
    """Mean output tokens of a finished request."""

    kv_cache_usage: float | None = None
    """Mean share of the KV cache in use, 0 to 1."""

    latency: Latency = field(default_factory=Latency)
    latency_intervals: LatencyIntervals | None = None
    """``None`` where no request streamed, and for published and older results."""

    evidence: Evidence | None = None
    """``None`` for published results, whose windows are not public."""

    timeline: Timeline | None = None
    """``None`` for published results and for runs of a baseline, which keep no picture."""

    reasons: tuple[Reason, ...] = ()
    """Broken rules of the validity contract; empty for a valid measurement."""

    notes: tuple[Reason, ...] = ()
    """What a reader should know though it invalidates nothing."""

    @property
    def energy_per_token_j(self) -> float:
        """Joules per output token."""
        return self._per("token")

    @property
    def energy_per_image_j(self) -> float:
        """Joules per image."""
        return self._per("image")

    @property
    def energy_per_video_j(self) -> float:
        """Joules per video."""
        return self._per("video")

    @property
    def energy_per_response_j(self) -> float:
        """Joules per answered request: energy per token times mean output tokens."""
        if self.point.work_unit != "token":
            return self._quantity(self.energy_per_work_unit_j, "J/response")
        return self._quantity(
            self.energy_per_token_j * self._known("mean_output_tokens"), "J/response"
        )

    @property
    def power_w(self) -> float:
        """Mean power of all GPUs in the window."""
        return self._quantity(
            self.energy_per_work_unit_j * self.throughput_work_units_per_s, "W"
        )

    @property
    def throughput_tokens_per_s(self) -> float:
        """Output tokens per second."""
        self._per("token")
        return self._quantity(self.throughput_work_units_per_s, "token/s")

    @property
    def throughput_per_watt(self) -> float:
        """Work units per second and watt: the inverse of energy per unit (appendix C)."""
        return self._quantity(1 / self.energy_per_work_unit_j, f"{self.point.work_unit}/s/W")

    @property
    def median_itl_s(self) -> float:
        """Median inter-token latency."""
        return self._latency("median_itl_s")

    @property
    def median_ttft_s(self) -> float:
        """Median time to first token."""
        return self._latency("median_ttft_s")

    @property
    def mean_preprocessing_s(self) -> float:
        """Mean time that a request was prepared on the CPU before the engine took it."""
        return self._latency("mean_preprocessing_s")

    @property
    def batch_latency_s(self) -> float:
        """Mean time of one diffusion batch."""
        return self._latency("batch_latency_s")

    @property
    def is_valid(self) -> bool:
        """Whether the measurement met the validity contract."""
        return not self.reasons

    def __repr__(self) -> str:
        energy = si(self.energy_per_work_unit_j, f"J/{self.point.work_unit}")
        return f"<Result {self.point.id} on {self.gpu}, {self.source}: {energy}>"

    def but(self, **changes: Any) -> "Result":
        """Return this result with some fields changed."""
        return replace(self, **changes)

    def _per(self, unit: str) -> float:
        if self.point.work_unit != unit:
            raise WrongUnit(
                f"{self.point.id} produces {self.point.work_unit}s: ask for "
                f"energy_per_{self.point.work_unit}_j, not per {unit}."
            )
        return self._quantity(self.energy_per_work_unit_j, f"J/{unit}")

    def _quantity(self, value: float, unit: str) -> Quantity:
        return Quantity(value, unit, f"{self.point.id} on {self.gpu}, {self.source}")

    def _latency(self, name: str) -> float:
        return self._quantity(self._require(name, getattr(self.latency, name)), "s")

    def _known(self, name: str) -> float:
        return self._require(name, getattr(self, name))

    def _require(self, name: str, value: float | None) -> float:
        if value is None:
            raise NotMeasured(f"{self.point.id}: {name} is not in this {self.source} result.")
        return value

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-ready values; ``from_json`` rebuilds an equal result."""
        values = asdict(self)
        values["point"] = self.point.as_json()
        values["provenance"] = self.provenance.as_json()
        return {name: _with_lists(value) for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Result":
        """Rebuild it.

        Wrong keys and values raise ``TypeError``, ``KeyError``, ``ValueError`` or
        ``InvalidPoint``.

        Its point may be one already, where many runs share it. The comparison that an export
        puts beside a result is no part of it.
        """
        values = {name: value for name, value in values.items() if name != "comparison"}
        evidence, timeline = values.get("evidence"), values.get("timeline")
        intervals = values.get("latency_intervals")
        point = values["point"]
        return cls(
            **{
                **values,
                "point": point if isinstance(point, Point) else Point.from_json(point),
                "energy_per_work_unit_j": _number(values["energy_per_work_unit_j"]),
                "throughput_work_units_per_s": _number(values["throughput_work_units_per_s"]),
                "provenance": Provenance.from_json(values["provenance"]),
                "latency": Latency(**values.get("latency", {})),
                "latency_intervals": LatencyIntervals.from_json(intervals)
                if intervals
                else None,
                "evidence": _evidence(evidence) if evidence else None,
                "timeline": Timeline(**_with_tuples(timeline)) if timeline else None,
                "reasons": tuple(Reason(**reason) for reason in values.get("reasons", ())),
                "notes": tuple(Reason(**note) for note in values.get("notes", ())),
            }
        )


def _number(value: float | None) -> float:
    """Read what JSON has no number for, as only invalid results hold."""
    return math.nan if value is None else value


_WHOLE = ("num_requests", "start_index", "end_index", "clock_event_reasons")


def _evidence(values: Mapping[str, Any]) -> Evidence:
    # JSON Schema takes 3.0 for an integer; here it must be one.
    whole = {name: int(values[name]) for name in _WHOLE if isinstance(values.get(name), float)}
    made = Evidence(**{**_with_tuples(values), **whole})
    series = (made.series_energy_j, made.series_work_units)
    if not all(isinstance(each, tuple) for each in series) or len({*map(len, series)}) > 1:
        raise ValueError("series_energy_j and series_work_units must be lists of one length")
    return made


def _with_lists(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _with_lists(value) for key, value in values.items()}
    return (
        [_with_lists(value) for value in values] if isinstance(values, list | tuple) else values
    )


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
