"""The ``joules`` command."""

import json

import pytest
from typer.testing import CliRunner

from pytest_joules.cli import app
from pytest_joules.version import __version__
from tests.fakes.leaderboard import small_tasks, write_leaderboard

RUNNER = CliRunner()


def test_it_tells_its_version():
    run = RUNNER.invoke(app, ["--version"])

    assert run.exit_code == 0
    assert run.stdout == f"joules {__version__}\n"


def test_doctor_on_a_healthy_machine_lists_its_gpus(mock_nvml):
    for gpu in range(2):
        mock_nvml.set_power(gpu, 120.0)

    run = RUNNER.invoke(app, ["doctor", "--json"])

    findings = json.loads(run.stdout)
    assert {finding["status"] for finding in findings} <= {"ok", "warning", "problem"}
    assert any("H200" in finding["text"] for finding in findings)


def test_doctor_without_a_driver_is_red_and_says_what_to_do(mock_nvml):
    mock_nvml.set_init_error(9)  # NVML_ERROR_DRIVER_NOT_LOADED

    run = RUNNER.invoke(app, ["doctor", "--json"])

    assert run.exit_code == 1
    problems = [f for f in json.loads(run.stdout) if f["status"] == "problem"]
    assert problems
    assert all(finding["remedy"] for finding in problems)


@pytest.mark.usefixtures("mock_nvml")
def test_doctor_prints_a_table():
    run = RUNNER.invoke(app, ["doctor"])

    assert "what" in run.stdout
    assert "remedy" in run.stdout


def test_import_makes_a_folder_that_recorded_runs_can_use(tmp_path):
    origin, target = tmp_path / "leaderboard", tmp_path / "recorded"
    write_leaderboard(origin, small_tasks())

    run = RUNNER.invoke(app, ["import", "mlenergy", str(origin), str(target)])

    assert run.exit_code == 0, run.output
    assert list(target.rglob("*.json"))


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_import_of_nothing_is_an_error_and_leaves_nothing(tmp_path, name):
    (tmp_path / "empty").mkdir()

    run = RUNNER.invoke(
        app, ["import", "mlenergy", str(tmp_path / name), str(tmp_path / "recorded")]
    )

    assert run.exit_code == 1
    assert str(tmp_path / name) in run.stderr
    assert not (tmp_path / "recorded").exists()
