"""A real A/A: vLLM against itself through the whole tool gives ten verdicts, none red."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_joules.plan import Stack
from tests.engines.follower import Follower
from tests.fakes.mock_nvml import MockNvml

PATIENCE_S = 400
# Short windows on a shared CPU are noisy, and one server for all ten keeps it to minutes.
PROJECT = """
    [tool.pytest-joules]
    gpu = "h200"
    window = 5
    tolerance = "15%"
    [tool.pytest-joules.stacks.default]
    python = "{python}"
    env = {{ {env} }}
"""
TESTS = """
    import pytest
    from pytest_joules import Lengths, Point

    TINY = Point(
        model={model!r},
        weights="dummy",
        max_model_len=512,
        engine_args=["--enforce-eager"],
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        # Long answers: on a busy CPU a slot stands empty for some steps after each.
        output_tokens=Lengths(mean=80, cv=0.4, shortest=40, longest=160),
    )

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("batch_size", [4, 8])
    def test_nothing_changed(energy_bench, batch_size, seed):
        energy_bench.check(TINY.but(batch_size=batch_size, seed=seed))
"""


def _pytest(folder: Path, mock: MockNvml, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env={**os.environ, **mock.env()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def mock(mock_nvml_library: Path, tmp_path: Path, tiny_model: Path) -> Iterator[MockNvml]:
    """A GPU whose power follows the tokens that vLLM makes."""
    made = MockNvml.create(tmp_path / "state", mock_nvml_library, num_gpus=1)
    with Follower(made, tiny_model):
        yield made


def test_ten_verdicts_and_no_false_alarm(
    *, mock: MockNvml, tmp_path: Path, tiny_model: Path, stack: Stack
) -> None:
    env = ", ".join(f'{key} = "{value}"' for key, value in stack.env.items())
    text = dedent(PROJECT.format(python=stack.python, env=env))
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "test_same.py").write_text(dedent(TESTS.format(model=str(tiny_model))))

    recorded = _pytest(tmp_path, mock, "--joules-record", "--joules-launches=2")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    run = _pytest(tmp_path, mock, "--junitxml=junit.xml")

    assert run.returncode == 0, run.stdout + run.stderr
    verdicts = [
        p.get("value")
        for p in ET.parse(tmp_path / "junit.xml").getroot().iter("property")
        if p.get("name") == "joules_verdict"
    ]
    assert verdicts == ["unchanged"] * 10
