"""A cluster for all tests of this folder: Ray takes seconds to start."""

import os
from pathlib import Path

import pytest

from tests.fleet.nodes import Fleet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def _fleet(tmp_path_factory):
    pytest.importorskip("ray", reason="Ray is not installed (pytest-joules[fleet])")
    control = tmp_path_factory.mktemp("control")
    paths = [str(ROOT), str(Path(__file__).parent)]
    os.environ |= {
        "FLEET_CONTROL": str(control),
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_worker_niceness": "0",
        # The head forks for each client, and gRPC's handlers of a fork may crash the child.
        "GRPC_ENABLE_FORK_SUPPORT": "false",
    }
    made = Fleet(control)
    yield made
    made.close()


@pytest.fixture
def fleet(_fleet):
    """Two nodes with 8 GPUs each: ``a``, which is the head, and ``b``, which may be killed."""
    _fleet.add("b")
    _fleet.lasts(0)
    for marker in _fleet.engines():
        marker.unlink()
    yield _fleet
    _fleet.release("a", "b")
