"""A real Ray cluster: nodes and tasks are killed, the driver is interrupted."""

import json
import os
import signal
import subprocess
from collections import Counter
from importlib import metadata

import pytest

from tests.fleet.nodes import PATIENCE_S, are_gone, interrupt, pids_of, until

# Ray leaves log files of its processes open.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

POINTS = 4
SECRET = "hf_planted_in_the_stack"


def finished(run):
    try:
        return run.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        pytest.fail(f"still running after {PATIENCE_S} s: {run.communicate()[0]}")


def engines_of(fleet, run):
    """Wait for an engine on each node."""
    try:
        return [until(lambda n=n: fleet.engines(n), f"an engine on {n}")[0] for n in "ab"]
    except AssertionError:
        run.kill()
        pytest.fail(run.communicate()[0])


def rows(folder):
    return json.loads((folder / "results.json").read_text())


def is_left(fleet, engines):
    """Tell whether these have ended and no GPU is held."""
    return fleet.is_free() and all(are_gone(pids_of(each)) for each in engines)


def stored(folder):
    """Count the finished measurements that are on disk."""
    files = folder.glob(".joules/sessions/*/results.jsonl")
    return sum(len(file.read_text().splitlines()) for file in files)


def boards(folder):
    found = [row["provenance"]["context"]["gpu_uuids"][0] for row in rows(folder)]
    return {board.split("-")[1] for board in found}


def test_two_runs_share_a_cluster_each_within_its_budget(fleet, tmp_path, monkeypatch):
    """Side by side: one of this machine, and one through Ray Client that has a budget."""
    monkeypatch.setenv("RAY_ADDRESS", fleet.address)  # there may be more on this machine
    # On 8 GPUs a launch of two points should take (90 + 2 * 90) * 8 / 60 = 36 GPU minutes,
    # so one begins. It has taken over 400 * 8 / 60 = 53 when its next point wants 12 more.
    fleet.lasts(400)
    left_before = fleet.node_logs()
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (other / "pyproject.toml").write_text(
        f'[tool.pytest-joules.stacks.default]\nenv = {{ HF_TOKEN = "{SECRET}" }}\n'
    )
    address = f"ray://127.0.0.1:{fleet.client_port}"

    runs = [
        fleet.pytest(one, "--joules-fleet=auto"),
        fleet.pytest(other, f"--joules-fleet={address}", "--joules-budget=60"),
    ]
    output, frugal = map(finished, runs)

    assert runs[0].returncode == 0, output
    assert "fleet auto, stack default" in output
    assert "4 passed" in output
    assert boards(one) <= {"a", "b"}
    lines = [line for line in output.splitlines() if line.startswith("joules 0:")]
    assert sum("launch" in line and "batch sizes 64, 16" in line for line in lines) == 2
    assert runs[1].returncode == 6, frugal  # nothing red, but undecided
    assert f"fleet {address}, stack default" in frugal
    assert "3 failed, 1 passed" in frugal
    assert frugal.count("of 60 GPU minutes are spent") >= 3
    assert len(rows(other)) == 1
    assert all(are_gone(pids_of(marker)) for marker in fleet.engines())
    logs = fleet.logs()
    assert any(path.name == "raylet.out" for path in logs)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    quoting = [path for path in written + logs if SECRET.encode() in path.read_bytes()]
    assert quoting == [other / "pyproject.toml"]
    assert fleet.node_logs() <= left_before


def test_a_fleet_of_this_machine_alone_uses_its_gpus_side_by_side(fleet, tmp_path, monkeypatch):
    monkeypatch.setenv("FLEET_NODE", "alone")

    run = fleet.pytest(tmp_path, "--joules-fleet=local", num_gpus=4)
    output = finished(run)

    assert run.returncode == 0, output
    assert "fleet local, stack default" in output
    assert boards(tmp_path) == {"alone"}
    used = [row["provenance"]["context"]["gpu_uuids"] for row in rows(tmp_path)]
    assert len(used) == POINTS
    assert len({tuple(each) for each in used}) == 2  # four GPUs for each server
    assert len({board for each in used for board in each}) == 8
    assert all(are_gone(pids_of(marker)) for marker in fleet.engines("alone"))


