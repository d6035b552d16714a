"""Real ``diffusers`` and xDiT on the CPU, with tiny random weights: made, counted, ended."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_joules.batches import num_warm_up
from pytest_joules.engines import Engine, pipeline_server
from pytest_joules.engines.diffusers import DiffusersEngine
from pytest_joules.engines.pipeline_server import PipelineServer
from pytest_joules.engines.xdit import XditEngine
from pytest_joules.errors import LaunchError, ServerDied
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from tests.engines import tiny_pipelines
from tests.engines.conftest import gone, listening
from tests.engines.cpu_follower import worker_pids

pytestmark = pytest.mark.takes_long

DEADLINE_S = 200.0


def engine_of(point: Point, folder: Path) -> Engine:
    return {"diffusers": DiffusersEngine, "xdit": XditEngine}[point.engine](folder=folder)


@contextmanager
def serving(point: Point, stack: Stack, folder: Path) -> Iterator[PipelineServer]:
    launch = Launch(points=(point,), stack=stack, gpu="cpu")
    with engine_of(point, folder).started(launch, gpu_uuids=()) as server:
        yield server


ENGINES = {
    "diffusers": {"engine": "diffusers"},
    "xdit-1": {"engine": "xdit"},
    "xdit-2": {"engine": "xdit", "num_gpus": 2, "ulysses_degree": 2},
}


@pytest.fixture(scope="module", params=ENGINES)
def point(request: pytest.FixtureRequest, tiny_image: Point) -> Point:
    return tiny_image.but(**ENGINES[request.param])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launches")


@pytest.fixture(scope="module")
def server(point: Point, diffusion_stack: Stack, folder: Path) -> Iterator[PipelineServer]:
    """One worker for a module; that its end leaves nothing and is a good one is asserted."""
    with serving(point, diffusion_stack, folder) as running:
        yield running
        pids = running.process_ids
        child = running._worker._child  # noqa: SLF001
    assert len(pids) >= point.num_gpus
    assert gone(pids)
    assert child.returncode() == 0, child.log_tail(50)


def test_batches_follow_each_other_and_are_enough(server: PipelineServer, point: Point) -> None:
    load = server.drive(point, min_window_s=1.0, deadline_s=DEADLINE_S)

    assert load.batch_size == point.batch_size
    assert load.least_batches == 8
    warm_up = num_warm_up(load.batches)
    assert warm_up is not None
    assert len(load.batches) - warm_up >= 8
    assert all(a.finish_s <= b.started_s for a, b in pairwise(load.batches))
    assert all(batch.latency_s > 0 for batch in load.batches)


def test_other_shapes_and_batch_sizes_need_no_other_worker(
    server: PipelineServer, point: Point
) -> None:
    other = point.but(batch_size=1, steps=2, height=96, width=64, num_requests=3)
    load = server.drive(other, min_window_s=0.0, deadline_s=DEADLINE_S)

    assert len(load.batches) == 3
    assert load.num_made == 3


def test_a_server_tells_its_versions_and_processes(
    server: PipelineServer, point: Point
) -> None:
    assert {"python", "torch", "diffusers"} < server.packages.keys()
    assert len(server.process_ids & {*worker_pids()}) == point.num_gpus
    assert os.getpid() not in server.process_ids


def test_nothing_listens_beyond_loopback(server: PipelineServer, point: Point) -> None:
    """Ranks meet in files and talk over sockets, which gloo is told to bind to loopback."""
    small = point.but(num_requests=3 * point.batch_size)
    server.drive(small, min_window_s=0.0, deadline_s=DEADLINE_S)

    expected = {"127.0.0.1"} if point.engine == "xdit" else set()
    assert listening(server.process_ids) == expected


def test_ranks_meet_in_a_folder_with_a_space_but_not_with_a_hash(
    tiny_image: Point, diffusion_stack: Stack, tmp_path: Path
) -> None:
    """torch reads the path of their file as a URL's."""
    point = tiny_image.but(engine="xdit", num_requests=6)
    with serving(point, diffusion_stack, tmp_path / "two words") as server:
        server.drive(point, min_window_s=0.0, deadline_s=DEADLINE_S)
    with (
        pytest.raises(LaunchError, match=r"c#.* Run pytest in a folder without them"),
        serving(point, diffusion_stack, tmp_path / "c#"),
    ):
        pytest.fail("it started")


def test_a_video_pipeline(tiny_video: Point, diffusion_stack: Stack, tmp_path: Path) -> None:
    with serving(tiny_video, diffusion_stack, tmp_path) as server:
        load = server.drive(tiny_video, min_window_s=0.5, deadline_s=DEADLINE_S)

    assert load.least_batches == 2
    assert len(load.batches) >= 3


@pytest.mark.parametrize("engine", ["diffusers", "xdit"])
def test_real_weights_are_loaded_and_prompts_encoded(
    engine: str, tiny_image: Point, *, diffusion_stack: Stack, tmp_path: Path
) -> None:
    maker = Path(__file__).with_name("tiny_weights.py")
    components = json.dumps(tiny_pipelines.MODELS["PixArtSigmaPipeline"])
    folder = str(tmp_path / "pixart")
    command = [diffusion_stack.python, str(maker), folder, components]
    subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True)
    point = tiny_image.but(model=folder, weights="real", engine=engine, batch_size=3)
    with serving(point, diffusion_stack, tmp_path) as server:
        load = server.drive(point, min_window_s=0.1, deadline_s=DEADLINE_S)

    assert load.num_made % 3 == 0
    assert len(load.batches) >= 9


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
