"""Fixtures that more than one test file needs."""

from pathlib import Path

import pytest

from tests.fakes.mock_nvml import MockNvml, compile_library

UNTRACED = Path(__file__).with_name("latent")
"""What fits and predicts by the million steps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to hand-worked cases what coverage is to see: properties repeat it many times."""
    for item in items:
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if is_property or UNTRACED in item.path.parents:
            item.add_marker(pytest.mark.no_cover)


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
