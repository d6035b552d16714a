"""Attaching to a server that somebody else runs; here it runs in this very process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_joules.engines import AttachedServer, api
from pytest_joules.engines.endpoint import EndpointEngine, EndpointServer, target_of
from pytest_joules.errors import (
    ConfigurationError,
    InvalidPoint,
    LaunchError,
    MeterError,
    ServerDied,
)
from pytest_joules.gpus.choice import choose_gpus, gpus_of
from pytest_joules.plan import Launch, Stack, require_stack
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths
from pytest_joules.testing import FakeMachine
from tests.fakes.openai_server import Server, running

KEY = "JOULES_TEST_KEY"
POINT = Point(
    model="served",
    engine="endpoint",
    batch_size=4,
    num_requests=40,
    input_tokens=Lengths(mean=5, cv=0.5, longest=20),
    output_tokens=Lengths(mean=6, cv=0.5, shortest=3, longest=20),
)
ENGINE_PID = 4242


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")


def stack_of(url: str, **changes: Any) -> Stack:
    return Stack(**{"name": "theirs", "url": url, "api_key_env": KEY, **changes})


def launch_of(server: Server, point: Point = POINT, **changes: Any) -> Launch:
    stack = stack_of(f"http://localhost:{server.port}", **changes)
    return Launch(points=(point,), stack=stack, gpu="h200")


@contextmanager
def attached(server: Server, folder: Path, point: Point = POINT) -> Iterator[EndpointServer]:
    with EndpointEngine(folder=folder).started(launch_of(server, point)) as found:
        yield found


def test_a_server_without_metrics_is_counted_by_the_client(tmp_path: Path) -> None:
    with running(metrics_status=404, usage_at_end=True) as server:
        with attached(server, tmp_path) as found:
            trace = found.drive(POINT, min_window_s=0.0, deadline_s=60.0)
        assert server.in_flight == 0

    assert trace.counted_by == "client"
    assert all(body["stream"] for body in server.bodies)
    assert [r.error for r in trace.requests] == [None] * 40
    assert [r.itl_s for r in trace.requests] == [()] * 40
    first, last = trace.server[0], trace.server[-1]
    assert (first.output_tokens, last.output_tokens) == (0, server.output_tokens)
    assert first.time_s < trace.started_s < trace.ended_s < last.time_s
    assert max(sample.running for sample in trace.server) <= 4


def test_a_server_that_speaks_sglang_tells_its_batch(tmp_path: Path) -> None:
    with (
        running(speaks="sglang", hold_for=4, total=40) as server,
        attached(server, tmp_path) as found,
    ):
        trace = found.drive(POINT, min_window_s=0.0, deadline_s=60.0)

    assert trace.counted_by == "both"
    assert trace.server[-1].output_tokens == server.output_tokens
    assert {sample.kv_cache_usage for sample in trace.server} == {0.5}
    assert {r.output_tokens for r in trace.requests} == {
        r.output_tokens for r in POINT.requests()
    }


def test_a_server_that_speaks_vllm_counts_itself(tmp_path: Path) -> None:
    with running() as server, attached(server, tmp_path) as found:
        trace = found.drive(POINT, min_window_s=0.0, deadline_s=60.0)

    assert trace.counted_by == "server"
    assert trace.server[-1].output_tokens == server.output_tokens
    assert not all("stream" in body for body in server.bodies)


def test_images_go_to_a_chat(tmp_path: Path) -> None:
    point = POINT.but(task="image-chat", num_images=2, width=32, height=32)
    with running(metrics_status=404) as server, attached(server, tmp_path, point) as found:
        trace = found.drive(point, min_window_s=0.0, deadline_s=60.0)

    pinned = [request.prompt_tokens + 2 * 9 for request in point.requests()]
    assert [r.prompt_tokens for r in trace.requests] == pinned
    assert [r.error for r in trace.requests] == [None] * 40


def test_the_server_runs_on_and_keeps_its_identity(tmp_path: Path) -> None:
    with running(version="1.2.3") as server:
        seen = []
        for _ in range(2):
            with attached(server, tmp_path) as found:
                assert isinstance(found, AttachedServer)
                seen.append((found.launch_id, found.packages))
                assert os.getpid() in found.process_ids
        found.require_healthy()

    assert seen[0] == seen[1]
    assert seen[0][1] == {"fake-llm": "1.2.3"}
    with pytest.raises(ServerDied, match="no longer answers"):
        found.require_healthy()


def test_a_version_that_nobody_tells_is_unknown(tmp_path: Path) -> None:
    with running() as server, attached(server, tmp_path) as found:
        assert found.packages == {"fake-llm": "unknown"}


def test_a_model_is_found_by_its_name_or_its_root(tmp_path: Path) -> None:
    point = POINT.but(model="org/served")
    with running() as server, attached(server, tmp_path, point) as found:
        found.drive(point, min_window_s=0.0, deadline_s=60.0)

    assert {body["model"] for body in server.bodies} == {"served"}


def test_another_model_is_refused_with_what_is_served(tmp_path: Path) -> None:
    with (
        running() as server,
        pytest.raises(LaunchError, match="serves served instead of else"),
        attached(server, tmp_path, POINT.but(model="else")),
    ):
        pytest.fail("it was attached")


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        '{"data": null}',
        '{"data": [1]}',
        '{"data": {"a": 1}}',
        '{"data": [{"root": "served"}]}',
        '{"data": [{"id": "served", "max_model_len": "x"}]}',
    ],
)
def test_an_answer_that_lists_no_models_is_told(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ask", lambda *_, **__: (200, answer))

    with (
        pytest.raises(LaunchError, match="lists no models at /v1/models but") as caught,
        attached(Server(port=1), tmp_path),
    ):
        pytest.fail("it was attached")

    assert answer in str(caught.value)


def test_a_wrong_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "wrong")
    with (
        running() as server,
        pytest.raises(LaunchError, match=r"/v1/models \(status 401.*api_key_env"),
        attached(server, tmp_path),
    ):
        pytest.fail("it was attached")


def test_no_server_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(LaunchError, match=r"no good answer to /v1/models .*Is it running"),
        attached(Server(port=1), tmp_path),
    ):
        pytest.fail("it was attached")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://localhost:8000", "give http://HOST:PORT"),
        ("localhost:8000", "give http://HOST:PORT"),
        ("http://", "give http://HOST:PORT"),
        ("http://localhost:8000/v2", "give http://HOST:PORT"),
        ("http://192.0.2.1:8000", "192.0.2.1, which is another machine"),
        ("http://no.such.host.invalid:8000", "has no address"),
        ("http://127.0.0.1:99999", "give http://HOST:PORT"),
        ("http://127.0.0.1:abc", "give http://HOST:PORT"),
        ("http://127.0.0.1:0", "port from 1 to 65535"),
        ("http://[::1", "IPv6 addresses are not supported"),
        ("http://[::1]:8000", "IPv6 addresses are not supported"),
        ("http://..", "give the name or the IPv4 address"),
        (f"http://{'a' * 70}:8000", "give the name or the IPv4 address"),
        ("http://127.0.0.1:8000?x=1", "without user, query or fragment"),
        ("http://127.0.0.1:8000#f", "without user, query or fragment"),
    ],
)
def test_a_url_that_is_not_of_this_machine_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        target_of(stack_of(url), "m")

    assert said in str(caught.value)
    assert f"[tool.pytest-joules.stacks.theirs] url={url!r}" in str(caught.value)


@pytest.mark.parametrize("place", ["127.0.0.1:8000", "127.0.0.1:abc"])
def test_a_password_in_a_url_is_refused_and_not_shown(place: str) -> None:
    with pytest.raises(ConfigurationError, match="give http://HOST:PORT") as caught:
        target_of(stack_of(f"http://user:pass@{place}"), "m")

    assert f"url='http://***@{place}'" in str(caught.value)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/v1/"])
def test_a_url_of_this_machine_is_taken_with_the_key_of_its_variable(url: str) -> None:
    target = target_of(stack_of(url), "m")

    assert (target.host, target.port, target.api_key) == ("127.0.0.1", 8000, "secret")
    assert target_of(stack_of(url, api_key_env=""), "m").api_key == ""
    with pytest.raises(ConfigurationError, match="no such environment variable"):
        target_of(stack_of(url, api_key_env="JOULES_NO_SUCH_KEY"), "m")


@pytest.mark.parametrize(
    "key", ["sec\nret", "sec\x00ret", "sec\x7fret", "sec\u2019ret", "sec\udc80ret"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {KEY: key})  # the real one takes no NUL

    with pytest.raises(ConfigurationError, match=f"api_key_env='{KEY}'.*Latin-1") as caught:
        target_of(stack_of("http://localhost:8000"), "m")

    assert "sec" not in str(caught.value)


def test_the_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, " secret\r\n")

    assert target_of(stack_of("http://localhost:8000"), "m").api_key == "secret"


def test_a_key_that_the_server_repeats_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "ask", lambda *_, **__: (401, "x" * 197 + "secret is wrong"))

    with (
        pytest.raises(LaunchError, match=r"status 401: x+\*\*\*") as caught,
        attached(Server(port=1), tmp_path),
    ):
        pytest.fail("it was attached")

    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "url", "said"),
    [
        ("endpoint", "", r'add url = "http://127.0.0.1:8000" to \[tool.pytest-joules'),
        ("vllm", "http://x", "engine='vllm' launches its own server"),
    ],
)
def test_a_stack_launches_or_is_attached_to(engine: str, url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        require_stack(POINT.but(engine=engine), Stack(url=url))
    require_stack(POINT.but(engine=engine), Stack(url="" if url else "http://x"))


@pytest.mark.parametrize(
    "fields",
    [
        {"engine_args": ["--x"]},
        {"max_model_len": 512},
        {"shared_server": False},
        {"trust_remote_code": True},
        {"tensor_parallel": 2, "num_gpus": 2},
    ],
)
def test_what_a_running_server_can_no_longer_heed_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidPoint, match="cannot be set with engine='endpoint'"):
        POINT.but(**fields)


def machine_of(num_gpus: int = 2, gpu: str = "h200") -> FakeMachine:
    return FakeMachine(gpu=gpu, num_gpus=num_gpus)


def told(*uuids: str, num_gpus: int = 1, gpu: str = "h200") -> Launch:
    stack = stack_of("http://localhost:1", gpus=uuids)
    return Launch(points=(POINT.but(num_gpus=num_gpus),), stack=stack, gpu=gpu)


FIRST, SECOND = "GPU-fake-h200-0", "GPU-fake-h200-1"


def test_the_gpus_are_those_that_hold_its_processes() -> None:
    found = gpus_of({ENGINE_PID, 7}, told(num_gpus=2), machine_of())

    assert [gpu.uuid for gpu in found] == [FIRST, SECOND]
    assert gpus_of({ENGINE_PID}, told(FIRST, SECOND, num_gpus=2), machine_of()) == found


def test_gpus_that_nvml_cannot_tell_are_taken_as_told() -> None:
    (gpu,) = gpus_of({7}, told(SECOND), machine_of())

    assert gpu.uuid == SECOND
    assert choose_gpus(machine_of().identify(), told(SECOND)) == (gpu,)


@pytest.mark.parametrize(
    ("pids", "launch", "said"),
    [
        ({7}, told(), r"NVML shows none of the processes 7 .*gpus = \[\"GPU-"),
        (
            {ENGINE_PID},
            told(FIRST),
            f"tells that the server uses {FIRST}, but NVML shows it on",
        ),
        ({ENGINE_PID}, told("GPU-x"), "names GPU-x, which is not among the visible"),
        ({ENGINE_PID}, told(num_gpus=1), "asks for 1 x h200, but the server"),
        ({ENGINE_PID}, told(num_gpus=2, gpu="b200"), "asks for 2 x b200, but the server"),
    ],
)
def test_gpus_that_do_not_fit_are_refused(pids: set[int], launch: Launch, said: str) -> None:
    with pytest.raises(MeterError, match=said):
        gpus_of(pids, launch, machine_of())