def test_a_run_that_is_killed_and_then_interrupted_frees_the_gpus_and_is_gone_on_with(
    fleet, tmp_path
):
    """First a Ray Client, whose server would keep the GPUs if nobody said farewell."""
    client = f"--joules-fleet=ray://127.0.0.1:{fleet.client_port}"
    fleet.hold("b")
    run = fleet.pytest(tmp_path, client)
    until(lambda: stored(tmp_path) == POINTS / 2, "the results of a")
    engines = until(lambda: fleet.engines("b"), "an engine on b")

    run.kill()  # between points
    killed = finished(run)

    assert run.returncode == -signal.SIGKILL, killed
    until(lambda: is_left(fleet, engines), "the engines to end and the GPUs to be free")

    fleet.hold("a")
    before = set(fleet.engines())
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}", "--joules-resume")
    engines = until(lambda: set(fleet.engines()) - before, "the engine of what is left")
    output = interrupt(run)

    assert run.returncode == 2, output
    assert "KeyboardInterrupt" in output
    assert len(engines) == 1
    assert all(are_gone(pids_of(marker)) for marker in engines)
    until(lambda: is_left(fleet, engines), "the GPUs to be free")

    fleet.release("a", "b")
    run = fleet.pytest(tmp_path, client, "--joules-resume")
    output = finished(run)

    assert run.returncode == 0, output
    assert "4 passed" in output
    assert len(set(fleet.engines()) - before - engines) == 1
    notes = [[note["code"] for note in row["notes"]] for row in rows(tmp_path)]
    assert len(notes) == POINTS
    assert sum("taken-over" in each for each in notes) == POINTS / 2
    assert not [line for line in output.splitlines() if line.startswith("fleet: ")]


def test_what_is_killed_is_measured_elsewhere_and_counts_once(fleet, tmp_path):
    """First a node, then a task on the other: that one is left for both servers."""
    fleet.hold("a", "b")
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}")
    task, node = engines_of(fleet, run)

    fleet.kill("b")
    os.kill(int(task.name.rpartition("-")[2]), signal.SIGKILL)
    fleet.release("a")
    output = finished(run)

    assert run.returncode == 0, output
    assert Counter(json.dumps(row["point"], sort_keys=True) for row in rows(tmp_path)) == {
        json.dumps(row["point"], sort_keys=True): 1 for row in rows(tmp_path)
    }
    assert len(rows(tmp_path)) == POINTS
    assert boards(tmp_path) == {"a"}
    lost = [line for line in output.splitlines() if line.startswith("fleet: ")]
    assert sum("2 point(s) are measured again" in line for line in lost) == 2
    for engine in (task, node):
        until(lambda engine=engine: are_gone(pids_of(engine)), f"{engine.name} to end")


def test_ray_is_imported_though_amdsmi_is_installed_and_finds_no_rocm(fleet):
    """The driver and every worker above did; this says which pair of packages it was."""
    del fleet
    version = tuple(int(part) for part in metadata.version("ray").split(".")[:2])

    assert version < (2, 56)
    assert metadata.version("amdsmi")


def test_a_driver_with_another_ray_is_told_both_versions(fleet, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.40.0'\n")
    paths = os.pathsep.join([str(site), os.environ["PYTHONPATH"]])

    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}", PYTHONPATH=paths)
    output = finished(run)

    assert run.returncode == 4, output
    assert f"The cluster was started with: Ray: {metadata.version('ray')} Python" in output
    assert "was started with: Ray: 2.40.0 Python" in output
    assert not fleet.engines()


def test_a_killed_head_ends_each_run_and_its_engines(fleet, tmp_path):
    """The last test: after it there is no cluster. One run is a Ray Client's."""
    client, other = tmp_path / "client", tmp_path / "other"
    client.mkdir()
    other.mkdir()
    address = f"ray://127.0.0.1:{fleet.client_port}"
    fleet.hold("b")
    runs = [fleet.pytest(client, f"--joules-fleet={address}", FLEET_SILENCE_S="5")]
    until(lambda: stored(client) == POINTS / 2, "the results of a")
    engines = until(lambda: fleet.engines("b"), "an engine on b")
    done = fleet.engines("a")
    fleet.hold("a")
    runs += [fleet.pytest(other, f"--joules-fleet={fleet.address}", FLEET_SILENCE_S="5")]
    engines += until(lambda: set(fleet.engines("a")).difference(done), "another engine on a")

    fleet.kill_head()
    outputs = [finished(run) for run in runs]

    for run, output, head in zip(runs, outputs, (address, fleet.address), strict=True):
        assert run.returncode == 1, output
        assert f"head of the fleet's Ray cluster, {head}, has not answered for 5 s" in output
    assert "2 failed, 2 passed" in outputs[0]
    assert "4 failed" in outputs[1]
    assert len(rows(client)) == POINTS / 2
    (end,) = client.glob(".joules/sessions/*/end.json")
    assert json.loads(end.read_text())["unfinished"] == "fleet failed"  # may be resumed
    for engine in engines:
        until(lambda engine=engine: are_gone(pids_of(engine)), f"{engine.name} to end")
