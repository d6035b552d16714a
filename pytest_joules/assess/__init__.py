"""From traces to a result: pure, so that a stored trace can be judged again later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from pytest_joules.assess import surroundings
from pytest_joules.assess.energy import WindowEnergy, ticks, window_energy, work_curve
from pytest_joules.assess.request_times import request_times
from pytest_joules.assess.sampling_error import latency_intervals
from pytest_joules.assess.timeline import timeline
from pytest_joules.assess.validity import (
    answer_reasons,
    load_notes,
    load_reasons,
    mean_batch_size,
    revision_note,
    time_weighted_mean,
    trust_note,
)
from pytest_joules.counter import counter_notes, meter_reasons
from pytest_joules.errors import MeterError, is_expected
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.provenance import Provenance
from pytest_joules.result import Evidence, Latency, Reason, Result, SourceName
from pytest_joules.steady_state import (
    Window,
    Work,
    finish_times,
    full_batch_window,
    mser5,
    steady_work,
    sub_window_ends,
    window_batches,
    work_window,
)
from pytest_joules.trace import (
    BatchLoad,
    GpuTrace,
    Load,
    MeterTrace,
    RequestTrace,
    ServerSample,
    require_load,
    require_meter,
)

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was recorded of one point in one launch."""

    point: Point
    source: SourceName
    gpu: str
    launch_id: str
    load: Load
    meter: MeterTrace
    provenance: Provenance
    own_pids: frozenset[int] = frozenset()
    """Processes of the engine; any other one on a GPU is foreign."""

    frozen_work: Work | None = None
    """The baseline's window as work; ``None`` finds the window anew."""


def assess(measured: Measured, procedure: Procedure) -> Result:
    """Find the window, its energy, and every reason not to trust it.

    Raises:
        NoSteadyState: There is no window to measure.
        MeterError: A counter does not advance or shows no number, or a GPU was not read.
        LoadError: The server's counters were not read in the whole window, or fell.
    """
    load, gpus = measured.load, measured.meter.gpus
    require_load(load)
    require_meter(measured.meter)
    _require_every_gpu(measured)
    work = measured.frozen_work or steady_work(
        load, settled_s=_settled_s(load, gpus, procedure)
    )
    window = work_window(load, work)
    energy = _energy(load, gpus, window)
    return Result(
        point=measured.point,
        source=measured.source,
        gpu=measured.gpu,
        energy_per_work_unit_j=energy.energy_per_work_unit_j,
        throughput_work_units_per_s=energy.work_units / energy.window.duration_s,
        provenance=measured.provenance,
        **_of_load(load, window, energy.window),
        evidence=_evidence(measured, energy, work),
        timeline=timeline(gpus, load, energy.window),
        reasons=_reasons(measured, window, procedure),
        notes=_notes(measured, energy, procedure, window=window),
    )


def _energy(load: Load, gpus: Sequence[GpuTrace], window: Window) -> WindowEnergy:
    ends_s = sub_window_ends(load, window)
    return window_energy(gpus, work_curve(load), window, ends_s=ends_s)


def _of_load(load: Load, window: Window, measured: Window) -> dict[str, Any]:
    """Return the fields of a result that tell what the engine did."""
    if isinstance(load, BatchLoad):
        inside = [batch.latency_s for batch in window_batches(load, window)]
        return {
            "mean_batch_size": float(load.batch_size),
            "latency": Latency(batch_latency_s=fmean(inside)),
        }
    answered = [request for request in load.requests if request.error is None]
    return {
        "mean_batch_size": mean_batch_size(load.server, measured),
        "mean_output_tokens": fmean(r.output_tokens for r in answered) if answered else None,
        "kv_cache_usage": time_weighted_mean(load.server, measured, "kv_cache_usage"),
        "latency": _with_server_times(latency(answered, window), load.server, measured),
        "latency_intervals": latency_intervals(
            [tuple(_gaps_inside(request, window)) for request in answered],
            _firsts_inside(answered, window),
        ),
    }


def latency(answered: Sequence[RequestTrace], window: Window) -> Latency:
    """Summarise latencies inside the window: while slots fill or empty, they are shorter.

    ITL and TTFT are of the streamed sample, E2EL of all requests; each event belongs to the
    window that it ends in.
    """
    gaps = [gap for request in answered for gap in _gaps_inside(request, window)]
    firsts = _firsts_inside(answered, window)
    whole = [r.finish_s - r.sent_s for r in answered if window.holds(r.finish_s)]
    return Latency(
        median_itl_s=_quantile(gaps, 0.5),
        p90_itl_s=_quantile(gaps, 0.9),
        p95_itl_s=_quantile(gaps, 0.95),
        p99_itl_s=_quantile(gaps, 0.99),
        median_ttft_s=_quantile(firsts, 0.5),
        p99_ttft_s=_quantile(firsts, 0.99),
        median_e2el_s=_quantile(whole, 0.5),
    )


def _with_server_times(
    seen: Latency, samples: Sequence[ServerSample], window: Window
) -> Latency:
    times = request_times(samples, window)
    if times is None:
        return seen
    return replace(seen, mean_preprocessing_s=times.preprocessing_s, mean_queue_s=times.queue_s)


def _gaps_inside(request: RequestTrace, window: Window) -> Iterator[float]:
    now_s = request.first_token_s
    if now_s is None:
        return
    for gap_s in request.itl_s:
        now_s += gap_s
        if window.holds(now_s):
            yield gap_s


