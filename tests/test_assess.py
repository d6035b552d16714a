import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_joules.assess import Measured, assess, latency
from pytest_joules.errors import JoulesError, LoadError, MeterError, NoSteadyState
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.simulation.meter import Clock
from pytest_joules.steady_state import (
    Window,
    Work,
    full_batch_window,
    mean_request_s,
    work_window,
)
from pytest_joules.tasks import Lengths
from pytest_joules.testing import FakeMachine, Power
from pytest_joules.trace import GpuTrace, LoadTrace, ServerSample, require_meter
from tests.fakes.results import make_provenance
from tests.fakes.traces import closed_loop

LENGTHS = Lengths(mean=300, cv=0.5)
POINT = Point(model="Qwen/Qwen3-8B", batch_size=16, output_tokens=LENGTHS)
PROCEDURE = Procedure()


def draw(watts: float) -> Power:
    return lambda *_: watts


def measure(point: Point = POINT, *, machine: FakeMachine | None = None) -> Measured:
    """Record a point on a fake machine whose GPUs draw 400 W and make 50 steps a second."""
    machine = machine or FakeMachine(power_w=draw(400.0))
    launch = plan([point], stack=Stack(), gpu="h200").launches[0]
    uuids = [gpu.uuid for gpu in machine.identify()[: point.num_gpus]]
    with (
        machine.started(launch, gpu_uuids=uuids) as server,
        machine.recording(uuids) as recording,
    ):
        load = server.drive(point, min_window_s=60, deadline_s=3600)
    return Measured(
        point=point,
        source="fake",
        gpu="h200",
        launch_id="one",
        load=load,
        meter=recording.trace(),
        provenance=make_provenance(gpu_model="NVIDIA H200", num_gpus=point.num_gpus),
        own_pids=server.process_ids,
    )


GOOD = measure()


def judge(measured: Measured = GOOD) -> Result:
    return assess(measured, PROCEDURE)


def codes(measured: Measured) -> set[str]:
    return {reason.code for reason in judge(measured).reasons}


def with_load(**changes: Any) -> Measured:
    return replace(GOOD, load=replace(GOOD.load, **changes))


def with_gpus(*gpus: GpuTrace) -> Measured:
    return replace(GOOD, meter=replace(GOOD.meter, gpus=gpus))


def test_energy_per_token_is_power_over_throughput() -> None:
    result = judge()

    # 16 requests, each one token in 20 ms: 800 tokens/s; 400 W / 800 tokens/s = 0.5 J
    assert result.reasons == ()
    assert result.throughput_tokens_per_s == pytest.approx(800, rel=1e-3)
    assert result.power_w == pytest.approx(400, rel=1e-3)
    assert result.energy_per_token_j == pytest.approx(0.5, rel=1e-3)
    assert result.mean_batch_size == pytest.approx(16)
    assert result.median_itl_s == pytest.approx(0.02)
    assert result.median_ttft_s == pytest.approx(0.02)
    found = result.latency_intervals
    assert found.num_itl_requests > 1
    assert found.num_ttft_requests > 1
    assert found.median_itl_s == pytest.approx((0.02, 0.02))
    assert found.median_ttft_s == pytest.approx((0.02, 0.02))
    assert found.p99_ttft_s == (pytest.approx(0.02), None)
    assert result.kv_cache_usage == 0.5


def test_a_cache_that_is_read_seldom_while_it_is_full_counts_as_long_as_it_is() -> None:
    """Full in the first half of the window, where nine answers of ten are late; then empty."""
    evidence = judge().evidence
    assert evidence is not None
    work = Work(start_index=evidence.start_index, end_index=evidence.end_index)
    window = work_window(GOOD.load, work)
    middle_s = window.start_s + window.duration_s / 2
    samples = tuple(
        replace(sample, kv_cache_usage=float(sample.time_s < middle_s))
        for index, sample in enumerate(GOOD.load.server)
        if sample.time_s >= middle_s or index % 10 == 0
    )

    assert judge(with_load(server=samples)).kv_cache_usage == pytest.approx(0.5, abs=0.02)


