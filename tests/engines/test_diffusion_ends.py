"""Real ``diffusers`` and xDiT that do not start, die or hang: told with their log, ended."""

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_joules.engines import pipeline_server
from pytest_joules.engines.pipeline_server import PipelineServer
from pytest_joules.errors import LaunchError, ServerDied
from pytest_joules.plan import Stack
from pytest_joules.point import Point
from tests.engines.conftest import gone
from tests.engines.cpu_follower import worker_pids
from tests.engines.pipelines import DEADLINE_S, ENGINES, serving

pytestmark = pytest.mark.takes_long


def test_ranks_meet_in_a_folder_with_a_space_but_not_with_a_hash(
    tiny_image: Point,
    diffusion_stack: Stack,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch reads the path of their file as a URL's."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    point = tiny_image.but(engine="xdit", num_requests=6)
    with serving(point, diffusion_stack, tmp_path / "two words") as server:
        server.drive(point, min_window_s=0.0, deadline_s=DEADLINE_S)
    # Torch's cache is the user's, one for all launches.
    assert {each.name.split("_")[0] for each in temporary.iterdir()} <= {"torchinductor"}
    with (
        pytest.raises(LaunchError, match=r"c#.* Run pytest in a folder without them"),
        serving(point, diffusion_stack, tmp_path / "c#"),
    ):
        pytest.fail("it started")


@pytest.fixture(params=["diffusers", "xdit-2"])
def mortal(
    request: pytest.FixtureRequest,
    tiny_image: Point,
    *,
    diffusion_stack: Stack,
    tmp_path: Path,
) -> Iterator[tuple[PipelineServer, Point]]:
    """A worker that will not live; none of its processes outlives it."""
    point = tiny_image.but(**ENGINES[request.param])
    with serving(point, diffusion_stack, tmp_path) as server:
        pids = server.process_ids
        yield server, point
    assert gone(pids)


def _drive_and_send(server: PipelineServer, point: Point, number: signal.Signals) -> str:
    """Send the last rank a signal under load; return what the driver is told."""
    rank = max(server.process_ids & {*worker_pids()})
    timer = threading.Timer(1.5, os.kill, [rank, number])
    timer.start()
    with pytest.raises(ServerDied) as caught:
        server.drive(point, min_window_s=3600.0, deadline_s=3600.0)
    timer.join()
    return str(caught.value)


def test_a_killed_rank_is_an_error_with_its_log(mortal: tuple[PipelineServer, Point]) -> None:
    told = _drive_and_send(*mortal, signal.SIGKILL)

    assert "worker.log" in told
    assert "ended by signal 9 (SIGKILL)" in told or "rank 1 was ended by signal 9" in told


def test_a_rank_that_hangs_is_an_error(
    mortal: tuple[PipelineServer, Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_server, "_STALLED_S", 3.0)

    # Three seconds, or ten times the slowest batch of a busy machine.
    assert re.search(r"said nothing for \d+ s", _drive_and_send(*mortal, signal.SIGSTOP))


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": "many"}, {"in_channels": 3}], ids=str
)
def test_a_configuration_that_cannot_work_is_told_with_its_log(
    tiny_image: Point, diffusion_stack: Stack, *, tmp_path: Path, change: dict[str, object]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_image.model, broken)
    path = broken / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    point = tiny_image.but(model=str(broken))
    with (
        pytest.raises((LaunchError, ServerDied), match="rank 0 of the worker failed") as caught,
        serving(point, diffusion_stack, tmp_path) as server,
    ):
        server.drive(point, min_window_s=0.1, deadline_s=DEADLINE_S)

    assert 'File "' in str(caught.value)


def test_without_a_gpu_nothing_is_run_by_itself(
    tiny_image: Point, diffusion_stack: Stack, tmp_path: Path
) -> None:
    gpu_only = Stack(python=diffusion_stack.python, deadline_s=DEADLINE_S)
    with (
        pytest.raises(LaunchError, match="sees no GPU"),
        serving(tiny_image, gpu_only, tmp_path),
    ):
        pytest.fail("it started")
