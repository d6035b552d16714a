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


def finished(run):
    try:
        return run.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        pytest.fail(f"still running after {PATIENCE_S} s: {run.communicate()[0]}")


def rows(folder):
    return json.loads((folder / "results.json").read_text())


def boards(folder):
    found = [row["provenance"]["context"]["gpu_uuids"][0] for row in rows(folder)]
    return {board.split("-")[1] for board in found}


@pytest.mark.parametrize("kind", ["auto", "client"])
def test_a_plan_is_run_by_all_nodes(fleet, tmp_path, monkeypatch, *, kind):
    monkeypatch.setenv("RAY_ADDRESS", fleet.address)  # there may be more on this machine
    address = {"auto": "auto", "client": f"ray://127.0.0.1:{fleet.client_port}"}[kind]
    run = fleet.pytest(tmp_path, f"--joules-fleet={address}")

    output = finished(run)

    assert run.returncode == 0, output
    assert f"fleet {address}, stack default" in output
    assert "4 passed" in output
    assert boards(tmp_path) == {"a", "b"}
    lines = [line for line in output.splitlines() if line.startswith("joules 0:")]
    assert sum("launch" in line and "batch sizes 64, 16" in line for line in lines) == 2
    assert all(are_gone(pids_of(marker)) for marker in fleet.engines())


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


def test_a_spent_budget_ends_a_launch_between_its_points(fleet, tmp_path):
    # On 8 GPUs a launch of two points should take (90 + 2 * 90) * 8 / 60 = 36 GPU minutes,
    # so only one begins. It has taken over 8 * 400 / 60 = 53 when 12 more would be needed.
    fleet.lasts(400)
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}", "--joules-budget=60")

    output = finished(run)

    assert run.returncode == 6, output  # nothing red, but undecided
    assert "1 passed" in output
    assert output.count("of 60 GPU minutes are spent") >= 3
    assert len(rows(tmp_path)) == 1
    assert all(are_gone(pids_of(marker)) for marker in fleet.engines())


def test_the_plan_tells_the_makespan_and_launches_nothing(fleet, tmp_path):
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}", "--joules-plan")

    output = finished(run)

    # Two launches of 90 + 2 x 90 s, side by side.
    assert "fleet of 2 nodes with 16 x h200: about 4:30, at the least 4:30" in output
    assert fleet.engines() == []


@pytest.mark.parametrize("what", ["node", "task"])
def test_what_is_killed_is_measured_elsewhere_and_counts_once(fleet, tmp_path, what):
    fleet.hold("b")
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}")
    try:
        engine = until(lambda: fleet.engines("b"), "an engine on node b")[0]
    except AssertionError:
        run.kill()
        pytest.fail(run.communicate()[0])

    if what == "node":
        fleet.kill("b")
    else:
        os.kill(int(engine.name.rpartition("-")[2]), signal.SIGKILL)
    output = finished(run)

    assert run.returncode == 0, output
    assert Counter(json.dumps(row["point"], sort_keys=True) for row in rows(tmp_path)) == {
        json.dumps(row["point"], sort_keys=True): 1 for row in rows(tmp_path)
    }
    assert len(rows(tmp_path)) == POINTS
    assert boards(tmp_path) == {"a"}
    assert "2 point(s) are measured again" in output
    until(lambda: are_gone(pids_of(engine)), "the engine of what was killed to end")


def test_ctrl_c_ends_every_engine_and_frees_the_gpus(fleet, tmp_path):
    fleet.hold("a", "b")
    run = fleet.pytest(tmp_path, f"--joules-fleet={fleet.address}")
    engines = until(
        lambda: fleet.engines("a") and fleet.engines("b") and fleet.engines(), "both"
    )

    output = interrupt(run)

    assert run.returncode == 2, output
    assert "KeyboardInterrupt" in output
    assert all(are_gone(pids_of(marker)) for marker in engines)
    until(fleet.is_free, "the GPUs to be free")


def test_ray_is_imported_though_amdsmi_is_installed_and_finds_no_rocm(fleet):
    """The driver and every worker above did; this says which pair of packages it was."""
    del fleet
    version = tuple(int(part) for part in metadata.version("ray").split(".")[:2])

    assert version < (2, 56)
    assert metadata.version("amdsmi")
