"""Real ``diffusers`` and xDiT on the CPU, with tiny random weights: made, counted, ended."""

import json
import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_joules.batches import num_warm_up
from pytest_joules.engines.pipeline_server import PipelineServer
from pytest_joules.plan import Stack
from pytest_joules.point import Point
from tests.engines import tiny_pipelines
from tests.engines.conftest import gone, listening
from tests.engines.cpu_follower import worker_pids
from tests.engines.pipelines import DEADLINE_S, ENGINES, serving

pytestmark = pytest.mark.takes_long


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
    assert load.batch_size == 1


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

    assert load.batch_size == 3
    assert len(load.batches) >= 9
