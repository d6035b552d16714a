"""Fixtures that more than one test file needs."""

from pathlib import Path

import pytest

from tests.fakes.mock_nvml import MockNvml, compile_library


@pytest.fixture(scope="session")
def mock_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled mock of ``libnvidia-ml.so.1``; needs ``cc``."""
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def mock_nvml(
    mock_nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MockNvml:
    """Two healthy, idle H200s, for this process and its children."""
    mock = MockNvml.create(tmp_path / "nvml-state", mock_nvml_library, num_gpus=2)
    mock.install(monkeypatch)
    return mock


@pytest.fixture(autouse=True)
def _no_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs inside a test are not steps of the workflow that runs the tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
