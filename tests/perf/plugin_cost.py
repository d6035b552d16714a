"""What the installed but unused plugin costs a repository: collect-only, with and without.

pytest-benchmark stands beside it as another measuring plugin. Runs are interleaved, so that
a busy machine slows all of them alike. Where ten milliseconds drown in what other programs do,
``instructions`` counts what the processor is told (with valgrind) instead of time.
Run with: python tests/perf/plugin_cost.py [instructions]
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 60
CASES = {
    "without": ["-p", "no:joules", "-p", "no:benchmark"],
    "pytest-joules": ["-p", "no:benchmark"],
    "pytest-benchmark": ["-p", "no:joules"],
}


# As users run it, with modules compiled once: this machine may be told not to keep them.
ENV = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def once(folder: str, arguments: list[str]) -> tuple[float, float]:
    """Return how long one run took, and its processor time, in ms."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    start_s, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, env=ENV, check=True, stdout=subprocess.DEVNULL)
    took_s, after = time.perf_counter() - start_s, os.times()
    used_s = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return 1000 * took_s, 1000 * used_s


def turned(names: list[str], by: int) -> list[str]:
    """Let another one be first each time: whoever follows whom must not count."""
    by %= len(names)
    return names[by:] + names[:by]


def instructions(folder: str, arguments: list[str]) -> int:
    """Count the instructions of one run; a forked child starts from its parent's count."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*tool, sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    env = {**ENV, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    return max(map(int, re.findall(r"Collected : (\d+)", done.stderr)))


def main(*, counts: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_plain.py").write_text("def test_plain(): pass\n")
        for arguments in CASES.values():
            once(folder, arguments)
        if counts:
            tell_instructions({name: instructions(folder, CASES[name]) for name in CASES})
            return
        times = {name: [] for name in CASES}
        for number in range(ROUNDS):
            for name in turned(list(CASES), number):
                times[name].append(once(folder, CASES[name]))
    print(f"pytest --collect-only of one plain test, {ROUNDS} rounds, ms: median, mean more")
    for name, values in times.items():
        both = (told(values, times["without"], each) for each in (0, 1))
        print(f"{name:18}", *both, sep="  ")


def tell_instructions(counted: dict[str, int]) -> None:
    bare = counted["without"]
    for name, count in counted.items():
        print(f"{name:18} {count / 1e6:7.1f} million instructions {count / bare - 1:+.2%}")


def told(values: list[tuple[float, float]], bare: list[tuple[float, float]], which: int) -> str:
    """Tell a median, and the mean difference with the error of the mean."""
    extra = [value[which] - none[which] for value, none in zip(values, bare, strict=True)]
    median, error = statistics.median(v[which] for v in values), statistics.stdev(extra)
    more = f"{statistics.fmean(extra):+5.1f} +- {error / len(extra) ** 0.5:.1f}"
    return f"{('elapsed', 'processor')[which]} {median:6.1f} {more}"


if __name__ == "__main__":
    main(counts=sys.argv[1:] == ["instructions"])
