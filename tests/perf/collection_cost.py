"""What 10,000 energy tests cost before the first runs.

Run with: python tests/perf/collection_cost.py

Collected with and without the plugin, and with ``--joules-plan``, which also rehearses every
test's body up to its first measured value. The goal is under 5 s for collecting. Byte code is
cached by one run that does not count; nothing is asserted.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = """
import pytest


@pytest.mark.parametrize("seed", range(2500))
@pytest.mark.parametrize("batch_size", [8, 16, 32, 64])
def test_energy(energy_bench, seed, batch_size):
    result = energy_bench(model="Qwen/Qwen3-8B", batch_size=batch_size, seed=seed)
    assert result.energy_per_token_j < 1
"""
SOURCE = ["--gpu=h100", "--joules-source=simulated"]
CASES = {
    "pytest alone, collecting": ["--collect-only", "-p", "no:joules"],
    "pytest-joules, collecting": ["--collect-only", *SOURCE],
    "pytest-joules, collecting, rehearsing and planning": ["--joules-plan", *SOURCE],
}


def once(folder: str, arguments: list[str]) -> float:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start_s = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=env)
    return time.perf_counter() - start_s


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_energy.py").write_text(SUITE)
        once(folder, CASES["pytest-joules, collecting"])
        for name, arguments in CASES.items():
            print(f"{name:52} {once(folder, arguments):5.1f} s", flush=True)


if __name__ == "__main__":
    main()
