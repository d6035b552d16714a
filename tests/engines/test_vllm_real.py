"""A real vLLM serves a tiny model with random weights: started, loaded, and always ended."""

import http.client
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from pytest_joules.energy import work_curve
from pytest_joules.engines import api
from pytest_joules.engines.vllm import VllmServer
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.steady_state import (
    Work,
    finish_times,
    first_full_batch_s,
    steady_work,
    work_window,
)
from pytest_joules.trace import LoadTrace
from tests.engines.conftest import listening, title

ROOT = Path(__file__).parents[2]
START_S = 300


@pytest.fixture(scope="module")
def traces(server: VllmServer, launch: Launch) -> dict[int, LoadTrace]:
    """Batch 8, then batch 4 on the same server."""
    return {
        point.batch_size: server.drive(point, min_window_s=0.0, deadline_s=300.0)
        for point in launch.points
    }


BATCHES = pytest.mark.parametrize("batch_size", [8, 4])


def test_a_server_tells_its_versions_and_processes(server: VllmServer) -> None:
    assert {"python", "torch", "transformers"} < server.packages.keys()
    assert any(name.startswith("vllm") for name in server.packages)
    titles = [title(pid) for pid in server.process_ids]
    assert any("EngineCore" in title for title in titles)
    assert os.getpid() not in server.process_ids


@BATCHES
def test_the_servers_tokens_are_those_of_the_requests(
    traces: dict[int, LoadTrace], point: Point, batch_size: int
) -> None:
    trace = traces[batch_size]
    first, last = trace.server[0], trace.server[-1]
    pinned = list(point.requests())

    assert [r.error for r in trace.requests] == [None] * 48
    assert [r.output_tokens for r in trace.requests] == [p.output_tokens for p in pinned]
    assert last.output_tokens - first.output_tokens == sum(p.output_tokens for p in pinned)
    assert last.prompt_tokens - first.prompt_tokens == sum(p.prompt_tokens for p in pinned)
    assert last.finished - first.finished == 48
    assert last.first_tokens - first.first_tokens == 48
    assert (first.running, last.running, last.waiting) == (0, 0, 0)


@BATCHES
def test_the_batch_is_full_while_the_queue_lasts(
    traces: dict[int, LoadTrace], batch_size: int
) -> None:
    trace = traces[batch_size]
    first = trace.server[0]
    busy = [
        sample
        for sample in trace.server
        if batch_size <= sample.finished - first.finished <= 48 - 2 * batch_size
    ]
    start, end = busy[0], busy[-1]
    assert start.steps is not None
    assert end.steps is not None

    achieved = (end.output_tokens - start.output_tokens) / (end.steps - start.steps)

    # Tokens over engine steps; a step in which a new request's prompt is read has one less.
    assert 0.7 * batch_size <= achieved <= batch_size
    assert max(sample.running + sample.waiting for sample in trace.server) <= batch_size


@BATCHES
def test_the_streamed_sample_has_latencies(
    traces: dict[int, LoadTrace], batch_size: int
) -> None:
    trace = traces[batch_size]
    streamed = [r for r in trace.requests if r.first_token_s is not None]

    assert len(streamed) == 16
    for request in streamed:
        assert request.first_token_s is not None
        assert request.sent_s < request.first_token_s <= request.finish_s
        assert len(request.itl_s) < request.output_tokens
        assert min(request.itl_s, default=0.0) >= 0
    latencies = [latency for request in streamed for latency in request.itl_s]
    assert len(latencies) > sum(r.output_tokens for r in streamed) / 2
    assert 0 < median(latencies) < (trace.ended_s - trace.started_s) / 10


@BATCHES
def test_samples_are_in_order_and_the_client_is_no_bottleneck(
    traces: dict[int, LoadTrace], batch_size: int
) -> None:
    trace = traces[batch_size]

    assert all(before.time_s < after.time_s for before, after in pairwise(trace.server))
    assert trace.server[0].time_s <= trace.started_s < trace.ended_s
    assert 0 < trace.client_cpu_s < trace.ended_s - trace.started_s


def test_the_key_is_in_no_log_and_no_command_line(server: VllmServer) -> None:
    key = server._target.api_key  # noqa: SLF001 nobody else may know it
    folder = server._folder  # noqa: SLF001
    files = [path for path in folder.rglob("*") if path.is_file()]

    assert len(key) >= 24
    assert files
    assert not [path for path in files if key in path.read_text(errors="replace")]
    assert not [pid for pid in server.process_ids if key in title(pid)]


def test_a_stranger_is_refused(server: VllmServer) -> None:
    target = server._target  # noqa: SLF001 a stranger knows the address alone
    body = {"model": target.model, "prompt": [1_000], "max_tokens": 1}
    for key in ("", "guessed"):
        stranger = replace(target, api_key=key)
        for path, asked in (("/v1/models", None), ("/v1/completions", body)):
            status, _ = api.ask(stranger, path, asked, timeout_s=30.0)
            assert status == http.client.UNAUTHORIZED


def test_no_process_listens_at_an_address_but_loopback(server: VllmServer) -> None:
    found = listening(server.process_ids)

    assert found
    assert not {ip for ip in found if ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}


LARGEST_DIFFERENCE = 0.005
FIXED = 100
"""Requests of a load whose work is fixed."""


@pytest.fixture(scope="module")
def loads(server: VllmServer, point: Point) -> list[LoadTrace]:
    """Two loads of the same requests, eight at once."""
    fixed = point.but(num_requests=FIXED)
    return [server.drive(fixed, min_window_s=0.0, deadline_s=300.0) for _ in range(2)]


@pytest.fixture(scope="module")
def work(loads: list[LoadTrace]) -> Work:
    """The window of the first load, frozen as finished requests."""
    return steady_work(loads[0], settled_s=first_full_batch_s(loads[0]))


def tokens_at_edges(trace: LoadTrace, work: Work) -> tuple[float, float]:
    window = work_window(trace, work)
    start, end = work_curve(trace)(np.array([window.start_s, window.end_s]))
    first = work_curve(trace)(np.array([trace.started_s]))[0]
    return float(start - first), float(end - first)


def test_the_same_requests_in_the_same_order_are_finished(loads: list[LoadTrace]) -> None:
    first, again = ([r.output_tokens for r in trace.requests] for trace in loads)

    assert first == again
    assert all(len(finish_times(trace)) == FIXED for trace in loads)


def test_a_window_cut_at_the_same_work_holds_the_same_tokens(
    loads: list[LoadTrace], work: Work
) -> None:
    first, again = (tokens_at_edges(trace, work) for trace in loads)

    assert work.end_index - work.start_index > FIXED / 2
    assert again[1] == pytest.approx(first[1], rel=LARGEST_DIFFERENCE)
    assert again[1] - again[0] == pytest.approx(first[1] - first[0], rel=LARGEST_DIFFERENCE)
