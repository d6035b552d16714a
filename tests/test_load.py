"""Generator and sampler as the real processes that they are, against a fake server."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pytest_joules.errors import InvalidPoint, LoadError, ServerDied
from pytest_joules.load import (
    Limits,
    Target,
    given_up,
    offer,
    read_rows,
    read_trace,
    require_fits,
)
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths
from pytest_joules.trace import LoadTrace, RequestTrace, ServerSample
from tests.fakes.openai_server import Server, at, running

SHORT = Point(
    model="any/model",
    batch_size=4,
    num_requests=24,
    input_tokens=Lengths(mean=5, cv=0.5, longest=20),
    output_tokens=Lengths(mean=6, cv=0.5, shortest=3, longest=20),
)


class Watch:
    """A server's story, told in advance."""

    def __init__(self, *, dies_when: Callable[[], object] = bool, healthy: bool = True) -> None:
        self._dies_when, self._healthy = dies_when, healthy

    def require_running(self) -> None:
        if self._dies_when():
            raise ServerDied("it ended")

    def require_healthy(self) -> None:
        self.require_running()
        if not self._healthy:
            raise ServerDied("it does not answer")


def offered(
    server: Server, folder: Path, watch: Watch | None = None, *, deadline_s: float = 60.0
) -> LoadTrace:
    target = Target(host="127.0.0.1", port=server.port, model="served", api_key="secret")
    limits = Limits(min_window_s=0.0, deadline_s=deadline_s)
    return offer(target, SHORT, limits, folder=folder, server=watch or Watch())


def test_a_load_is_recorded_from_before_its_first_to_after_its_last_request(
    tmp_path: Path,
) -> None:
    with running(hold_for=4, total=24) as server:
        trace = offered(server, tmp_path)

    assert trace.max_concurrency == 4
    assert [request.index for request in trace.requests] == list(range(24))
    assert not [request for request in trace.requests if request.error]
    first, last = trace.server[0], trace.server[-1]
    assert first.time_s <= trace.started_s
    assert trace.ended_s <= last.time_s
    assert (first.output_tokens, first.finished) == (0, 0)
    assert last.output_tokens == sum(request.output_tokens for request in trace.requests)
    assert (last.finished, last.first_tokens, last.running) == (24, 24, 0)
    assert list(trace.server) == sorted(trace.server, key=lambda sample: sample.time_s)
    assert trace.client_cpu_s > 0


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    with running(api_key="k-e-y") as server:
        target = Target(host="127.0.0.1", port=server.port, model="served", api_key="k-e-y")
        limits = Limits(min_window_s=0.0, deadline_s=60.0)
        offer(target, SHORT, limits, folder=tmp_path, server=Watch())

    assert server.refused == 0
    assert not [path for path in tmp_path.iterdir() if b"k-e-y" in path.read_bytes()]
    assert "k-e-y" not in repr(target)


def test_a_failed_request_stays_in_the_trace(tmp_path: Path) -> None:
    with running(fault=at(9, "500")) as server:
        trace = offered(server, tmp_path)

    assert sum(request.error is not None for request in trace.requests) == 1
    assert len(trace.requests) == 24


def test_failed_requests_of_a_dying_server_are_its_death(tmp_path: Path) -> None:
    with (
        running(fault=at(9, "500")) as server,
        pytest.raises(ServerDied, match="does not answer"),
    ):
        offered(server, tmp_path, Watch(healthy=False))


def test_a_load_that_was_given_up_because_the_server_died_is_its_death(tmp_path: Path) -> None:
    with (
        running(fault=lambda *_: "500") as server,
        pytest.raises(ServerDied, match="does not answer"),
    ):
        offered(server, tmp_path, Watch(healthy=False))


@pytest.mark.parametrize("why", ["the last with: no route", "the last with: no route."])
def test_why_a_load_was_given_up_is_a_sentence(why: str) -> None:
    assert given_up(why, done=8).startswith(
        "the load was given up: the last with: no route. 8 requests had ended. "
    )


