"""A real vLLM serves a tiny model with random weights: started, loaded, and always ended."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from textwrap import dedent
from time import monotonic, sleep

import pytest

from pytest_joules.engines.vllm import VllmEngine, VllmServer
from pytest_joules.errors import LaunchError, ServerDied
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.supervisor import descendants
from pytest_joules.trace import LoadTrace
from tests.engines.conftest import PATIENCE_S, gone

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
    titles = [_title(pid) for pid in server.process_ids]
    assert any("EngineCore" in title for title in titles)
    assert os.getpid() not in server.process_ids


@BATCHES
def test_the_servers_tokens_are_those_of_the_requests(
    traces: dict[int, LoadTrace], point: Point, batch_size: int
) -> None:
    trace = traces[batch_size]
    first, last = trace.server[0], trace.server[-1]
    pinned = list(point.requests())

    assert [r.error for r in trace.requests] == [None] * 64
    assert [r.output_tokens for r in trace.requests] == [p.output_tokens for p in pinned]
    assert last.output_tokens - first.output_tokens == sum(p.output_tokens for p in pinned)
    assert last.prompt_tokens - first.prompt_tokens == sum(p.prompt_tokens for p in pinned)
    assert last.finished - first.finished == 64
    assert last.first_tokens - first.first_tokens == 64
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
        if batch_size <= sample.finished - first.finished <= 64 - 2 * batch_size
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
    assert not [pid for pid in server.process_ids if key in _title(pid)]


def test_a_missing_model_folder_is_a_launch_error_with_a_hint(
    launch: Launch, tmp_path: Path
) -> None:
    point = launch.largest.but(model=str(tmp_path / "nowhere"))
    lost = Launch(points=(point,), stack=launch.stack, gpu="cpu")
    engine = VllmEngine(folder=tmp_path / "launches")

    with (
        pytest.raises(LaunchError, match="HFValidationError") as caught,
        engine.started(lost),
    ):
        pytest.fail("it started")

    assert "Hint: the model is neither a folder" in str(caught.value)
    assert "ended with code 1" in str(caught.value)
    assert len(list((tmp_path / "launches").iterdir())) == 1


def test_an_engine_that_dies_under_load_is_told_with_its_log(
    launch: Launch, tmp_path: Path
) -> None:
    engine = VllmEngine(folder=tmp_path)
    endless = launch.largest.but(num_requests=None)
    with engine.started(launch) as running:
        pids = running.process_ids
        killer = threading.Thread(target=_kill_core_under_load, args=(pids, tmp_path))
        killer.start()
        with pytest.raises(ServerDied) as caught:
            running.drive(endless, min_window_s=3600.0, deadline_s=7200.0)
        killer.join()

    assert "vllm.log" in str(caught.value)
    # vLLM ends with code 0 then: the code alone would say that all is well.
    assert "Cause: " in str(caught.value)
    assert "engine core exited unexpectedly" in str(caught.value)
    assert gone(pids)


HOLDER = """
    from pathlib import Path
    from pytest_joules.engines.vllm import VllmEngine
    from pytest_joules.plan import Launch, Stack
    from pytest_joules.point import Point
    point = Point.from_json({point!r})
    stack = Stack(python={python!r}, env={env!r}, deadline_s=300)
    with VllmEngine(folder=Path({folder!r})).started(
        Launch(points=(point,), stack=stack, gpu="cpu")
    ) as server:
        server.drive(point, min_window_s=3600.0, deadline_s=7200.0)
"""


def test_nothing_is_left_when_the_holder_of_a_server_is_killed_under_load(
    launch: Launch, tmp_path: Path
) -> None:
    code = HOLDER.format(
        point=launch.largest.but(num_requests=None).as_json(),
        python=launch.stack.python,
        env=dict(launch.stack.env),
        folder=str(tmp_path),
    )
    with subprocess.Popen([sys.executable, "-c", dedent(code)], cwd=ROOT) as holder:
        try:
            _await_load(tmp_path, START_S, lambda: holder.poll() is None)
            pids = descendants(holder.pid)
            assert any("EngineCore" in _title(pid) for pid in pids)
        finally:
            holder.kill()

    assert gone(pids)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _await_load(folder: Path, limit_s: float, still: Callable[[], bool]) -> None:
    deadline = monotonic() + limit_s
    while not any("done" in path.read_text() for path in folder.glob("*/load-1/events.jsonl")):
        assert still(), "it ended before it was under load"
        assert monotonic() < deadline, "no request was answered"
        sleep(0.1)


def _kill_core_under_load(pids: frozenset[int], folder: Path) -> None:
    _await_load(folder, PATIENCE_S, lambda: True)
    (core,) = [pid for pid in pids if "EngineCore" in _title(pid)]
    os.kill(core, signal.SIGKILL)
