"""What the installed but unused plugin costs a repository: collect-only, with and without.

pytest-benchmark stands beside it as another measuring plugin. Runs are interleaved, so that
a busy machine slows all of them alike; medians and their differences are printed in ms.
Run with: python tests/perf/plugin_cost.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 25
CASES = {
    "without": ["-p", "no:joules", "-p", "no:benchmark"],
    "pytest-joules": ["-p", "no:benchmark"],
    "pytest-benchmark": ["-p", "no:joules"],
}


def once(folder: str, arguments: list[str]) -> float:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    start_s = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - start_s)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_plain.py").write_text("def test_plain(): pass\n")
        for arguments in CASES.values():
            once(folder, arguments)
        times = {name: [] for name in CASES}
        for _ in range(ROUNDS):
            for name, arguments in CASES.items():
                times[name].append(once(folder, arguments))
    print(f"pytest --collect-only of one plain test, {ROUNDS} interleaved rounds, ms")
    for name, values in times.items():
        extra = [value - bare for value, bare in zip(values, times["without"], strict=True)]
        median, more = statistics.median(values), statistics.median(extra)
        print(f"{name:18} {median:7.1f}   {more:+6.1f} more than without")


if __name__ == "__main__":
    main()
