"""A worker of ``diffusers`` or xDiT, started on the CPU for one point."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_joules.engines import Engine
from pytest_joules.engines.diffusers import DiffusersEngine
from pytest_joules.engines.pipeline_server import PipelineServer
from pytest_joules.engines.xdit import XditEngine
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point

DEADLINE_S = 200.0

ENGINES = {
    "diffusers": {"engine": "diffusers"},
    "xdit-1": {"engine": "xdit"},
    "xdit-2": {"engine": "xdit", "num_gpus": 2, "ulysses_degree": 2},
}


def engine_of(point: Point, folder: Path) -> Engine:
    return {"diffusers": DiffusersEngine, "xdit": XditEngine}[point.engine](folder=folder)


@contextmanager
def serving(point: Point, stack: Stack, folder: Path) -> Iterator[PipelineServer]:
    launch = Launch(points=(point,), stack=stack, gpu="cpu")
    with engine_of(point, folder).started(launch, gpu_uuids=()) as server:
        yield server
