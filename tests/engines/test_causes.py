"""Causes planted in a real vLLM on the CPU, and found: a smaller KV cache, a client that
offers less, a worker whose steps take longer.

GPU quantities come from the mock NVML, whose power follows the engine; what keeps requests out
of the batch, and how long steps take, is the real server's. The processor stands in for the
GPU, so that a slower worker is seen as what it is: more work of the device for each step.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_joules.plan import Stack
from tests.engines.follower import Follower
from tests.engines.project import ENGINES_YIELD, Project, slowed
from tests.fakes.mock_nvml import MockNvml

pytestmark = pytest.mark.measures

SETTINGS = """
    window = 7
    budget = 20
    tolerance = "8%"
"""

TESTS = """
    from pytest_joules import Lengths, Point

    TINY = Point(
        model={model!r},
        weights="dummy",
        batch_size=8,
        max_model_len=512,
        engine_args=["--enforce-eager"],
        # Of one length nearly: a short window holds few requests, whose mean would differ.
        input_tokens=Lengths(mean=64, cv=0.05, longest=128),
        output_tokens=Lengths(mean=60, cv=0.25, shortest=8, longest=120),
    )

    def test_energy(energy_bench):
        energy_bench.measure(TINY)
"""

_JOULES = "from pytest_joules.cli import app; app()"

# A CPU block holds 128 tokens, a request one or two of them; four are needed for one of 512.
FEW_BLOCKS = 6

STARVED = """
    import sys

    if "pytest_joules.load.generator" in sys.orig_argv:
        from pytest_joules.load.completions import Client

        send, served = Client.send, []

        def send_of_three(client, ask):
            if len(served) < 3 and client not in served:
                served.append(client)
            return send(client, ask) if client in served else None

        Client.send = send_of_three
"""


# On other cores of a busy machine steps take longer, too, but by a tenth or less.
SLOWER = """
    import time

    from vllm.v1.worker.cpu_worker import CPUWorker

    class SlowerWorker(CPUWorker):
        def execute_model(self, *args, **kwargs):
            began_s = time.perf_counter()
            made = super().execute_model(*args, **kwargs)
            time.sleep(0.7 * (time.perf_counter() - began_s))
            return made
"""


@pytest.fixture(scope="module")
def mock(mock_nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> MockNvml:
    path = tmp_path_factory.mktemp("gpu") / "state"
    return MockNvml.create(path, mock_nvml_library, num_gpus=1)


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slowed(tiny_model, tmp_path_factory.mktemp("slow") / "slow-llama")


@pytest.fixture(scope="module")
def folder(*, model: Path, stack: Stack, mock: MockNvml, follower: Follower) -> Iterator[Path]:
    del follower
    with tempfile.TemporaryDirectory() as name:
        project = Project(Path(name), stack=stack, mock=mock)
        project.write(SETTINGS, TESTS.format(model=str(model)))
        with (Path(name) / "pyproject.toml").open("a", encoding="utf-8") as out:
            out.write(_stacks(stack))
        yield Path(name)


@pytest.fixture(scope="module")
def follower(mock: MockNvml, model: Path) -> Iterator[Follower]:
    with Follower(mock, model) as running:
        yield running


def _stacks(stack: Stack) -> str:
    env = ", ".join(f'{key} = "{value}"' for key, value in stack.env.items())
    common = f'python = "{stack.python}"\nenv = {{ {env} }}\n'
    few = f'args = ["--num-gpu-blocks-override", "{FEW_BLOCKS}"]\n'
    slower = 'args = ["--worker-cls", "slower_worker.SlowerWorker"]\n'
    return "".join(
        f"\n[tool.pytest-joules.stacks.{name}]\n{common}command = {ENGINES_YIELD}\n{args}"
        for name, args in (("small_cache", few), ("slower", slower))
    )


@pytest.fixture(scope="module")
def project(folder: Path, stack: Stack, mock: MockNvml) -> Project:
    return Project(folder, stack=stack, mock=mock)


@pytest.fixture(scope="module")
def clean(project: Project) -> Path:
    return _measured(project, "clean.json")


def _measured(project: Project, name: str, *args: str) -> Path:
    run = project.run(f"--joules-export={name}", *args)
    path = project.path / name
    assert path.exists(), run.stdout + run.stderr
    assert json.loads(path.read_text()), run.stdout + run.stderr
    return path


def _causes(project: Project, then: Path, now: Path) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", _JOULES, "explain", str(then), str(now), "--json"],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=True,
    )
    (told,) = json.loads(run.stdout)
    assert sum(c["contribution"] for c in told["causes"]) == pytest.approx(told["ln_change"])
    return [cause["code"] for cause in told["causes"]]


def test_a_smaller_kv_cache_is_found(project: Project, clean: Path) -> None:
    now = _measured(project, "small-cache.json", "--joules-stack=small_cache")

    assert "memory-capacity" in _causes(project, clean, now)[:2]


@pytest.fixture
def planted(
    project: Project,
    *,
    stack: Stack,
    mock: MockNvml,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, str], Project]:
    """Put a module where every process of a run finds it."""

    def plant(module: str, text: str) -> Project:
        (tmp_path / f"{module}.py").write_text(dedent(text))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
        return Project(project.path, stack=stack, mock=mock)

    return plant


def test_a_starved_client_is_found(clean: Path, planted: Callable[[str, str], Project]) -> None:
    starved = planted("sitecustomize", STARVED)

    now = _measured(starved, "starved.json")

    assert "client-starved" in _causes(starved, clean, now)[:2]


def test_longer_steps_are_found(clean: Path, planted: Callable[[str, str], Project]) -> None:
    slower = planted("slower_worker", SLOWER)

    now = _measured(slower, "slower.json", "--joules-stack=slower")

    # The mock NVML tells a constant busy share: what is longer is the device's own work.
    assert {"gpu-work", "gpu-waits"} & set(_causes(slower, clean, now)[:2])
