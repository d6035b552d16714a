"""A real Ray cluster of several nodes on this machine, and runs of pytest on it."""

import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from tests.fakes.processes import runs

PATIENCE_S = 120
_NUM_GPUS = 8
_NODE = {
    "num_cpus": 0,  # or an idle worker would be started ahead
    "num_gpus": _NUM_GPUS,
    "object_store_memory": 80 << 20,
    "resources": {"accelerator_type:H200": 1},
}
# A dead node is noticed in a second; one that is only slow still has ten to answer. Nodes
# and drivers miss their head after 20 s, not 60.
_NOTICE = {
    "gcs_rpc_server_reconnect_timeout_s": 20,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_failure_threshold": 3,
}

TESTS = """
import pytest
from pytest_joules import Point

POINTS = [
    Point(model="Qwen/Qwen3-8B", batch_size=batch, precision=precision, num_gpus={num_gpus})
    for precision in ("bf16", "fp8") for batch in (64, 16)
]

@pytest.mark.parametrize("point", POINTS, ids=lambda p: p.id)
def test_energy(energy_bench, point):
    assert energy_bench.measure(point).power_w > 0
"""


def until(condition, what):
    deadline = monotonic() + PATIENCE_S
    while not (value := condition()):
        assert monotonic() < deadline, f"waited in vain for {what}"
        sleep(0.05)
    return value


class Fleet:
    """The cluster, and runs of pytest on it."""

    def __init__(self, control):
        import ray  # noqa: PLC0415  not in the test extra
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        self.control, self.client_port = control, _free_port()
        self._ray, self._cluster, self._nodes = ray, Cluster(), {}
        self.add(
            "a",
            include_dashboard=False,
            ray_client_server_port=self.client_port,
            _system_config=_NOTICE,
        )
        self.address = self._cluster.address
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of things to come in Ray
            ray.init(self.address, log_to_driver=False)

    def add(self, name, **more):
        if name not in self._nodes:
            env = {"FLEET_NODE": name}
            self._nodes[name] = self._cluster.add_node(env_vars=env, **_NODE, **more)

    def is_free(self):
        """Tell whether no GPU of any node is held."""
        free = self._ray.available_resources().get("GPU", 0)
        return free == _NUM_GPUS * len(self._nodes)

    def kill(self, name):
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)
        until(self._has_noticed, f"the cluster to notice that {name} is gone")

    def kill_head(self):
        """Kill the head and all that runs beside it; the cluster is then over."""
        self._ray.shutdown()  # or this process would miss it, too
        for processes in self._nodes["a"].all_processes.values():
            for each in processes:
                each.process.kill()

    def _has_noticed(self):
        return sum(node["Alive"] for node in self._ray.nodes()) == len(self._nodes)

    def close(self):
        self._ray.shutdown()
        self._cluster.shutdown()
        # Agents of Ray look on for a head that was killed.
        mark = f"FLEET_CONTROL={self.control}\0".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes() and path.parent.name != str(os.getpid()):
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def hold(self, *names):
        for name in names:
            (self.control / f"hold-{name}").touch()

    def release(self, *names):
        for name in names:
            (self.control / f"hold-{name}").unlink(missing_ok=True)

    def engines(self, name="*"):
        return sorted(self.control.glob(f"engine-{name}-*[0-9]"))

    def logs(self):
        """All that Ray has written of the cluster, on any node."""
        head = Path(self._cluster.head_node.get_session_dir_path())
        return [path for path in head.rglob("*") if path.is_file()]

    def node_logs(self):
        """What the measuring processes have written and nobody has removed."""
        root = Path(tempfile.gettempdir()) / f"pytest-joules-{getpass.getuser()}"
        return {*root.glob("*/*")}

    def lasts(self, seconds):
        """Let every point take so much longer, on the machines' own clock."""
        (self.control / "lasts").write_text(str(seconds))

    def pytest(self, folder, *args, num_gpus=_NUM_GPUS, **env):
        (folder / "pytest.ini").touch()
        (folder / "test_energy.py").write_text(TESTS.format(num_gpus=num_gpus))
        command = [sys.executable, "-m", "pytest", "-p", "fleet_machine", "--gpu=h200"]
        return subprocess.Popen(
            [*command, "-p", "no:cacheprovider", "--joules-export=results.json", *args],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def pids_of(marker):
    return [int(each) for each in marker.read_text().split()]


def are_gone(pids):
    return not any(map(runs, pids))


def interrupt(run):
    run.send_signal(signal.SIGINT)
    return run.communicate(timeout=PATIENCE_S)[0]
