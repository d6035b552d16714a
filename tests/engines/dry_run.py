"""A campaign on a machine with a mock GPU, small models and real engines on the CPU."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.campaign.running import HERE, Campaign
from tests.engines.cpu_follower import CpuFollower
from tests.engines.tiny_pipelines import MODELS
from tests.fakes.mock_nvml import MockNvml

POINTS = """
[regression]
batch_sizes = [2, 4]

[text-conversation]
engine = "transformers"
weights = "dummy"
input_tokens = { mean = 16, cv = 0.4, shortest = 4, longest = 32 }
output_tokens = { mean = 16, cv = 0.4, shortest = 4, longest = 40 }

[text-to-image]
weights = "dummy"
precision = "fp32"
steps = 8
height = 64
width = 64

[text-to-video]
weights = "dummy"
precision = "fp32"
steps = 4
height = 64
width = 64
num_frames = 9
"""


def make(folder: Path, python: str, steps: str) -> Campaign:
    """Write the small points and the steps; the project is the real one, its window shorter."""
    project = (HERE / "project.toml").read_text().replace("window = 10", "window = 2")
    files = {"points.toml": POINTS, "steps.toml": steps, "project.toml": project}
    for name, text in files.items():
        (folder / name).write_text(text)
    return Campaign(
        out=folder / "out",
        gpu="h200",
        engine_python=python,
        steps_file=folder / "steps.toml",
        points_file=folder / "points.toml",
        project_file=folder / "project.toml",
    )


@contextmanager
def on_mock_gpu(mock: MockNvml, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers compute on the CPU, small, and the mock's power follow them."""
    shim = str(Path(__file__).with_name("small_models"))
    variables = {
        **mock.variables(),
        "PYTHONPATH": os.pathsep.join([shim, os.environ.get("PYTHONPATH", "")]),
        "PYTEST_JOULES_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "SMALL_PIPELINES": json.dumps(MODELS),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with CpuFollower(mock, num_gpus=1):
        yield