def test_the_gpus_of_a_point_add_up() -> None:
    result = judge(measure(POINT.but(num_gpus=2)))

    assert result.energy_per_token_j == pytest.approx(1.0, rel=1e-3)
    assert result.evidence is not None
    assert len(result.evidence.gpu_energy_j) == 2


def test_evidence_sums_are_those_of_the_series() -> None:
    result = judge()

    assert result.evidence is not None
    assert sum(result.evidence.series_energy_j) == pytest.approx(
        sum(result.evidence.gpu_energy_j)
    )
    assert sum(result.evidence.series_work_units) == pytest.approx(result.evidence.work_units)
    assert result.evidence.window_s > 55
    assert result.evidence.num_requests == len(GOOD.load.requests)
    readings = GOOD.meter.gpus[0].readings
    assert result.evidence.recording_s == readings[-1].time_s - readings[0].time_s


def work_of(result: Result) -> Work:
    assert result.evidence is not None
    return Work(start_index=result.evidence.start_index, end_index=result.evidence.end_index)


def test_frozen_work_is_measured_again_exactly() -> None:
    first = judge()
    machine = FakeMachine(power_w=draw(440.0), clock=Clock(now_s=5000.03))
    point = POINT.but(num_requests=len(GOOD.load.requests))

    again = judge(replace(measure(point, machine=machine), frozen_work=work_of(first)))

    assert work_of(again) == work_of(first)
    assert first.evidence is not None
    assert again.evidence is not None
    # Equal but for the ticks at its edges: at most 0.2 s of 800 tokens/s.
    assert again.evidence.work_units == pytest.approx(first.evidence.work_units, abs=160)
    assert again.energy_per_token_j / first.energy_per_token_j == pytest.approx(1.1, rel=1e-3)


def test_frozen_work_that_the_load_did_not_do_is_refused() -> None:
    with pytest.raises(NoSteadyState, match="only"):
        judge(replace(GOOD, frozen_work=Work(start_index=20, end_index=10_000)))


def reread(measured: Measured, change: Callable[[GpuTrace], GpuTrace]) -> Measured:
    gpus = tuple(change(gpu) for gpu in measured.meter.gpus)
    return replace(measured, meter=replace(measured.meter, gpus=gpus))


def middle_s(measured: Measured) -> float:
    full = full_batch_window(measured.load)
    return (full.start_s + full.end_s) / 2


@pytest.mark.parametrize("which", [0, 1])
def test_a_counter_that_froze_halfway_is_a_reason_though_half_is_left(which: int) -> None:
    two = measure(POINT.but(num_gpus=2))
    stop_s = middle_s(two) + 10  # leaves more than 30 s

    def freeze(gpu: GpuTrace) -> GpuTrace:
        if gpu.gpu.uuid != two.meter.gpus[which].gpu.uuid:
            return gpu
        last = next(r.energy_mj for r in reversed(gpu.readings) if r.time_s < stop_s)
        return replace(
            gpu,
            readings=tuple(
                replace(r, energy_mj=last) if r.time_s >= stop_s else r for r in gpu.readings
            ),
        )

    assert "counter-frozen" in codes(reread(two, freeze))


@pytest.mark.parametrize("which", [0, 1])
def test_a_gpu_whose_readings_end_halfway_is_a_reason(which: int) -> None:
    two = measure(POINT.but(num_gpus=2))
    stop_s = middle_s(two) + 10

    def cut(gpu: GpuTrace) -> GpuTrace:
        if gpu.gpu.uuid != two.meter.gpus[which].gpu.uuid:
            return gpu
        return replace(gpu, readings=tuple(r for r in gpu.readings if r.time_s < stop_s))

    assert "meter-gap" in codes(reread(two, cut))


