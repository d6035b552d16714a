"""A scratch project on a machine of eight fake GPUs that real processes share."""

import json
import subprocess
import sys
import textwrap

import pytest

from pytest_joules.record import find

MACHINE = """
    import os, time
    from pathlib import Path
    from pytest_joules.leases import Leases
    from pytest_joules.testing import FakeMachine, source_of

    ROOT = Path(__file__).parent

    class Machine(FakeMachine):
        def _note(self, event, launch):
            super()._note(event, launch)
            if event == "begins":
                hold(self, launch)

    def hold(machine, launch):
        pass

    def until(true):
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.01)

    def journal(word):
        path = ROOT / "journal.jsonl"
        return path.read_text().count(word) if path.exists() else 0

    def is_among_first(number):
        # Not by the journal: two may have begun before either has read it.
        for place in range(number):
            try:
                (ROOT / f"place-{{place}}").touch(exist_ok=False)
                return True
            except FileExistsError:
                pass
        return False

    machine = Machine(journal=ROOT / "journal.jsonl", {machine})

    def pytest_joules_source(options):
        leases = Leases(folder=options.lease_folder, wait_s=options.lease_wait, poll_s=0.01)
        return source_of(machine, window_s=min(options.window, 15), leases=leases)
"""

MODELS = """
    import pytest
    from pytest_joules import Point

    @pytest.mark.parametrize("model", [f"org/model-{number}" for number in range(4)])
    @pytest.mark.parametrize("batch_size", [8, 16])
    def test_energy(energy_bench, model, batch_size):
        energy_bench.measure(Point(model=model, batch_size=batch_size))
"""


class Parallel:
    """A scratch project on a machine of eight fake GPUs that processes share."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.path = pytester.path
        self.machine()

    def machine(self, arguments="", extra=""):
        text = textwrap.dedent(MACHINE).format(machine=arguments) + textwrap.dedent(extra)
        (self.path / "conftest.py").write_text(text)

    def tests(self, text, name="test_energy.py"):
        (self.path / name).write_text(textwrap.dedent(text))

    def args(self, *args, gpu="h200"):
        fixed = (
            *("-p", "no:cacheprovider", "--joules-lease-folder=leases"),
            *("--joules-lease-wait=300", "--joules-window=5"),
        )
        return (*fixed, *([f"--gpu={gpu}"] if gpu else []), *args)

    def run(self, *args, **how):
        return self.pytester.runpytest_subprocess(*self.args(*args, **how), timeout=600)

    def run_here(self, *args):
        """Run in this process, which is cheaper; not with workers that are to be killed."""
        return self.pytester.runpytest_inprocess(*self.args(*args))

    def started(self, *args, **how):
        command = [sys.executable, "-m", "pytest", *self.args(*args)]
        silent = subprocess.DEVNULL
        return self.pytester.popen(command, stdout=silent, stderr=silent, **how)

    def journal(self):
        lines = (self.path / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def launches(self):
        return [each for each in self.journal() if each["event"] == "begins"]

    def session(self):
        return find("latest", self.path)


@pytest.fixture
def parallel(pytester):
    made = Parallel(pytester)
    made.tests(MODELS)
    return made


def require_never_shared(journal):
    """Follow the journal: nobody may begin on a GPU on which another has not ended."""
    busy = {}
    for line in journal:
        for gpu in line["gpus"]:
            if line["event"] == "begins":
                assert gpu not in busy, (gpu, line, busy)
                busy[gpu] = line["pid"]
            else:
                assert busy.pop(gpu) == line["pid"]


CHECKS = """
    import pytest
    from pytest_joules import Point

    @pytest.mark.parametrize("model", [f"org/model-{number}" for number in range(4)])
    def test_energy(energy_bench, model):
        energy_bench.check(Point(model=model, batch_size=16))
"""
WORSE = """
    machine.power_w = lambda stack, point: 500.0 if "model-0" in point.model else 400.0
"""


@pytest.fixture
def worse(parallel):
    """Four recorded points, one of which then draws a quarter more."""
    parallel.tests(CHECKS)
    steady = "power_w=lambda stack, point: 400.0, launch_noise=0.002"
    parallel.machine(steady)
    recorded = parallel.run_here("--joules-record", "--joules-launches=8")
    recorded.assert_outcomes(passed=4)
    (parallel.path / "journal.jsonl").unlink()
    parallel.machine(steady, extra=WORSE)
    return parallel
