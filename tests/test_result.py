import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import NotMeasured, WrongUnit
from pytest_joules.intervals import LatencyIntervals
from pytest_joules.result import Evidence, Latency, Reason, Result
from pytest_joules.units import Quantity
from tests.fakes.results import make_evidence, make_result

TOKENS = make_result(0.5, batch_size=8, median_itl_s=0.02, mean_output_tokens=200.0)
IMAGES = make_result(100.0, model="x/y", task="text-to-image", batch_latency_s=2.0)
VIDEOS = make_result(1000.0, model="x/y", task="text-to-video")


def test_energy_is_asked_per_what_the_task_makes() -> None:
    assert TOKENS.energy_per_token_j == 0.5
    assert IMAGES.energy_per_image_j == 100.0
    assert VIDEOS.energy_per_video_j == 1000.0
    assert IMAGES.energy_per_response_j == 100.0
    assert TOKENS.energy_per_response_j == 100.0


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (TOKENS, "energy_per_image_j"),
        (TOKENS, "energy_per_video_j"),
        (IMAGES, "energy_per_token_j"),
        (IMAGES, "throughput_tokens_per_s"),
        (VIDEOS, "energy_per_image_j"),
    ],
)
def test_energy_per_anything_else_is_refused(result: Result, name: str) -> None:
    with pytest.raises(WrongUnit, match=f"ask for energy_per_{result.point.work_unit}_j"):
        getattr(result, name)


def test_power_and_speed_are_derived() -> None:
    # 0.5 J/token at 100 tokens/s
    assert TOKENS.power_w == 50.0
    assert TOKENS.throughput_tokens_per_s == 100.0
    assert TOKENS.throughput_per_watt == 2.0
    assert TOKENS.median_itl_s == 0.02
    assert IMAGES.batch_latency_s == 2.0


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (TOKENS, "median_ttft_s"),
        (TOKENS, "batch_latency_s"),
        (IMAGES, "median_itl_s"),
        (make_result(0.5), "energy_per_response_j"),
    ],
)
def test_what_was_not_measured_is_no_number(result: Result, name: str) -> None:
    with pytest.raises(NotMeasured, match="is not in this live result"):
        getattr(result, name)


def test_quantities_say_where_they_come_from() -> None:
    energy = TOKENS.energy_per_token_j

    assert isinstance(energy, Quantity)
    assert repr(energy) == (
        "500 mJ/token (qwen3-8b-text-conversation-bf16-1gpu-b8 on b200, live)"
    )
    assert repr(TOKENS) == (
        "<Result qwen3-8b-text-conversation-bf16-1gpu-b8 on b200, live: 500 mJ/token>"
    )


def test_a_result_with_a_reason_is_not_valid_and_one_with_a_note_is() -> None:
    reason = Reason(code="mig-on", text="MIG is on")

    assert TOKENS.but(notes=(reason,)).is_valid
    assert not TOKENS.but(reasons=(reason,)).is_valid


numbers = st.none() | st.floats(0, 1e9)
latencies = st.builds(Latency, **{field.name: numbers for field in fields(Latency)})


def evidences_of(length: int) -> st.SearchStrategy[Evidence]:
    """Both series have a value for each second."""
    series = st.lists(st.floats(0, 1e6), min_size=length, max_size=length).map(tuple)
    return st.builds(
        Evidence,
        launch_id=st.text(max_size=5),
        window_s=st.floats(1, 1e3),
        gpu_energy_j=st.lists(st.floats(0, 1e9), min_size=1, max_size=8).map(tuple),
        work_units=st.floats(1, 1e9),
        series_energy_j=series,
        series_work_units=series,
        start_index=st.integers(0, 10**6),
        cpu_energy_j=numbers,
        clock_event_reasons=st.none() | st.integers(0, 511),
    )


evidences = st.integers(0, 5).flatmap(evidences_of)
reasons = st.lists(st.builds(Reason, code=st.text(), text=st.text()), max_size=2).map(tuple)


highs = st.none() | st.floats(1e3, 1e9)
bounds = st.none() | st.tuples(st.floats(0, 1e3), highs)
intervals = st.builds(
    LatencyIntervals,
    num_itl_requests=st.integers(0, 99),
    num_ttft_requests=st.integers(0, 99),
    **{field.name: bounds for field in fields(LatencyIntervals) if field.name.endswith("_s")},
)


@given(
    latency=latencies,
    latency_intervals=st.none() | intervals,
    evidence=st.none() | evidences,
    reasons=reasons,
    notes=reasons,
)
def test_a_result_survives_json(**changes: Any) -> None:
    result = replace(TOKENS, **changes)

    again = Result.from_json(json.loads(json.dumps(result.as_json())))

    assert again == result
    assert hash(again) == hash(result)


@pytest.mark.parametrize("wrong", [[0.3, 0.2], [None, 0.2], [0.1]])
def test_an_interval_that_is_none_is_refused(wrong: list[float | None]) -> None:
    values = {"num_itl_requests": 1, "num_ttft_requests": 1, "p99_itl_s": wrong}

    with pytest.raises(ValueError, match="p99_itl_s"):
        Result.from_json({**TOKENS.as_json(), "latency_intervals": values})


def test_a_result_of_before_the_intervals_is_read() -> None:
    values = TOKENS.as_json()
    del values["latency_intervals"]

    assert Result.from_json(values).latency_intervals is None


def test_json_holds_lists_only() -> None:
    values = make_result(1.0, evidence=make_evidence(), engine_args=("--x",)).as_json()

    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("change", "error"),
    [({"colour": 1}, TypeError), ({"latency": {"colour": 1}}, TypeError)],
)
def test_unknown_keys_are_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Result.from_json({**TOKENS.as_json(), **change})


def test_a_missing_point_is_refused() -> None:
    values = TOKENS.as_json()
    del values["point"]

    with pytest.raises(KeyError):
        Result.from_json(values)