def _firsts_inside(answered: Sequence[RequestTrace], window: Window) -> list[float]:
    return [
        r.first_token_s - r.sent_s
        for r in answered
        if r.first_token_s is not None and window.holds(r.first_token_s)
    ]


def _require_every_gpu(measured: Measured) -> None:
    needed, read = measured.point.num_gpus, len(measured.meter.gpus)
    if read < needed:
        raise MeterError(
            f"{measured.point.id} ran on {needed} GPUs, but {read} were read: the energy of "
            "the others is missing. Run `joules doctor`."
        )
    ran_on = measured.provenance.context.gpu_uuids
    read_of = [gpu.gpu.uuid for gpu in measured.meter.gpus]
    if ran_on and set(read_of) != set(ran_on):
        raise MeterError(
            f"{measured.point.id} ran on {', '.join(ran_on)}, but {', '.join(read_of)} were "
            "read: that energy is not its own. Run `joules doctor`."
        )


def _settled_s(load: Load, gpus: Sequence[GpuTrace], procedure: Procedure) -> float:
    """Return where MSER-5 cuts the full batch, or its start where the cut changes little.

    It works on work units per joule, which stay finite where a second did no work.
    """
    full = full_batch_window(load)
    energy = _energy(load, gpus, full)
    joules, units = energy.series_energy_j, energy.series_work_units
    rates = [n / e if e > 0 else 0.0 for e, n in zip(joules, units, strict=True)]
    if len(rates) < procedure.least_series:
        return full.start_s
    cut = mser5(rates)
    whole = sum(units) * sum(joules[cut:])
    rest = sum(units[cut:]) * sum(joules)
    if abs(rest - whole) <= procedure.least_bias * abs(whole):
        return full.start_s
    return energy.window.start_s + cut / len(rates) * energy.window.duration_s


def _reasons(measured: Measured, window: Window, procedure: Procedure) -> tuple[Reason, ...]:
    """Judge the window that was asked for, not the one that ticks and samples cover.

    A counter that froze halfway would otherwise end its own window and look sound.
    """
    counted = [ticks(gpu.readings)[0] for gpu in measured.meter.gpus]
    num_ticks = min(
        int(((tick_s > window.start_s) & (tick_s <= window.end_s)).sum()) for tick_s in counted
    )
    counters = meter_reasons(
        measured.meter,
        start_s=window.start_s,
        end_s=window.end_s,
        own_pids=measured.own_pids,
    )
    load = load_reasons(measured.load, window, procedure, num_ticks=num_ticks)
    if isinstance(measured.load, BatchLoad):
        return (*counters, *load)
    return (*counters, *load, *answer_reasons(measured.load, measured.point))


def _notes(
    measured: Measured, energy: WindowEnergy, procedure: Procedure, *, window: Window
) -> tuple[Reason, ...]:
    counters = tuple(
        note
        for gpu in measured.meter.gpus
        for note in counter_notes(
            gpu, start_s=window.start_s, end_s=window.end_s, own_pids=measured.own_pids
        )
    )
    revision = revision_note(measured.provenance.context.model_revision, measured.point)
    of_point = (*revision, *trust_note(measured.point))
    return (*counters, *load_notes(measured.load, energy, procedure), *of_point)


def _evidence(measured: Measured, energy: WindowEnergy, work: Work) -> Evidence:
    window, load = energy.window, measured.load
    inside = [r for g in measured.meter.gpus for r in g.readings if window.holds(r.time_s)]
    readings = measured.meter.gpus[0].readings
    masks = [r.clock_event_reasons for r in inside if r.clock_event_reasons is not None]
    return Evidence(
        launch_id=measured.launch_id,
        window_s=window.duration_s,
        gpu_energy_j=energy.gpu_energy_j,
        work_units=energy.work_units,
        series_energy_j=energy.series_energy_j,
        series_work_units=energy.series_work_units,
        num_requests=len(finish_times(load)),
        start_index=work.start_index,
        end_index=work.end_index,
        cpu_energy_j=measured.meter.cpu_energy_j,
        dram_energy_j=measured.meter.dram_energy_j,
        recording_s=readings[-1].time_s - readings[0].time_s,
        mean_temperature_c=_present([r.temperature_c for r in inside]),
        mean_sm_clock_hz=_present([r.sm_clock_hz for r in inside]),
        clock_event_reasons=int(np.bitwise_or.reduce(masks)) if masks else None,
        idle_power_w=surroundings.idle_power_w(measured.meter, load.started_s),
        busy_share=surroundings.busy_share(inside),
        power_capped_share=surroundings.power_capped_share(inside),
        **_of_requests(load, window),
    )


def _of_requests(load: Load, window: Window) -> dict[str, float | None]:
    if isinstance(load, BatchLoad):
        return {}
    return {
        "mean_in_flight": surroundings.mean_in_flight(load, window),
        "mean_waiting": time_weighted_mean(load.server, window, "waiting"),
        "mean_prompt_tokens": surroundings.mean_prompt_tokens(load),
        "mean_step_s": _mean_step_s(load.server, window),
        "preemptions": surroundings.rise(load.server, window, "preemptions"),
    }


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _present(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _mean_step_s(samples: Sequence[ServerSample], window: Window) -> float | None:
    steps = surroundings.rise(samples, window, "steps")
    times = surroundings.rise(samples, window, "time_s")
    return times / steps if steps and times else None
