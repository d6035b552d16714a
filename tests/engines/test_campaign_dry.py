"""The campaign runs to its end: real engines on the CPU, a mock GPU, small models.

What it measures here says nothing; that every kind of step ends, is stored and is told does.
"""

import json
import os
from pathlib import Path

import pytest

from benchmarks.campaign import running, telling
from tests.engines import dry_run
from tests.engines.conftest import DIFFUSION_VARIABLE
from tests.fakes.mock_nvml import MockNvml

STEPS = """
[[held_out]]
model = "Qwen/Qwen3-14B"
batch_size = 2

[[steps]]
name = "text"
part = "baseline"
seconds = 1
pytest = ["test_regression.py", "--joules-models=Qwen/Qwen3-8B", "--joules-record", "--joules-launches=1"]

[[steps]]
name = "predict"
part = "predicted"
seconds = 1
command = ["{python}", "-m", "pytest_joules", "fit", "latent", "{out}", "--gpu={gpu}", "--predict={out}/predicted.json", "--points={out}/held-out.json"]

[[steps]]
name = "image"
part = "baseline"
seconds = 1
pytest = ["test_regression.py", "--joules-models=stabilityai/stable-diffusion-3.5-medium", "--joules-record", "--joules-launches=1"]

[[steps]]
name = "starved"
part = "planted"
seconds = 1
beside = "neighbour.py"
pytest = ["test_regression.py", "-k=Qwen3-8B-4", "--joules-models=Qwen/Qwen3-8B", "--joules-stack=starved", "--joules-record", "--joules-launches=1"]
"""  # noqa: E501  as steps.toml is written

DISTURBED = ("counter-", "batches-apart", "never settled", "window-", "batch-")
"""What a step meets that has to share its cores with other work."""


@pytest.fixture
def campaign(tmp_path: Path) -> running.Campaign:
    python = os.environ.get(DIFFUSION_VARIABLE)
    if not python:
        pytest.skip(f"{DIFFUSION_VARIABLE} does not name the interpreter with the engines")
    return dry_run.make(tmp_path, python, STEPS.replace("num_blocks=8", "num_blocks=1"))


def test_every_kind_of_step_ends_and_is_told(
    campaign: running.Campaign,
    mock_nvml: MockNvml,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with dry_run.on_mock_gpu(mock_nvml, monkeypatch):
        campaign.prepare()
        done = {d.name: d for d in running.run(campaign, seconds=1200)}

    assert list(done) == ["text", "predict", "image", "starved"]
    for name in ("text", "image"):
        log = (campaign.out / "steps" / f"{name}.log").read_text()
        was_disturbed = any(code in log for code in DISTURBED)
        assert done[name].exit_code in ((1, 6) if was_disturbed else (0,)), log
        assert done[name].sessions, log
    if done["text"].exit_code == 0:
        predicted = json.loads((campaign.out / "predicted.json").read_text())
        assert len(predicted["predictions"]) == 1
        assert list((campaign.out / "baselines" / "h200" / "transformers").rglob("*.json"))
    text = "\n".join(telling.lines(campaign.out))
    assert "- starved:" in text
    assert "Qwen3-8B" in text or "qwen3-8b" in text
