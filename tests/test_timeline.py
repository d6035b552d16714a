import json
import math

import pytest

from pytest_joules import baseline
from pytest_joules.assess.timeline import MOST_BINS, MOST_STEPS, timeline
from pytest_joules.result import Result, Timeline
from pytest_joules.steady_state import Window
from pytest_joules.testing import FakeMachine, source_of
from pytest_joules.trace import (
    BatchLoad,
    BatchTrace,
    GpuTrace,
    LoadTrace,
    Reading,
    RequestTrace,
    ServerSample,
)
from tests.fakes.results import make_result
from tests.fakes.traces import closed_loop, gpu_identity, staircase

WINDOW = Window(start_s=2.0, end_s=8.0)


def samples(*rows: tuple[float, float, float | None]) -> tuple[ServerSample, ...]:
    return tuple(
        ServerSample(
            time_s=time_s,
            took_s=0.0,
            running=running,
            waiting=0,
            output_tokens=0,
            prompt_tokens=0,
            first_tokens=0,
            finished=0,
            kv_cache_usage=usage,
        )
        for time_s, running, usage in rows
    )


def load(*lengths: int, server: tuple[ServerSample, ...] = ()) -> LoadTrace:
    requests = tuple(
        RequestTrace(index=i, sent_s=0, finish_s=1, prompt_tokens=1, output_tokens=length)
        for i, length in enumerate(lengths)
    )
    return LoadTrace(
        max_concurrency=2,
        started_s=0,
        ended_s=10,
        requests=requests,
        server=server,
        client_cpu_s=0,
        client_lag_s=0,
    )


def test_power_is_of_all_gpus_and_the_window_is_where_it_was() -> None:
    # 100 W and 300 W, read for 10 s: ten steps of one second at 400 W.
    gpus = [
        staircase(lambda s: 100 * s, until_s=10.0),
        staircase(lambda s: 300 * s, until_s=10.0, index=1),
    ]

    drawn = timeline(gpus, load(), WINDOW)

    assert drawn.step_s == 1.0
    assert (drawn.window_start_s, drawn.window_end_s) == (2.0, 8.0)
    assert len(drawn.power_w) == 10
    assert drawn.power_w == pytest.approx([400.0] * 10, rel=0.01)


def test_server_series_are_means_of_a_step_and_absent_where_nothing_was_read() -> None:
    server = samples((0.25, 2, 0.2), (0.75, 4, 0.4), (2.5, 8, None))

    drawn = timeline([staircase(lambda s: s, until_s=3.0)], load(server=server), WINDOW)

    assert drawn.running == (3.0, None, 8.0)
    assert drawn.kv_cache_usage[0] == pytest.approx(0.3)
    assert drawn.kv_cache_usage[1:] == (None, None)
    assert drawn.temperature_c == ()


def test_temperature_is_that_of_the_hottest_gpu() -> None:
    def gpu(index: int, celsius: float) -> GpuTrace:
        readings = [
            Reading(time_s=t / 4, took_s=0, energy_mj=t * 1000, temperature_c=celsius)
            for t in range(9)
        ]
        return GpuTrace(gpu=gpu_identity(index), readings=tuple(readings))

    assert timeline([gpu(0, 50.0), gpu(1, 60.0)], load(), WINDOW).temperature_c[0] == 60.0


def test_a_long_launch_is_drawn_with_a_bounded_number_of_steps() -> None:
    drawn = timeline([staircase(lambda s: s, until_s=600.0)], load(), WINDOW)

    assert len(drawn.power_w) == MOST_STEPS
    assert drawn.step_s == 5.0


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [((), ()), ((7,), (1,)), ((1, 1, 2), (2, 1)), (tuple(range(1000)), (50,) * MOST_BINS)],
)
def test_output_lengths_are_counted(lengths: tuple[int, ...], counts: tuple[int, ...]) -> None:
    drawn = timeline([staircase(lambda s: s, until_s=3.0)], load(*lengths), WINDOW)

    assert drawn.output_tokens_counts == counts
    assert len(drawn.output_tokens_edges) == (len(counts) + 1 if counts else 0)


def test_a_pipeline_has_power_but_no_server() -> None:
    batches = tuple(BatchTrace(started_s=i, finish_s=i + 1) for i in range(3))
    made = BatchLoad(batch_size=2, least_batches=1, batches=batches)

    drawn = timeline([staircase(lambda s: 100 * s, until_s=3.0)], made, WINDOW)

    assert drawn.power_w == pytest.approx([100.0] * 3, rel=0.01)
    assert drawn.running == drawn.kv_cache_usage == drawn.output_tokens_counts == ()


def test_a_counter_without_ticks_draws_no_power() -> None:
    drawn = timeline([staircase(lambda _: 0.0, until_s=3.0)], closed_loop([1.0], 1), WINDOW)

    assert set(drawn.power_w) == {None}


def test_it_is_stored_with_a_result_and_left_out_of_a_baseline(tmp_path) -> None:
    picture = Timeline(step_s=1.0, window_start_s=0, window_end_s=1, power_w=(1.0, None))
    result = make_result(0.5, timeline=picture)

    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result
    (path,) = baseline.record(tmp_path, [result])
    assert "timeline" not in path.read_text()
    assert baseline.load(path)[result.point][0].timeline is None


def test_a_measured_point_has_one() -> None:
    from pytest_joules.plan import Stack, plan  # noqa: PLC0415
    from pytest_joules.point import Point  # noqa: PLC0415

    machine = FakeMachine()
    made = plan((Point(model="a/b", batch_size=4),), stack=Stack(), gpu="h200")
    (result,) = source_of(machine).outcomes(made.launches[0], {})

    drawn = result.timeline
    assert drawn.window_end_s - drawn.window_start_s == pytest.approx(result.evidence.window_s)
    inside = [
        watts
        for index, watts in enumerate(drawn.power_w)
        if drawn.window_start_s < index * drawn.step_s < drawn.window_end_s - drawn.step_s
    ]
    assert inside == pytest.approx([result.power_w] * len(inside), rel=0.02)
    assert max(v for v in drawn.running if v is not None) == 4.0
    assert not math.isnan(drawn.step_s)
