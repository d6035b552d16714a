"""A user's repository on a machine with a mock GPU and a real engine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from pytest_joules.plan import Stack
from tests.fakes.mock_nvml import MockNvml

PATIENCE_S = 400
DISTURBED = (
    *("client-lagged", "client-busy", "scrape-slow", "batch-starved"),
    "counter-below-idle",  # the mock draws power by the token, and there were next to none
)
"""What a load generator and an engine meet that have to share their cores with other work."""

ENGINES_YIELD = ["nice", "-n", "5"]
"""Before an engine's command: two are measured at a time, and what drives and meters them must
not wait for a core that another engine computes on."""

OWN_LEASES = "--joules-lease-folder=leases"
"""Each mock is a machine of its own, though its GPUs have the UUIDs of every other's."""

CPU_ENV = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # One core for the engine: the other is for the load generator, which would lag.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The engine core computes itself: with a worker of its own it starts in 36 s, not 23, and
    # spins while it waits for it, which takes a third of the two cores.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
}
"""Variables with which vLLM runs on a CPU."""


def make_tiny_model(engine_python: str, folder: Path) -> Path:
    """Write configuration and tokenizer with the engine's own libraries."""
    maker = Path(__file__).with_name("tiny_model.py")
    subprocess.run([engine_python, str(maker), str(folder)], check=True, timeout=60)
    return folder


def slowed(model: Path, folder: Path) -> Path:
    """Copy a model, slow enough that server and client fall behind nowhere on two cores."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 8}))
    return folder


class Project:
    """A repository whose tests a pytest of its own runs."""

    def __init__(self, path: Path, *, stack: Stack, mock: MockNvml) -> None:
        self.path, self._env, self._stack = path, {**os.environ, **mock.env()}, stack

    def write(self, settings: str, tests: str) -> None:
        """Write its settings, as lines of ``[tool.pytest-joules]``, and its tests."""
        env = ", ".join(f'{key} = "{value}"' for key, value in self._stack.env.items())
        lines = [
            "[tool.pytest-joules]",
            'gpu = "h200"',
            dedent(settings).strip(),
            *(
                f'[tool.pytest-joules.stacks.{name}]\npython = "{self._stack.python}"\n'
                f"command = {ENGINES_YIELD}\nenv = {{ {env} }}"
                for name in ("default", "same")
            ),
        ]
        (self.path / "pyproject.toml").write_text("\n".join(lines) + "\n")
        (self.path / "test_energy.py").write_text(dedent(tests))

    def measure(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run until nothing else on this machine disturbed the measurement, as users would."""
        run = self.run(*args)
        for _ in range(2):
            if not any(code in run.stdout for code in DISTURBED):
                break
            run = self.run(*args)
        return run

    def run(
        self, *args: str, patience_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", OWN_LEASES, *args]
        return subprocess.run(
            command,
            cwd=self.path,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )
