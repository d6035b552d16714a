"""A real vLLM that fails, dies or loses its holder: told with its log, and nothing is left."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from time import monotonic, sleep

import pytest

from pytest_joules.engines.vllm import VllmEngine
from pytest_joules.errors import LaunchError, ServerDied
from pytest_joules.plan import Launch
from pytest_joules.process.supervisor import descendants
from tests.engines.conftest import PATIENCE_S, gone, title

ROOT = Path(__file__).parents[2]
START_S = 300


@pytest.fixture(scope="module")
def launch(launch: Launch) -> Launch:
    """As vLLM runs unless told otherwise: its core has workers, which must end, too."""
    usual = {k: v for k, v in launch.stack.env.items() if "MULTIPROCESSING" not in k}
    return replace(launch, stack=replace(launch.stack, env=usual))


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
            assert any("EngineCore" in title(pid) for pid in pids)
            assert any("Worker" in title(pid) for pid in pids)
        finally:
            holder.kill()

    assert gone(pids)


def _await_load(folder: Path, limit_s: float, still: Callable[[], bool]) -> None:
    deadline = monotonic() + limit_s
    while not any("done" in path.read_text() for path in folder.glob("*/load-1/events.jsonl")):
        assert still(), "it ended before it was under load"
        assert monotonic() < deadline, "no request was answered"
        sleep(0.1)


def _kill_core_under_load(pids: frozenset[int], folder: Path) -> None:
    _await_load(folder, PATIENCE_S, lambda: True)
    (core,) = [pid for pid in pids if "EngineCore" in title(pid)]
    os.kill(core, signal.SIGKILL)
