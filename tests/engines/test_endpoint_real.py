"""Attaching to a real vLLM that somebody else started: metered, counted, left alone."""

from pathlib import Path

import numpy as np
import pytest

from pytest_joules.energy import work_curve
from pytest_joules.engines import endpoint
from pytest_joules.engines.endpoint import EndpointEngine
from pytest_joules.engines.vllm import VllmServer
from pytest_joules.load.client_counts import client_samples
from pytest_joules.measure import Outcome, Rig, measure
from pytest_joules.meter import ZeusMeter
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.result import Result
from pytest_joules.tasks import Lengths
from tests.engines.conftest import title
from tests.fakes.mock_nvml import MockNvml

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