@pytest.mark.parametrize(
    "ran_on",
    [("GPU-other",), ("GPU-fake-h200-0", "GPU-other")],
)
def test_readings_of_other_gpus_than_the_engine_ran_on_are_an_error(
    ran_on: tuple[str, ...],
) -> None:
    context = replace(GOOD.provenance.context, gpu_uuids=ran_on)
    wrong = replace(GOOD, provenance=replace(GOOD.provenance, context=context))

    with pytest.raises(MeterError, match="GPU-other"):
        judge(wrong)


def test_a_gpu_that_was_not_read_is_an_error() -> None:
    two = measure(POINT.but(num_gpus=2))

    with pytest.raises(MeterError, match="ran on 2 GPUs, but 1 were read"):
        judge(replace(two, meter=replace(two.meter, gpus=two.meter.gpus[:1])))
    with pytest.raises(MeterError, match="but 0 were read"):
        judge(with_gpus())


def test_a_gpu_counted_twice_is_a_reason() -> None:
    two = measure(POINT.but(num_gpus=2))
    gpu = two.meter.gpus[0]

    assert "gpu-twice" in codes(replace(two, meter=replace(two.meter, gpus=(gpu, gpu))))


def test_fewer_ticks_of_any_gpu_make_the_window_short() -> None:
    two = measure(POINT.but(num_gpus=2))

    def coarse(gpu: GpuTrace) -> GpuTrace:
        # Every fourth tick only: a counter of 0.4 s
        if gpu.gpu.uuid == two.meter.gpus[0].gpu.uuid:
            return gpu
        kept = [gpu.readings[i // 8 * 8].energy_mj for i in range(len(gpu.readings))]
        readings = [replace(r, energy_mj=e) for r, e in zip(gpu.readings, kept, strict=True)]
        return replace(gpu, readings=tuple(readings))

    assert "window-short" in codes(reread(two, coarse))


def between(samples: tuple[ServerSample, ...], first: float, last: float) -> Any:
    return tuple(s for s in samples if first <= s.time_s <= last)


def slow(load: LoadTrace, position: int, took_s: float) -> LoadTrace:
    samples = list(load.server)
    samples[position] = replace(samples[position], took_s=took_s)
    return replace(load, server=tuple(samples))


def crowded(load: LoadTrace, more: int) -> LoadTrace:
    """Somebody else's requests run all the time, and their tokens are not counted."""
    samples = tuple(replace(s, running=s.running + more) for s in load.server)
    return replace(load, server=samples)


def doubled(load: LoadTrace) -> LoadTrace:
    """Both sides count every token twice."""
    samples = tuple(replace(s, output_tokens=2 * s.output_tokens) for s in load.server)
    answers = tuple(replace(r, output_tokens=2 * r.output_tokens) for r in load.requests)
    return replace(load, server=samples, requests=answers)


BROKEN: dict[str, Measured] = {
    "no server samples": with_load(server=()),
    "one server sample": with_load(server=GOOD.load.server[:1]),
    "samples end halfway": with_load(server=between(GOOD.load.server, 0, middle_s(GOOD) + 10)),
    "samples backwards": with_load(server=GOOD.load.server[::-1]),
    "no requests": with_load(requests=()),
    "one request": with_load(requests=GOOD.load.requests[:1]),
    "no readings": with_gpus(replace(GOOD.meter.gpus[0], readings=())),
    "one reading": with_gpus(
        replace(GOOD.meter.gpus[0], readings=GOOD.meter.gpus[0].readings[:1])
    ),
    "readings of the ramp-up": with_gpus(
        replace(GOOD.meter.gpus[0], readings=GOOD.meter.gpus[0].readings[:20])
    ),
    "counter falls": with_gpus(
        replace(
            GOOD.meter.gpus[0],
            readings=tuple(
                replace(r, energy_mj=10**9 - r.energy_mj) for r in GOOD.meter.gpus[0].readings
            ),
        )
    ),
    "no tokens": with_load(server=tuple(replace(s, output_tokens=5) for s in GOOD.load.server)),
    "tokens are NaN": with_load(
        server=tuple(replace(s, output_tokens=float("nan")) for s in GOOD.load.server)
    ),
}


def counting(change: Callable[[float, float], float]) -> Measured:
    """Change the server's token counter, given time from the window's middle and value."""
    middle = middle_s(GOOD)
    return with_load(
        server=tuple(
            replace(s, output_tokens=change(s.time_s - middle, s.output_tokens))
            for s in GOOD.load.server
        )
    )


def reading(**changes: Any) -> Measured:
    """Change one reading in the middle."""
    gpu = GOOD.meter.gpus[0]
    half = len(gpu.readings) // 2
    changed = replace(gpu.readings[half], **changes)
    return with_gpus(
        replace(gpu, readings=(*gpu.readings[:half], changed, *gpu.readings[half + 1 :]))
    )


BROKEN |= {
    "token counter falls and recovers": counting(lambda t, n: n - 500 * (0 <= t < 0.15)),
    "token counter starts anew": counting(lambda t, n: n if t < 0 else 800 * t),
    "one token count is NaN": counting(lambda t, n: math.nan if 0 <= t < 0.1 else n),
    "one token count is infinite": counting(lambda t, n: math.inf if 0 <= t < 0.1 else n),
    "all token counts are too large": counting(lambda _, n: n + 1e40),
    "power is NaN": reading(power_w=math.nan),
    "power is infinite": reading(power_w=math.inf),
    "temperature is NaN": reading(temperature_c=math.nan),
    "energy is below zero": reading(energy_mj=-1),
    "energy is above 64 bits": reading(energy_mj=2**64),
    "energy is huge": reading(energy_mj=10**400),
    "energy is NaN": reading(energy_mj=math.nan),
    "a reading goes back in time": reading(time_s=0.0),
    "a reading has no time": reading(time_s=math.nan),
    "no request in flight": with_load(max_concurrency=0),
    "fewer than no request in flight": with_load(max_concurrency=-3),
    "a time is NaN": with_load(
        requests=(replace(GOOD.load.requests[0], finish_s=math.nan), *GOOD.load.requests[1:])
    ),
    "a count is huge": with_load(
        requests=(replace(GOOD.load.requests[0], output_tokens=10**400),)
    ),
    "a sample's time is NaN": with_load(
        server=(replace(GOOD.load.server[0], time_s=math.nan), *GOOD.load.server[1:])
    ),
    "the client's time is NaN": with_load(client_cpu_s=math.nan),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("frozen", [None, work_of(judge())], ids=["anew", "frozen"])
def test_broken_traces_end_as_errors_of_this_package(name: str, frozen: Work | None) -> None:
    with pytest.raises(JoulesError):
        judge(replace(BROKEN[name], frozen_work=frozen))


@pytest.mark.parametrize("energy_mj", [0, 2**64 - 1])
def test_the_whole_range_of_the_counter_can_be_read(energy_mj: int) -> None:
    require_meter(reading(energy_mj=energy_mj).meter)


def kept(load: LoadTrace, seconds: float) -> LoadTrace:
    """Let something before the server answer with what it said some time ago."""
    held, server = load.server[0], []
    for sample in load.server:
        if sample.time_s - held.time_s >= seconds:
            held = sample
        server.append(replace(held, time_s=sample.time_s, took_s=sample.took_s))
    return replace(load, server=tuple(server))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda load: replace(load, server=load.server[:200] + load.server[230:]),
            "scrape-slow",
        ),
        (lambda load: slow(load, 200, 3.0), "scrape-slow"),
        (lambda load: crowded(load, 2), "foreign-requests"),
        (doubled, "answers-differ"),
        # 0.458 J/token where 0.5 are right.
        (lambda load: kept(load, 7.0), "scrape-slow"),
    ],
    ids=["samples-missing", "one-slow-sample", "crowded", "tokens-doubled", "kept-metrics"],
)
def test_what_was_once_called_valid(
    change: Callable[[LoadTrace], LoadTrace], code: str
) -> None:
    assert codes(replace(GOOD, load=change(GOOD.load))) == {code}


