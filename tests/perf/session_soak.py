"""A thousand simulated sessions in one process: do memory, files, threads, children grow?

    python tests/perf/session_soak.py [--sessions 1000]

Each session is a whole run of pytest by ``pytest.main``: it collects, rehearses, simulates the
launches of two points, judges them against a recorded baseline, stores the session and prunes
old ones. What is left is read after each; the slope is a least-squares fit over the second
half, when caches are full. Stands in for a soak of 24 hours.
"""

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
import textwrap
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import psutil
import pytest

SUITE = """
    from pytest_joules import Point

    POINT = Point(model="Qwen/Qwen3-8B", batch_size=4)

    def test_check(energy_bench):
        energy_bench.check(POINT)

    def test_measure(energy_bench):
        assert energy_bench(model=POINT.model, batch_size=2).energy_per_token_j > 0
"""
ARGUMENTS = (
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:hypothesispytest",
    "--gpu=h200",
    "--joules-source=simulated",
    "--joules-window=20",
    "--joules-keep=3",
    "--joules-tolerance=10%",
)


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a process holds after a session."""

    rss_mb: float
    fds: int
    threads: int
    children: int
    stored: int
    """Sessions in ``.joules``."""


def run(*more):
    """Run the suite in this process.

    Raises:
        RuntimeError: It did not end green.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main([*ARGUMENTS, *more])
    sys.modules.pop("test_soak", None)  # it would not be read again
    if code != 0:
        raise RuntimeError(f"a session ended with exit code {code}:\n{said.getvalue()}")


def left():
    gc.collect()
    process = psutil.Process()
    return Left(
        rss_mb=process.memory_info().rss / 2**20,
        fds=process.num_fds(),
        threads=process.num_threads(),
        children=len(process.children(recursive=True)),
        stored=len(list(Path(".joules/sessions").iterdir())),
    )


def _silent(number, found):
    del number, found


def soak(num_sessions, tell=_silent):
    """Run so many sessions in an empty folder; return what was left after each.

    Raises:
        RuntimeError: As ``run``.
    """
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("pytest.ini").write_text("[pytest]\n", encoding="utf-8")
            Path("test_soak.py").write_text(textwrap.dedent(SUITE), encoding="utf-8")
            run("--joules-record", "--joules-launches=8")
            seen = [left()]
            for number in range(1, num_sessions + 1):
                run()
                seen.append(left())
                tell(number, seen[-1])
        finally:
            os.chdir(here)
    return seen


def slope_per_1000(values):
    """Fit a line to the second half; return how much a thousand sessions add."""
    late = np.asarray(values[len(values) // 2 :], dtype=float)
    return round(1000 * float(np.polyfit(np.arange(len(late)), late, 1)[0]), 3)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sessions", type=int, default=1000)
    chosen = options.parse_args()
    names = [each.name for each in fields(Left)]
    print(f"{'session':>8}" + "".join(f"{name:>10}" for name in names))

    def tell(number, found):
        if number % max(1, chosen.sessions // 4) == 0:
            print(_line(number, astuple(found)), flush=True)

    seen = soak(chosen.sessions, tell)
    print(_line("first", astuple(seen[0])))
    columns = [[getattr(each, name) for each in seen] for name in names]
    print(_line("per-1000", [slope_per_1000(column) for column in columns]))


def _line(head, values):
    return f"{head:>8}" + "".join(f"{value:>10.4g}" for value in values)


if __name__ == "__main__":
    main()
