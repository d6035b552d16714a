"""A pytest plugin for nodes: the fake machine, with an engine of real processes.

``FLEET_NODE`` names the node, ``FLEET_CONTROL`` a folder: each engine writes its processes
to ``engine-NODE-PID``, loads wait while ``hold-NODE`` stands there, and ``lasts`` holds the
seconds that each takes longer. ``FLEET_SILENCE_S`` is how long the head may be silent.
"""

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from pytest_joules.fleet import knock
from pytest_joules.process import supervised
from pytest_joules.testing import FakeMachine, FakeServer, source_of

# A parent that ignores SIGTERM and a child: what is left behind if only the first is ended.
_ENGINE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
name = sys.argv[1]
open(name + ".part", "w").write(f"{os.getpid()} {child.pid} {os.getppid()}")
os.rename(name + ".part", name)
time.sleep(600)
"""


class Machine(FakeMachine):
    """Has the GPUs that Ray reserved, and boards of its own."""

    def identify(self):
        found = super().identify()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return found if visible is None else tuple(found[int(i)] for i in visible.split(","))

    @contextmanager
    def started(self, launch, **_):
        control, node = _control(), os.environ["FLEET_NODE"]
        marker = control / f"engine-{node}-{os.getpid()}"
        with (
            tempfile.TemporaryDirectory() as folder,
            supervised(
                [sys.executable, "-S", "-c", _ENGINE, str(marker)],
                env=dict(os.environ),
                log_path=Path(folder) / "log",
                grace_s=0.2,
            ),
        ):
            while not marker.exists() or (control / f"hold-{node}").exists():
                Event().wait(0.05)
            self.launches.append(launch)
            yield Server(machine=self, launch=launch)


class Server(FakeServer):
    """Takes as much longer for a point as the file ``lasts`` says."""

    def drive(self, point, **fields):
        load = super().drive(point, **fields)
        self.machine.clock.now_s += float((_control() / "lasts").read_text())
        return load


def _control():
    return Path(os.environ["FLEET_CONTROL"])


def pytest_joules_source(options):
    if silence_s := os.environ.get("FLEET_SILENCE_S"):
        knock.SILENCE_S = float(silence_s)
    machine = Machine(gpu=options.gpu)
    machine.gpus.label = os.environ.get("FLEET_NODE", "here")
    return source_of(machine, window_s=options.window)
