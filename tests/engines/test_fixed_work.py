"""The same requests in the same order are the same work, on a real vLLM."""

import numpy as np
import pytest

from pytest_joules.energy import work_curve
from pytest_joules.engines.vllm import VllmServer
from pytest_joules.point import Point
from pytest_joules.steady_state import (
    Work,
    finish_times,
    first_full_batch_s,
    steady_work,
    work_window,
)
from pytest_joules.trace import LoadTrace

pytestmark = pytest.mark.alone

PATIENCE_S = 300.0
LARGEST_DIFFERENCE = 0.005


@pytest.fixture(scope="module")
def traces(server: VllmServer, point: Point) -> list[LoadTrace]:
    """Two loads of the same 160 requests, eight at once."""
    fixed = point.but(num_requests=160)
    return [server.drive(fixed, min_window_s=0.0, deadline_s=PATIENCE_S) for _ in range(2)]


@pytest.fixture(scope="module")
def work(traces: list[LoadTrace]) -> Work:
    """The window of the first load, frozen as finished requests."""
    return steady_work(traces[0], settled_s=first_full_batch_s(traces[0]))


def tokens_at_edges(trace: LoadTrace, work: Work) -> tuple[float, float]:
    window = work_window(trace, work)
    start, end = work_curve(trace)(np.array([window.start_s, window.end_s]))
    first = work_curve(trace)(np.array([trace.started_s]))[0]
    return float(start - first), float(end - first)


def test_the_requests_are_the_same_and_finish_in_nearly_the_same_order(
    traces: list[LoadTrace],
) -> None:
    first, again = ([r.output_tokens for r in trace.requests] for trace in traces)

    assert first == again
    assert all(len(finish_times(trace)) == 160 for trace in traces)


def test_a_window_cut_at_the_same_work_holds_the_same_tokens(
    traces: list[LoadTrace], work: Work
) -> None:
    first, again = (tokens_at_edges(trace, work) for trace in traces)

    assert work.end_index - work.start_index > 100
    assert again[1] == pytest.approx(first[1], rel=LARGEST_DIFFERENCE)
    assert again[1] - again[0] == pytest.approx(first[1] - first[0], rel=LARGEST_DIFFERENCE)
