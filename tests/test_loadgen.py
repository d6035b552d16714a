"""The closed loop, against a server that counts what is in flight and can misbehave."""

import io
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_joules.errors import LoadError
from pytest_joules.load import KEY_VARIABLE, Job
from pytest_joules.load import generator as loadgen
from pytest_joules.load.asks import ask, is_streamed
from pytest_joules.load.connection import Sockets
from pytest_joules.load.generator import ClosedLoop, run
from pytest_joules.point import Point, Request
from pytest_joules.prompts import prompt_ids
from pytest_joules.tasks import Lengths
from pytest_joules.trace import RequestTrace
from tests.fakes.openai_server import FAULTS, Server, at, running

pytestmark = pytest.mark.no_cover

SHORT = Point(
    model="any/model",
    batch_size=4,
    num_requests=20,
    input_tokens=Lengths(mean=5, cv=0.5, longest=20),
    output_tokens=Lengths(mean=6, cv=0.5, shortest=3, longest=20),
)


def job(point: Point, port: int = 0, **changes: Any) -> Job:
    values = {"min_window_s": 0.0, "deadline_s": 60.0, **changes}
    url = f"http://127.0.0.1:{port}/v1/completions"
    return Job(url=url, model="served", point=point, **values)


def load(
    server: Server, point: Point = SHORT, key: str = "secret", **changes: Any
) -> tuple[dict[str, Any], list[RequestTrace]]:
    """Offer a load; return the last event and the requests."""
    out = io.StringIO()
    run(job(point, server.port, **changes), key, out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    done = [{**row, "itl_s": tuple(row["itl_s"])} for row in rows if row.pop("event") == "done"]
    return rows[-1], [RequestTrace(**row) for row in done]


def test_exactly_b_requests_are_in_flight_while_the_queue_lasts() -> None:
    with running(hold_for=4, total=20) as server:
        _, requests = load(server)

    assert server.most_in_flight == 4
    # The server answers only when it is full, or when nothing more is to come: had fewer
    # been kept in flight, the load would not have ended.
    assert len(requests) == 20
    assert [request.error for request in requests] == [None] * 20


@pytest.mark.no_cover
def test_three_hundred_requests_are_in_flight_at_once() -> None:
    """aiohttp would hold back all but 100 connections."""
    point = SHORT.but(batch_size=300, num_requests=900)
    with running(hold_for=300, total=900) as server:
        _, requests = load(server, point)

    assert server.most_in_flight == 300
    assert len(requests) == 900


def test_every_pinned_request_is_sent_once_and_counted_by_the_servers_usage() -> None:
    with running() as server:
        end, requests = load(server)

    pinned = {r.index: (r.prompt_tokens, r.output_tokens) for r in SHORT.requests()}
    assert {r.index: (r.prompt_tokens, r.output_tokens) for r in requests} == pinned
    assert sum(r.output_tokens for r in requests) == server.output_tokens
    assert all(r.sent_s <= r.finish_s for r in requests)
    assert end["given_up"] == ""
    assert end["cpu_s"] > 0
    assert end["lag_s"] >= 0


def test_a_request_is_sent_as_ids_with_its_exact_length() -> None:
    with running() as server:
        load(server, SHORT.but(seed=3))

    by_prompt = {tuple(body["prompt"]): body for body in server.bodies}
    for request in SHORT.but(seed=3).requests():
        body = by_prompt[tuple(prompt_ids(3, request.index, request.prompt_tokens))]
        assert body["max_tokens"] == body["min_tokens"] == request.output_tokens
        assert body["ignore_eos"] is True
        assert body["temperature"] == 0
        assert body["model"] == "served"


@pytest.mark.parametrize("per_chunk", [1, 3, 50])
def test_tokens_of_a_stream_come_from_usage_not_from_chunks(per_chunk: int) -> None:
    with running(tokens_per_chunk=per_chunk) as server:
        _, requests = load(server, sample_size=20)

    lengths = {r.index: r.output_tokens for r in SHORT.requests()}
    for request in requests:
        assert request.error is None
        assert request.output_tokens == lengths[request.index]
        assert request.first_token_s is not None
        assert request.sent_s <= request.first_token_s <= request.finish_s
        # What came in the first block has no latency between its tokens.
        assert len(request.itl_s) <= request.output_tokens - min(
            per_chunk, request.output_tokens
        )
        assert request.first_token_s + sum(request.itl_s) <= request.finish_s + 1e-6


OF_A_STREAM = {
    "malformed-sse",
    "list-sse",
    "error-sse",
    "no-done",
    "falling-usage",
    "drop-midway",
}
CASES = [
    pytest.param(fault, streamed, id=f"{fault}-{'streamed' if streamed else 'whole'}")
    for fault in FAULTS
    for streamed in (False, True)
    if (streamed or fault not in OF_A_STREAM) and not (streamed and fault == "no-json")
]


@pytest.mark.parametrize(("fault", "streamed"), CASES)
def test_a_misbehaving_answer_is_recorded_once_and_not_repeated(
    fault: str,
    streamed: bool,  # noqa: FBT001 pytest passes parameters by name
) -> None:
    victim = prompt_ids(0, 7, next(r for r in SHORT.requests() if r.index == 7).prompt_tokens)

    def at_the_seventh(body: dict[str, Any], number: int) -> str:
        del number
        return fault if body["prompt"] == victim else ""

    # With 20 of 20 sampled all requests stream; with 1 of 20 the seventh does not.
    with running(fault=at_the_seventh) as server:
        end, requests = load(server, sample_size=20 if streamed else 1)

    assert [r.index for r in requests if r.error] == [7]
    failed = next(r for r in requests if r.error)
    assert failed.output_tokens == 0
    assert len(server.bodies) == len(requests) == 20
    assert end["given_up"] == ""


EXPECTED = {
    "500": "status 500: EngineDeadError",
    "no-usage": "no token counts in usage None",
    "short-usage": r"usage says \d+ output tokens, \d+ were asked",
    "wrong-prompt": r"usage says \d+ prompt tokens, \d+ were sent",
}


@pytest.mark.parametrize(("fault", "said"), EXPECTED.items())
def test_an_error_says_what_the_server_did(fault: str, said: str) -> None:
    with running(fault=at(5, fault)) as server:
        _, requests = load(server, sample_size=1)

    (error,) = (r.error for r in requests if r.error)
    assert re.search(said, error)


def test_a_dead_server_ends_the_load_early() -> None:
    def dies(body: dict[str, Any], number: int) -> str:
        del body
        return "500" if number >= 30 else ""

    point = SHORT.but(num_requests=5000)
    with running(fault=dies) as server:
        end, requests = load(server, point)

    assert "8 requests failed one after the other" in end["given_up"]
    assert len(requests) < 50


def every_second(body: dict[str, Any], number: int) -> str:
    del body
    return "500" if number % 2 else ""


def test_scattered_failures_do_not_end_the_load() -> None:
    with running(fault=every_second) as server:
        end, requests = load(server, SHORT.but(num_requests=60))

    assert end["given_up"] == ""
    assert len(requests) == 60


def test_a_refused_key_is_an_error_of_every_request() -> None:
    with running() as server:
        end, requests = load(server, key="wrong")

    assert requests
    assert all("status 401" in (r.error or "") for r in requests)
    assert "401" in end["given_up"]


def test_no_server_is_an_error_of_every_request() -> None:
    end, requests = load(Server(port=1))

    assert 8 <= len(requests) < 20
    assert "Cannot connect" in end["given_up"]


def test_the_deadline_ends_a_load_that_hangs() -> None:
    with running(fault=at(3, "hang")) as server:
        end, requests = load(server, deadline_s=1.0)

    assert "deadline of 1 s" in end["given_up"]
    assert len(requests) < 20


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the load generator's clock jump by 0.7 s each time this is called."""
    jumps: list[float] = []
    monkeypatch.setattr(loadgen, "monotonic", lambda: monotonic() + sum(jumps))
    return lambda: jumps.append(0.7)


@pytest.mark.parametrize("at_index", [0, 9])
def test_work_that_takes_long_is_lag_but_for_the_ramp_ups(
    at_index: int, late: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = ClosedLoop.take

    def takes_long(self: ClosedLoop, answered: RequestTrace) -> None:
        if answered.index == at_index:
            late()
        take(self, answered)

    monkeypatch.setattr(ClosedLoop, "take", takes_long)
    with running() as server:
        end, _ = load(server, SHORT.but(batch_size=1))

    assert (0.7 <= end["lag_s"] < 1.4) is (at_index > 0)


def test_oversleeping_is_lag_to_within_a_tenth_of_a_second(
    late: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, calls = Sockets.ready, []

    def oversleeps(self: Sockets[Any], timeout_s: float) -> list[Any]:
        owners = ready(self, timeout_s)
        calls.append(timeout_s)
        if len(calls) == 15:
            late()
        return owners

    monkeypatch.setattr(Sockets, "ready", oversleeps)
    with running() as server:
        end, _ = load(server, SHORT.but(batch_size=1))

    assert 0.6 <= end["lag_s"] < 1.4


def test_sigterm_ends_the_process_and_its_sockets(tmp_path: Path) -> None:
    with running(fault=lambda *_: "hang") as server:
        path = tmp_path / "job.json"
        path.write_text(job(SHORT, server.port).to_json())
        command = [sys.executable, "-m", "pytest_joules.load.generator", str(path)]
        env = {**os.environ, KEY_VARIABLE: "secret"}
        with subprocess.Popen([*command, str(tmp_path / "events.jsonl")], env=env) as process:
            while server.in_flight < 4:
                assert process.poll() is None
            process.terminate()
            assert process.wait(30) == 1
        while server.in_flight:
            pass  # it sees them close

    (row,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(row)["event"] == "start"


class _Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def finish(loop: ClosedLoop, clock: _Clock, index: int) -> None:
    loop.take(
        RequestTrace(
            index=index,
            sent_s=clock.now_s - 8,
            finish_s=clock.now_s,
            prompt_tokens=1,
            output_tokens=1,
        )
    )


def drawn(loop: ClosedLoop, most: int) -> int:
    return sum(loop.next() is not None for _ in range(most))


def test_without_a_count_the_queue_lasts_until_the_window_is_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests of 8 s end every 2 s: the window opens with the first end at 102 s.

    When that of 132 s is the last but one, it is 30 s long.
    """
    clock = _Clock()
    monkeypatch.setattr(loadgen, "monotonic", clock)
    loop = ClosedLoop(job(SHORT.but(num_requests=None), min_window_s=30.0), io.StringIO())

    assert drawn(loop, 16) == 16
    for index in range(16):
        clock.now_s = 102.0 + 2 * index
        finish(loop, clock, index)
    assert clock.now_s == 132.0
    assert drawn(loop, 1) == 1
    clock.now_s = 134.0
    finish(loop, clock, 16)
    assert drawn(loop, 1) == 0


def test_without_a_count_at_least_three_batches_are_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock()
    monkeypatch.setattr(loadgen, "monotonic", clock)
    loop = ClosedLoop(job(SHORT.but(num_requests=None), min_window_s=0.0), io.StringIO())

    assert drawn(loop, 4) == 4
    for index in range(10):
        clock.now_s = 102.0 + 2 * index
        finish(loop, clock, index)
    assert drawn(loop, 100) == 8


def test_with_a_count_the_window_does_not_matter() -> None:
    loop = ClosedLoop(job(SHORT, min_window_s=1e9), io.StringIO())

    assert drawn(loop, 100) == 20


@given(seed=st.integers(0, 50), index=st.integers(0, 10_000), length=st.integers(1, 500))
def test_prompts_are_pinned_and_within_every_vocabulary(
    seed: int, index: int, length: int
) -> None:
    ids = prompt_ids(seed, index, length)

    assert len(ids) == length
    assert ids == prompt_ids(seed, index, length + 7)[:length]
    assert min(ids) >= 1_000
    assert max(ids) < 30_000


def test_prompts_differ_between_requests_and_seeds() -> None:
    made = {tuple(prompt_ids(seed, index, 8)) for seed in range(5) for index in range(100)}

    assert len(made) == 500


@given(batch=st.integers(1, 200), rounds=st.integers(3, 20), size=st.integers(1, 40))
def test_the_sample_is_about_as_large_as_asked_and_spread_over_the_load(
    batch: int, rounds: int, size: int
) -> None:
    point = SHORT.but(batch_size=batch, num_requests=batch * rounds)
    total = batch * rounds
    streamed = [i for i in range(total) if is_streamed(i, point, size)]

    assert min(size, total) <= len(streamed) <= min(2 * size, total)
    gaps = {after - before for before, after in pairwise(streamed)}
    assert len(gaps) <= 1
    assert streamed[0] <= max(gaps, default=total)


@pytest.mark.parametrize(
    ("context", "longest", "expected"),
    [
        pytest.param(None, 700, 700, id="unknown-context"),
        pytest.param(4096, 700, 700, id="fits"),
        pytest.param(512, 700, 502, id="the-context-bounds-it"),
    ],
)
def test_natural_outputs_are_left_to_the_model(
    context: int | None, longest: int, expected: int
) -> None:
    point = SHORT.but(mode="natural", output_tokens=Lengths(mean=6, cv=0.5, longest=longest))
    request = Request(index=3, prompt_tokens=10, output_tokens=6)

    sent = ask(request, job(point, max_model_len=context))

    body = json.loads(sent.body)
    assert body["max_tokens"] == expected
    assert "min_tokens" not in body
    assert "ignore_eos" not in body
    assert sent.output_tokens is None


def limits(soft: int, hard: int) -> Callable[[int], tuple[int, int]]:
    return lambda _: (soft, hard)


def test_a_low_limit_of_open_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", limits(1024, 20_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))

    loadgen.require_files(3072)
    loadgen.require_files(16)

    assert asked == [(3136, 20_000)]


def test_a_hard_limit_that_is_too_low_says_how_to_raise_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits(1024, 2048))

    with pytest.raises(LoadError, match="ulimit -Hn 3136"):
        loadgen.require_files(3072)


def test_a_job_survives_the_way_to_the_other_process(tmp_path: Path) -> None:
    made = job(SHORT.but(engine_args=["--x"]), 8000, max_model_len=99)
    path = tmp_path / "job.json"
    path.write_text(made.to_json())

    assert Job.from_json(path.read_text()) == made
