"""The composite action, run as a runner would: its steps, its inputs, its outputs, in bash."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.takes_long

ROOT = Path(__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "energy-gate"
SPEC = yaml.safe_load((ACTION / "action.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "energy.yml").read_text())
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")

MACHINE = """
    from pytest_joules.testing import FakeMachine, source_of

    def pytest_joules_source(options):
        machine = FakeMachine(power_w=lambda stack, point: 400.0 * {factor}, launch_noise=0.002)
        return source_of(machine, window_s=min(options.window, 15))
"""
TEST = """
    from pytest_joules import Point

    def test_energy(energy_bench):
        energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=16))
"""


@dataclass
class Ended:
    code: int
    """Of the step that failed, or 0."""

    outputs: dict[str, str]
    log: str


class Runner:
    """As much of a GitHub runner as the action needs."""

    def __init__(self, workspace: Path, temporary: Path) -> None:
        self.workspace, self.temporary = workspace, temporary

    def run(self, **inputs: str) -> Ended:
        given = {name: each.get("default", "") for name, each in SPEC["inputs"].items()}
        values = {f"inputs.{name}": text for name, text in (given | inputs).items()}
        values["github.action_path"] = str(ACTION)
        log, code = "", 0
        for number, step in enumerate(SPEC["runs"]["steps"]):
            ended = self._step(step, values, self.temporary / f"output-{number}")
            log += ended.stdout
            if ended.returncode:
                code = ended.returncode
                break
        outputs = SPEC["outputs"]
        return Ended(code, {n: filled(o["value"], values) for n, o in outputs.items()}, log)

    def _step(
        self, step: dict[str, object], values: dict[str, str], output: Path
    ) -> "subprocess.CompletedProcess[str]":
        output.touch()
        env = {name: filled(text, values) for name, text in step.get("env", {}).items()}
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.workspace,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "GITHUB_OUTPUT": str(output),
                "RUNNER_TEMP": str(self.temporary),
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            values[f"steps.{step.get('id')}.outputs.{name}"] = value
        return ended


def filled(text: str, values: dict[str, str]) -> str:
    return EXPRESSION.sub(lambda found: values.get(found.group(1), ""), text)


def runner_in(folder: Path) -> Runner:
    workspace, temporary = folder / "workspace", folder / "temporary"
    workspace.mkdir()
    temporary.mkdir()
    (workspace / "pytest.ini").touch()
    (workspace / "test_energy.py").write_text(textwrap.dedent(TEST))
    return Runner(workspace, temporary)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return runner_in(tmp_path)


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four launches, recorded by the action itself."""
    made = runner_in(tmp_path_factory.mktemp("recorded"))
    machine(made, 1.0)
    ended = gate(made, args="--joules-record\n--joules-launches=4")
    assert ended.outputs["verdict"] == "green", ended.log
    return made.workspace / "baselines"


@pytest.fixture
def recorded(runner: Runner, baselines: Path) -> Runner:
    shutil.copytree(baselines, runner.workspace / "baselines")
    machine(runner, 1.0)
    return runner


def machine(runner: Runner, factor: float) -> None:
    text = textwrap.dedent(MACHINE.format(factor=factor))
    (runner.workspace / "conftest.py").write_text(text)


def gate(runner: Runner, **inputs: str) -> Ended:
    inputs = {"python": sys.executable, "gpu": "h200", "benchmarks": "test_energy.py", **inputs}
    return runner.run(**inputs)


@pytest.mark.parametrize(
    ("factor", "inputs", "verdict", "code"),
    [
        (1.0, {}, "green", 0),
        (1.1, {}, "red", 1),
        (1.1, {"undecided": "warn"}, "red", 1),
        (1.0, {"budget": "1"}, "undecided", 6),
        (1.0, {"gpu": ""}, "error", 4),
        (1.0, {"against": "nobody"}, "error", 4),
        (1.0, {"benchmarks": "missing.py"}, "error", 4),
        (1.0, {"args": "-k=nothing"}, "error", 5),
    ],
)
def test_each_end_of_the_gate(
    recorded: Runner, *, factor: float, inputs: dict[str, str], verdict: str, code: int
) -> None:
    machine(recorded, factor)

    ended = gate(recorded, **inputs)

    assert ended.outputs["verdict"] == verdict, ended.log
    assert ended.outputs["exit-code"] == str(ended.code) == str(code)


def test_undecided_may_be_a_warning(recorded: Runner) -> None:
    ended = gate(recorded, budget="1", undecided="warn")

    assert (ended.code, ended.outputs["verdict"]) == (0, "undecided")
    assert "::warning title=energy gate::" in ended.log


def test_the_results_are_where_the_outputs_say(recorded: Runner) -> None:
    ended = gate(recorded, results="a folder")

    folder = recorded.workspace / ended.outputs["results"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"comment.md", "energy.csv", "energy.xml", "report.html"}
    assert (recorded.workspace / ended.outputs["report"]).exists()


def test_the_plugin_of_the_fakes_can_be_an_argument(runner: Runner) -> None:
    ended = gate(runner, args="-p\npytest_joules.testing\n\n--joules-record\n")

    assert ended.outputs["verdict"] == "green", ended.log
    assert "FAKE" in ended.log


EVIL = 'x"; touch pwned; $(touch pwned) `touch pwned` && touch pwned #'


@pytest.mark.parametrize("name", [name for name in SPEC["inputs"] if name != "python"])
def test_no_input_is_run_by_the_shell(runner: Runner, name: str) -> None:
    machine(runner, 1.0)

    ended = gate(runner, **{name: EVIL})

    assert not list(runner.workspace.rglob("pwned"))
    assert ended.code


@pytest.mark.parametrize("name", ["python", "results"])
@pytest.mark.parametrize("end", ["\n", "\r"])
def test_no_input_adds_an_output(runner: Runner, name: str, end: str) -> None:
    machine(runner, 1.0)
    value = {"python": sys.executable, "results": "energy-results"}[name]

    ended = gate(runner, **{name: f"{value}{end}verdict=green"})

    assert ended.code == 4
    assert f"::error title=energy gate::The input {name} holds a line break" in ended.log
    assert ended.outputs["verdict"] != "green"


def test_no_expression_stands_in_a_script() -> None:
    for step in SPEC["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_the_workflow_gives_the_action_what_it_takes() -> None:
    steps = {step.get("id", step["uses"]): step for step in WORKFLOW["jobs"]["gate"]["steps"]}
    given = steps["gate"]["with"]

    assert set(given) <= set(SPEC["inputs"])
    assert {name for name, each in SPEC["inputs"].items() if each.get("required")} <= set(given)


def test_the_workflow_is_safe_on_a_self_hosted_runner() -> None:
    job = WORKFLOW["jobs"]["gate"]
    triggers = WORKFLOW[True]  # what YAML 1.1 takes the key `on` for

    assert "pull_request_target" not in triggers
    assert "head.repo.full_name == github.repository" in job["if"]
    assert WORKFLOW["permissions"] == {}
    assert job["permissions"] == {"contents": "read"}
    assert job["concurrency"]["cancel-in-progress"] is False
    for step in job["steps"]:
        assert step["uses"].startswith("./") or re.fullmatch(
            r"[\w./-]+@[0-9a-f]{40}", step["uses"]
        )
