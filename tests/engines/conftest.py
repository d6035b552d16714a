"""The real engine, in an environment of its own, on the CPU."""

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from pytest_joules.engines.vllm import VllmEngine, VllmServer
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.tasks import Lengths
from tests.engines import tiny_pipelines
from tests.engines.project import CPU_ENV, make_tiny_model

VARIABLE = "JOULES_ENGINE_PYTHON"
DIFFUSION_VARIABLE = "JOULES_DIFFUSION_PYTHON"
PATIENCE_S = 60


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def listening(pids: frozenset[int]) -> set[str]:
    """Return the addresses at which processes accept TCP connections."""
    return {
        each.laddr.ip
        for pid in pids
        for each in psutil.Process(pid).net_connections(kind="tcp")
        if each.status == psutil.CONN_LISTEN
    }


def gone(pids: frozenset[int]) -> bool:
    """Wait until no process is left; tell whether that came true."""
    deadline = monotonic() + PATIENCE_S
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        if monotonic() > deadline:
            return not left
        sleep(0.05)
    return True


@pytest.fixture(scope="session")
def engine_python() -> str:
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} does not name the interpreter of an environment with vLLM")
    return python


@pytest.fixture(scope="session")
def stack(engine_python: str) -> Stack:
    return Stack(name="cpu", python=engine_python, env=CPU_ENV, deadline_s=300)


@pytest.fixture(scope="session")
def tiny_model(engine_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(engine_python, tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def diffusion_stack() -> Stack:
    python = os.environ.get(DIFFUSION_VARIABLE)
    if not python:
        pytest.skip(
            f"{DIFFUSION_VARIABLE} does not name the interpreter of an environment with "
            "diffusers and xfuser"
        )
    env = {
        "PYTEST_JOULES_DEVICE": "cpu",
        # One core a rank: processor time is then the work, however busy the machine is.
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).with_name("cpu_shim")),
    }
    return Stack(name="cpu", python=python, env=env, deadline_s=200)


def _tiny(folder: Path, pipeline: str, **fields: object) -> Point:
    shape = {"steps": 3, "height": 64, "width": 64, "batch_size": 2, "precision": "fp32"}
    model = str(tiny_pipelines.save(folder / "tiny", pipeline))
    return Point(**{"model": model, "weights": "dummy", **shape, **fields})


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> Point:
    folder = tmp_path_factory.mktemp("image")
    return _tiny(folder, "StableDiffusion3Pipeline", task="text-to-image")


@pytest.fixture(scope="session")
def tiny_light_image(tmp_path_factory: pytest.TempPathFactory) -> Point:
    """A model that computes so little that most of a step's work is shared by the batch."""
    folder = tmp_path_factory.mktemp("light")
    return _tiny(folder, "PixArtSigmaPipeline", task="text-to-image")


@pytest.fixture(scope="session")
def tiny_video(tmp_path_factory: pytest.TempPathFactory) -> Point:
    folder = tmp_path_factory.mktemp("video")
    return _tiny(folder, "WanPipeline", task="text-to-video", num_frames=5)


@pytest.fixture(scope="session")
def point(tiny_model: Path) -> Point:
    return Point(
        model=str(tiny_model),
        batch_size=8,
        weights="dummy",
        num_requests=48,
        max_model_len=1024,
        engine_args=["--enforce-eager"],
        # Staggered: equal lengths would finish in lockstep and empty the batch.
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=50, cv=0.6, shortest=8, longest=200),
    )


@pytest.fixture(scope="session")
def launch(point: Point, stack: Stack) -> Launch:
    return Launch(points=(point, point.but(batch_size=4)), stack=stack, gpu="cpu")


@pytest.fixture(scope="module")
def server(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """One server for a module, so that two never share the memory.

    That its end leaves nothing is asserted here.
    """
    engine = VllmEngine(folder=tmp_path_factory.mktemp("launches"))
    with engine.started(launch) as running:
        yield running
        pids = running.process_ids
    assert len(pids) >= 2
    assert gone(pids)
