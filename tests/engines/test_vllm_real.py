"""A real vLLM serves a tiny model with random weights: started, loaded, attached to, ended."""

import http.client
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from pytest_joules.assess.energy import work_curve
from pytest_joules.engines import api, endpoint
from pytest_joules.engines.endpoint import EndpointEngine
from pytest_joules.engines.vllm import VllmServer
from pytest_joules.load.client_counts import client_samples
from pytest_joules.measure import Outcome, measure
from pytest_joules.meter import ZeusMeter
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.rig import Rig
from pytest_joules.steady_state import (
    Work,
    finish_times,
    first_full_batch_s,
    steady_work,
    work_window,
)
from pytest_joules.tasks import Lengths
from pytest_joules.trace import LoadTrace
from tests.engines.conftest import listening, title
from tests.fakes.mock_nvml import MockNvml

pytestmark = pytest.mark.takes_long


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


def tokens_while_late(trace: LoadTrace) -> float:
    """What was counted while the client had not yet seen that a request was finished."""
    tokens = sum(request.output_tokens for request in trace.requests)
    return trace.client_lag_s * tokens / (trace.ended_s - trace.started_s)


def test_the_same_requests_in_the_same_order_are_finished(loads: list[LoadTrace]) -> None:
    first, again = ([r.output_tokens for r in trace.requests] for trace in loads)

    assert first == again
    assert all(len(finish_times(trace)) == FIXED for trace in loads)


def test_a_window_cut_at_the_same_work_holds_the_same_tokens(
    loads: list[LoadTrace], work: Work
) -> None:
    first, again = (tokens_at_edges(trace, work) for trace in loads)
    seen_late = max(map(tokens_while_late, loads))

    assert work.end_index - work.start_index > FIXED / 2
    assert again[1] == pytest.approx(first[1], rel=LARGEST_DIFFERENCE, abs=seen_late)
    assert again[1] - again[0] == pytest.approx(
        first[1] - first[0], rel=LARGEST_DIFFERENCE, abs=seen_late
    )


# Attaching to it as to somebody else's: metered, counted, left alone.

KEY = "JOULES_TEST_ENDPOINT_KEY"
WATTS = 300.0
DISTURBED = {"client-lagged", "client-busy", "scrape-slow", "batch-starved", "window-late"}
"""What a short load meets that has to share its core with other work."""

LAG_S = 1.0
"""How late a busy server may tell its counters."""


@pytest.fixture
def launch_of_it(
    *,
    server: VllmServer,
    mock_nvml: MockNvml,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
) -> Launch:
    """The server's core computes on the second of two GPUs."""
    target = server._target  # noqa: SLF001 whoever runs the server tells its users
    monkeypatch.setenv(KEY, target.api_key)
    (core,) = [pid for pid in server.process_ids if "EngineCore" in title(pid)]
    mock_nvml.set_processes(1, [core])
    mock_nvml.set_power(1, WATTS)
    point = Point(
        model=str(tiny_model),
        engine="endpoint",
        weights="dummy",
        batch_size=4,
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=50, cv=0.6, shortest=8, longest=200),
    )
    stack = Stack(name="theirs", url=f"http://127.0.0.1:{target.port}", api_key_env=KEY)
    return Launch(points=(point,), stack=stack, gpu="h200")


def measured(launch: Launch, folder: Path) -> Outcome:
    rig = Rig(
        engine=EndpointEngine(folder=folder),
        meter=ZeusMeter(),
        procedure=Procedure(min_window_s=4.0),
    )
    (outcome,) = measure(launch, rig, {})
    return outcome


def require_sound(outcome: Outcome, mock: MockNvml) -> Result:
    assert isinstance(outcome, Result), outcome
    assert {reason.code for reason in outcome.reasons} <= DISTURBED
    assert outcome.provenance.context.gpu_uuids == (mock.uuid(1),)
    assert outcome.provenance.context.packages["vllm"].startswith("0.")
    assert outcome.power_w == pytest.approx(WATTS, rel=0.03)
    assert outcome.mean_batch_size is not None
    assert outcome.mean_batch_size <= 4
    return outcome


def test_a_running_vllm_is_measured_on_its_gpu_and_left_alone(
    *, launch_of_it: Launch, mock_nvml: MockNvml, server: VllmServer, tmp_path: Path
) -> None:
    result = require_sound(measured(launch_of_it, tmp_path), mock_nvml)

    assert "client-counted" not in [note.code for note in result.notes]
    assert result.latency.mean_preprocessing_s is not None
    server.require_healthy()


def test_without_its_counters_the_clients_are_taken(
    *,
    launch_of_it: Launch,
    mock_nvml: MockNvml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "_counters", lambda _: "")

    result = require_sound(measured(launch_of_it, tmp_path), mock_nvml)

    assert "client-counted" in [note.code for note in result.notes]
    assert result.latency.mean_preprocessing_s is None


def test_the_clients_count_is_the_servers_but_for_requests_in_flight(
    server: VllmServer, point: Point
) -> None:
    """Of 24 requests all stream, so both can be had of one load."""
    few = point.but(num_requests=24)
    trace = server.drive(few, min_window_s=0.0, deadline_s=300.0)
    assert all(request.first_token_s for request in trace.requests)

    samples = client_samples(trace.requests, started_s=trace.started_s, ended_s=trace.ended_s)

    at = np.array([s.time_s for s in samples if trace.started_s < s.time_s < trace.ended_s])
    theirs = work_curve(trace)(at) - trace.server[0].output_tokens
    ours = np.interp(at, [s.time_s for s in samples], [s.output_tokens for s in samples])
    total = sum(request.output_tokens for request in trace.requests)
    assert samples[-1].output_tokens == total
    # Of requests in flight the two may differ, as tokens do not come evenly; of no others.
    in_flight = [
        sum(
            r.output_tokens
            for r in trace.requests
            if r.sent_s - LAG_S <= moment_s <= r.finish_s + LAG_S
        )
        for moment_s in at
    ]
    assert (np.abs(ours - theirs) <= in_flight).all()