def test_a_load_that_was_given_up_though_the_server_lives_says_why(tmp_path: Path) -> None:
    with (
        running(fault=lambda *_: "500") as server,
        pytest.raises(LoadError, match=r"failed one after the other.*EngineDeadError"),
    ):
        offered(server, tmp_path)


def test_the_death_of_the_server_is_noticed_under_load(tmp_path: Path) -> None:
    with (
        running(fault=at(9, "hang")) as server,
        pytest.raises(ServerDied, match="it ended"),
    ):
        offered(server, tmp_path, Watch(dies_when=lambda: len(server.bodies) > 9))


def test_a_deadline_that_passes_is_an_error_and_closes_the_sockets(tmp_path: Path) -> None:
    with running(fault=at(9, "hang")) as server:
        with pytest.raises(LoadError, match="deadline of 2 s"):
            offered(server, tmp_path, deadline_s=2.0)
        assert server.in_flight == 0


def test_counters_that_are_missing_are_named_before_any_request_is_sent(
    tmp_path: Path,
) -> None:
    with (
        running(missing=("generation_tokens_total",)) as server,
        pytest.raises(LoadError, match="no vllm:generation_tokens_total"),
    ):
        offered(server, tmp_path)

    assert server.bodies == []


def test_a_point_longer_than_the_context_is_refused_before_any_process_starts() -> None:
    """Equal lengths of 8 + 8 tokens: a context of 16 is enough, 15 is not."""
    eight = Lengths(mean=8)
    point = SHORT.but(input_tokens=eight, output_tokens=eight)

    require_fits(point, Target(host="", port=0, model="m", max_model_len=16))
    require_fits(point, Target(host="", port=0, model="m", max_model_len=None))
    with pytest.raises(InvalidPoint, match="request 0 has 8 prompt and 8 output tokens"):
        require_fits(point, Target(host="", port=0, model="m", max_model_len=15))
    # A natural output is bounded by what room is left.
    require_fits(point.but(mode="natural"), Target(host="", port=0, model="m", max_model_len=9))


REQUEST = RequestTrace(index=0, sent_s=1.0, finish_s=2.0, prompt_tokens=3, output_tokens=4)
SAMPLE = ServerSample(
    time_s=0.5,
    took_s=0.1,
    running=0,
    waiting=0,
    output_tokens=0,
    prompt_tokens=0,
    first_tokens=0,
    finished=0,
)


def written(folder: Path, *, given_up: str = "", last_s: float = 2.5, end: bool = True) -> Path:
    events: list[dict[str, Any]] = [
        {"event": "start", "time_s": 1.0},
        {"event": "sent", "index": 0, "time_s": 1.0},
        {"event": "done", **asdict(REQUEST)},
        {"event": "end", "time_s": 2.0, "cpu_s": 0.1, "lag_s": 0.2, "given_up": given_up},
    ]
    rows = events if end else events[:-1]
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = [asdict(SAMPLE), {"error": "timed out"}, {**asdict(SAMPLE), "time_s": last_s}]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    return folder


def test_a_trace_worked_by_hand(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path), max_concurrency=1)

    assert trace == LoadTrace(
        max_concurrency=1,
        started_s=1.0,
        ended_s=2.0,
        requests=(REQUEST,),
        server=(SAMPLE, ServerSample(**{**asdict(SAMPLE), "time_s": 2.5})),
        client_cpu_s=0.1,
        client_lag_s=0.2,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"given_up": "the dog ate it"}, "given up: the dog ate it", id="given-up"),
        pytest.param({"end": False}, "no start or no end", id="cut-off"),
        pytest.param({"last_s": 2.05}, "not read both before", id="asked-before-the-end"),
    ],
)
def test_a_record_that_is_not_whole_is_refused(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadError, match=said):
        read_trace(written(tmp_path, **options), max_concurrency=1)


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')

    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    assert read_rows(tmp_path / "nothing-yet") == []