def test_a_counter_off_by_ten_without_power_beside_it_is_a_reason() -> None:
    def tenth(gpu: GpuTrace) -> GpuTrace:
        return replace(
            gpu,
            readings=tuple(
                replace(r, energy_mj=r.energy_mj // 10, power_w=None) for r in gpu.readings
            ),
        )

    assert codes(reread(GOOD, tenth)) == {"power-unseen"}


def test_samples_that_end_early_name_what_is_missing() -> None:
    with pytest.raises(LoadError, match=r"counters were read from .* only"):
        judge(BROKEN["samples end halfway"])


def test_samples_that_begin_late_are_a_reason() -> None:
    late = with_load(server=between(GOOD.load.server, middle_s(GOOD), 1e9))

    assert "tokens-disagree" in codes(late)


def failed(load: LoadTrace, index: int) -> LoadTrace:
    broken = replace(
        load.requests[index],
        error="HTTP 500: no",
        output_tokens=0,
        itl_s=(9.0,),
        first_token_s=None,
    )
    return replace(load, requests=(*load.requests[:index], broken, *load.requests[index + 1 :]))


def test_a_failed_request_is_a_reason_and_counts_in_no_mean() -> None:
    index = len(GOOD.load.requests) // 2
    load = failed(GOOD.load, index)
    others = [r.output_tokens for r in GOOD.load.requests if r.index != index]

    result = judge(replace(GOOD, load=load))

    assert {"request-failed", "tokens-disagree"} >= {r.code for r in result.reasons}
    assert "request-failed" in {r.code for r in result.reasons}
    assert result.mean_output_tokens == pytest.approx(sum(others) / len(others))
    assert result.latency.p99_itl_s == pytest.approx(0.02)


def test_with_frozen_work_a_load_of_failures_is_still_a_result_with_reasons() -> None:
    requests = tuple(replace(r, error="no", output_tokens=0) for r in GOOD.load.requests)
    everything = replace(GOOD.load, requests=requests)

    result = judge(replace(GOOD, load=everything, frozen_work=work_of(judge())))

    assert "request-failed" in {r.code for r in result.reasons}
    assert result.mean_output_tokens is None
    assert result.latency.median_e2el_s is None


def reshaped(power: Callable[[float], float]) -> Measured:
    """Give the recorded GPU another power over time; its ticks stay."""
    gpu, joules, made = GOOD.meter.gpus[0], 0.0, []
    values = {r.energy_mj for r in gpu.readings}
    assert len(values) > 600
    last = gpu.readings[0]
    shown = 0.0
    for reading in gpu.readings:
        joules += power(reading.time_s) * (reading.time_s - last.time_s)
        if reading.energy_mj != last.energy_mj:
            shown = joules
        made.append(replace(reading, energy_mj=round(1000 * shown), power_w=None))
        last = reading
    return with_gpus(replace(gpu, readings=tuple(made)))


def start_s(measured: Measured, procedure: Procedure | None = None) -> float:
    index = work_of(assess(measured, procedure or PROCEDURE)).start_index
    return sorted(r.finish_s for r in measured.load.requests)[index - 1]


def test_a_ramp_up_that_matters_is_cut_and_one_that_does_not_is_kept() -> None:
    full = full_batch_window(GOOD.load)
    plain_s = full.start_s + mean_request_s(GOOD.load)
    until_s = full.start_s + 20

    strong = reshaped(lambda t: 300.0 if t < until_s else 400.0)
    weak = reshaped(lambda t: 398.0 if t < until_s else 400.0)

    assert start_s(strong) >= until_s
    assert plain_s <= start_s(GOOD) < plain_s + 3
    assert plain_s <= start_s(weak) < plain_s + 3


def test_a_short_series_is_not_cut_by_chance() -> None:
    full = full_batch_window(GOOD.load)
    plain_s = full.start_s + mean_request_s(GOOD.load)
    strong = reshaped(lambda t: 300.0 if t < full.start_s + 20 else 400.0)
    num_sub_windows = int(full.duration_s)

    at_least = replace(PROCEDURE, least_series=num_sub_windows - 1)
    more = replace(PROCEDURE, least_series=num_sub_windows + 1)

    assert start_s(strong, at_least) >= full.start_s + 20
    assert plain_s <= start_s(strong, more) < plain_s + 3


def test_a_second_without_tokens_does_not_keep_a_ramp_up_from_being_cut() -> None:
    full = full_batch_window(GOOD.load)
    until_s = full.start_s + 20
    stalled = (full.start_s + 2, full.start_s + 5)

    def held(sample: ServerSample) -> float:
        kept = min(max(sample.time_s - stalled[0], 0), stalled[1] - stalled[0])
        return sample.output_tokens - 800 * kept

    strong = reshaped(lambda t: 300.0 if t < until_s else 400.0)
    server = tuple(replace(s, output_tokens=held(s)) for s in GOOD.load.server)

    assert start_s(replace(strong, load=replace(GOOD.load, server=server))) >= until_s


def test_latencies_are_of_the_window() -> None:
    # One slot, requests of 2 s: sent at 0, 2, 4, 6; first tokens 0.5 s later, then two gaps
    # of 0.25 s each, at 0.75 and 1.0 s after sending.
    requests = closed_loop([2.0] * 4, slots=1).requests
    slower = [
        replace(requests[0], itl_s=(9.0,)),
        replace(requests[1], itl_s=(0.1, 0.3)),  # at 2.6 and 2.9 s
        requests[2],
        replace(requests[3], first_token_s=None),
    ]

    found = latency(slower, Window(start_s=2.65, end_s=4.8))

    # Gaps that end inside: 0.3 (2.9 s) and 0.25 (4.75 s); the one of 5.0 s is outside.
    assert found.median_itl_s == pytest.approx(0.275)
    assert found.median_ttft_s == pytest.approx(0.5)  # at 4.5 s; 2.5 s is outside
    assert found.median_e2el_s == pytest.approx(2.0)
    assert latency([], Window(start_s=0, end_s=1)).median_itl_s is None


def test_a_window_without_optional_readings_says_so() -> None:
    bare = reread(
        GOOD,
        lambda gpu: replace(
            gpu,
            readings=tuple(
                replace(r, temperature_c=None, sm_clock_hz=None, clock_event_reasons=None)
                for r in gpu.readings
            ),
        ),
    )
    samples = tuple(replace(s, kv_cache_usage=None, preemptions=None) for s in GOOD.load.server)

    result = judge(replace(bare, load=replace(GOOD.load, server=samples)))

    assert result.evidence is not None
    assert result.evidence.mean_temperature_c is None
    assert result.evidence.clock_event_reasons is None
    assert result.evidence.preemptions is None
    assert result.kv_cache_usage is None
    assert "clocks-unseen" in {note.code for note in result.notes}


def test_an_unknown_revision_of_real_weights_is_noted() -> None:
    def with_revision(revision: str | None, point: Point = POINT) -> set[str]:
        context = replace(GOOD.provenance.context, model_revision=revision)
        provenance = replace(GOOD.provenance, context=context)
        return {n.code for n in judge(replace(GOOD, provenance=provenance, point=point)).notes}

    assert "revision-unknown" in with_revision(None)
    assert "revision-unknown" not in with_revision("abc")
    assert "revision-unknown" not in with_revision(None, POINT.but(weights="dummy"))


def test_steps_tell_how_long_one_took() -> None:
    stepped = tuple(replace(s, steps=50 * s.time_s) for s in GOOD.load.server)

    result = judge(with_load(server=stepped))

    assert result.evidence is not None
    assert result.evidence.mean_step_s == pytest.approx(0.02)
