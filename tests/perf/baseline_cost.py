"""Time and memory of loading baseline files: ``python -m tests.perf.baseline_cost [RUNS]``.

Goals: 10,000 points under 2 s and 300 MB, in files of 100 points (a model's). A point has one
run unless RUNS says otherwise, each with its series of 60 s. The files are read in a process of
its own, whose memory is told. Reading the same text with ``json`` alone stands beside it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_joules import baseline
from tests.fakes.results import make_run

POINTS, FILES = 10_000, 100


def write(folder: Path, num_runs: int) -> None:
    for number in range(FILES):
        runs = {}
        for position in range(POINTS // FILES):
            batch, precision = 1 + position // 2, ("bf16", "fp8")[position % 2]
            shape = {"model": f"org/m{number}", "batch_size": batch, "precision": precision}
            made = [make_run(0.3 + 0.001 * k, **shape) for k in range(num_runs)]
            runs[made[0].point] = made
        (folder / f"{number:03}.json").write_text(baseline.dump("b200", runs))


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def read(folder: Path) -> None:
    paths = sorted(folder.glob("*.json"))
    baseline.entries(paths[0])  # loads the libraries and compiles the schema
    busy_s, start_s, before_mb = time.process_time(), time.perf_counter(), memory_mb()
    kept = [baseline.entries(path) for path in paths]
    took_s, busy_s = time.perf_counter() - start_s, time.process_time() - busy_s
    more_mb = memory_mb() - before_mb
    size_mb = sum(path.stat().st_size for path in paths) / 1e6
    json_s = time.process_time()
    _ = [json.loads(path.read_text()) for path in paths]
    json_s = time.process_time() - json_s
    print(
        f"{sum(map(len, kept))} points, {size_mb:.0f} MB of files: {took_s:.1f} s, "
        f"{busy_s:.1f} s of CPU ({busy_s / json_s:.1f} times json alone), "
        f"{more_mb:.0f} MB more ({before_mb + more_mb:.0f} MB in all)"
    )


def main(num_runs: int = 1) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), num_runs)
        command = [sys.executable, "-m", "tests.perf.baseline_cost", "--read", folder]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(Path(sys.argv[2]))
    else:
        main(*map(int, sys.argv[1:]))
