"""The ``joules`` command."""

import json
import math

import pytest
import typer
from typer.testing import CliRunner

from pytest_joules.cli import app
from pytest_joules.cli.telling import strict_json
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

    assert run.exit_code == 2
    assert str(tmp_path / name) in run.stderr
    assert not (tmp_path / "recorded").exists()


def commands(group, path=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_json(path):
    assert "Example" in COMMANDS[path].help
    assert any("--json" in each.opts for each in COMMANDS[path].params)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("explain", "PATH[#POINT_ID][@STACK]"),
        ("plan", "[tool.pytest-joules]"),
        ("compare", "FILE.json, or folders of results or baselines; NEW is"),
    ],
)
def test_help_shows_brackets_and_flows(path, words):
    run = RUNNER.invoke(app, [path, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})

    assert words in run.stdout


def test_the_commands_of_the_design_are_there():
    assert {"doctor", "plan", "show", "compare", "calibrate", "export"} <= {
        path[0] for path in COMMANDS
    }
    assert {path[1] for path in COMMANDS if path[0] == "baseline"} == {
        "list", "show", "accept", "prune",
    }  # fmt: skip


def test_a_number_that_is_none_is_null_in_json():
    assert json.loads(strict_json({"a": [math.nan, 1.0], "b": math.inf})) == {
        "a": [None, 1.0], "b": None,
    }  # fmt: skip
