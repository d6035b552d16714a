"""The process that drives Ray: what hangs, crashes or dies, and what pytest makes of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from pytest_joules.errors import FleetError, MissingDependency
from pytest_joules.fleet import driven, knock
from pytest_joules.fleet.driven import DrivenCluster
from tests.fakes.processes import runs

PATIENCE_S = 60

RAY = """
import os, signal, time
__version__ = "2.55.1"
class cloudpickle:
    register_pickle_by_value = print
class util:
    class client:
        class ray:
            is_connected = lambda: False
class context:
    gcs_address = "head:6379"
def get_runtime_context():
    print("a library prints what it likes")
    return context
def init(*args, **fields):
    open("joined", "w").write(str(os.getpid()))
def shutdown():
    open("left", "w").close()
asked = []
def nodes():
    asked.append(1)
    {nodes}
    node = dict(NodeID="n", NodeManagerHostname="h", Alive=True, Resources=dict(GPU=8))
    return [node] * len(asked)
"""
"""A joined Ray, as lines of a module; what it does when its nodes are asked for is told."""


@pytest.fixture
def ray_that(tmp_path, monkeypatch):
    """Give the process that drives Ray one that does what it is told; join its cluster."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as it is for most
    made = []

    def join(nodes="pass", text=RAY):
        (tmp_path / "ray.py").write_text(text.replace("{nodes}", nodes))
        monkeypatch.chdir(tmp_path)
        made.append(DrivenCluster.connect("local", is_virtual=True))
        return made[0]

    yield join
    for cluster in made:
        cluster.close()


def until(condition):
    deadline = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def is_gone(pid):
    return not runs(pid)


def test_what_ray_prints_is_no_answer_and_what_it_says_is(ray_that):
    cluster = ray_that()

    assert cluster.watch.target == "head:6379"
    assert [node.name for node in cluster.nodes()] == ["h (n)"]


def test_an_error_is_the_one_that_was_raised_there(ray_that):
    with pytest.raises(MissingDependency, match=r"^--joules-fleet needs Ray \(none here\)"):
        ray_that(text="raise ImportError('none here')")


def test_leaving_is_said_and_leaves_no_process(ray_that):
    cluster = ray_that()

    cluster.close()

    assert Path("left").exists()
    assert is_gone(cluster.process.pid)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        pytest.param("os.abort()", r"ended with status -6 \(a library prints", id="aborts"),
        pytest.param("1 / 0", r"status 1 \(ZeroDivisionError: division by zero\)", id="bug"),
    ],
)
def test_a_crash_of_ray_is_an_error_for_each_who_asks(ray_that, nodes, told):
    cluster = ray_that(nodes)

    for _ in range(2):
        with pytest.raises(FleetError, match=f"{told}.*Go on with --joules-resume"):
            cluster.nodes()


def test_a_head_that_is_lost_while_ray_waits_ends_the_wait(ray_that, monkeypatch):
    monkeypatch.setattr(driven, "_LOOK_S", 0.01)
    cluster = ray_that("time.sleep(600)")
    now = iter(range(0, 6000, 6))
    cluster.watch = knock.Watch(target="h:1", ask=lambda _: False, clock=lambda: next(now))

    with pytest.raises(
        FleetError, match="head of the fleet's Ray cluster, h:1, has not answered"
    ):
        cluster.nodes()

    assert is_gone(cluster.process.pid)
    with pytest.raises(FleetError, match="h:1"):
        cluster.hear(600.0)
    cluster.close()
    assert not Path("left").exists()  # nobody was left to say farewell to


def test_a_ray_that_hangs_beside_a_living_head_is_given_up(ray_that, monkeypatch):
    monkeypatch.setattr(driven, "_LOOK_S", 0.01)
    cluster = ray_that("time.sleep(600)")
    cluster.watch = knock.Watch(target="h:1", ask=lambda _: True)
    cluster.answer_s = 0.1

    with pytest.raises(FleetError, match="has not answered for too long"):
        cluster.nodes()

    assert is_gone(cluster.process.pid)


def test_an_answer_that_ctrl_c_left_behind_is_not_taken_for_the_next(ray_that):
    cluster = ray_that("len(asked) == 1 and os.kill(os.getppid(), signal.SIGINT)")

    with pytest.raises(KeyboardInterrupt):
        cluster.nodes()

    assert len(cluster.nodes()) == 2


def test_where_pytest_is_killed_its_process_leaves_the_cluster_by_itself(tmp_path):
    (tmp_path / "ray.py").write_text(RAY.replace("{nodes}", "time.sleep(0.2)"))
    program = """
from pytest_joules.fleet.driven import DrivenCluster
cluster = DrivenCluster.connect("local", is_virtual=True)
while True:
    cluster.nodes()
"""
    root = str(Path(__file__).parents[1])
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}
    )
    joined = tmp_path / "joined"
    until(lambda: joined.exists() and joined.read_text())

    run.send_signal(signal.SIGKILL)
    run.wait()

    until((tmp_path / "left").exists)
    until(lambda: is_gone(joined.read_text()))
