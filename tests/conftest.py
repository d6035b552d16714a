"""Fixtures that more than one test file needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.mock_nvml import MockNvml, compile_library

UNTRACED = Path(__file__).with_name("latent")
"""What fits and predicts by the million steps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long; leave to hand-worked cases what coverage is to see.

    Properties would show it the same lines many times.
    """
    items.sort(key=lambda item: item.get_closest_marker("takes_long") is None)
    for item in items:
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if is_property or UNTRACED in item.path.parents:
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session", autouse=True)
def _few_plugins() -> Iterator[None]:
    """Runs of pytest inside a test load these alone.

    Hypothesis' and others' cost each run half a second. That the entry point loads this one is
    seen where the README's commands are run.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        patch.setenv("PYTEST_PLUGINS", "pytest_joules.plugin,xdist.plugin")
        yield


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
