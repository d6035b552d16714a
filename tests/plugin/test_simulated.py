"""--joules-source=simulated and --joules-plant: the live pipeline without a GPU."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from pytest_joules import baseline
from pytest_joules.cli import app
from pytest_joules.errors import FormatError
from pytest_joules.measure import FrozenWork
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.procedure import Procedure
from pytest_joules.simulation import Chance
from pytest_joules.simulation.plant import Planted
from pytest_joules.sources.simulated import simulated_source
from pytest_joules.steady_state import Work

POINT = Point(model="Qwen/Qwen3-8B", batch_size=128)
SIMULATED = "--joules-source=simulated"
ONE = """
    from pytest_joules import Point

    def test_energy(energy_bench):
        energy_bench.check(Point(model="Qwen/Qwen3-8B", batch_size=128))
"""


@pytest.fixture
def simulated(joules):
    (joules.path / "conftest.py").unlink()  # no fake machine: its source would be used
    joules.tests(ONE)
    return joules


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """Sixteen simulated launches of the test's point, recorded once."""
    root = tmp_path_factory.mktemp("recorded") / "baselines"
    source = simulated_source(
        gpu="h200",
        planted=Planted(),
        stack="default",
        chance=Chance(seed="recorded"),
        procedure=Procedure(),
        session="recorded",
    )
    launch = plan([POINT], stack=Stack(), gpu="h200").launches[0]
    (first,) = source.outcomes(launch, {})
    told = first.evidence
    work = Work(start_index=told.start_index, end_index=told.end_index)
    frozen = {POINT: FrozenWork(num_requests=told.num_requests, work=work)}
    rest = [next(source.outcomes(launch, frozen)) for _ in range(15)]
    baseline.record(root, [first, *rest])
    return root


@pytest.fixture
def recorded(simulated, baselines):
    shutil.copytree(baselines, simulated.path / "baselines")
    return simulated


def test_recording_goes_to_a_folder_of_its_own(simulated):
    run = simulated.run(SIMULATED, "--joules-record", "--joules-launches=1")

    run.assert_outcomes(passed=1)
    assert simulated.baseline_files() == [
        "simulated/h200/vllm/text-conversation/qwen-qwen3-8b.json"
    ]


def test_everything_says_simulated_and_baselines_are_kept_apart(recorded):
    run = recorded.run(SIMULATED)

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(
        [
            "joules: gpu h200, source simulated,*: SIMULATED, nothing was measured",
            "*energy: SIMULATED, nothing was measured*",
            "*b128 *simulated *unchanged",
        ]
    )


def test_a_judged_run_is_the_same_each_time(recorded):
    first, second = (recorded.run(SIMULATED).stdout.str() for _ in range(2))

    def rows(text):
        return [line for line in text.splitlines() if " simulated " in line]

    assert rows(first) == rows(second)


def test_simulated_baselines_are_none_for_other_sources(recorded):
    (path,) = (recorded.path / "baselines").rglob("*.json")
    live = recorded.path / "baselines" / "h200" / "vllm" / "text-conversation" / path.name
    live.parent.mkdir(parents=True)
    live.write_text(path.read_text())
    recorded.machine()

    run = recorded.run()  # on the fake machine, whose baselines stand elsewhere, too

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*BaselineMissing*"])


def test_a_copied_simulated_baseline_is_refused_where_live_ones_stand(recorded):
    (path,) = (recorded.path / "baselines").rglob("*.json")
    root = recorded.path / "live"
    target = baseline.path_for(root, POINT, "h200")
    target.parent.mkdir(parents=True)
    target.write_text(path.read_text())

    with pytest.raises(FormatError, match="are simulated, not live"):
        baseline.runs_for(root, POINT, "h200")


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        ("static-power:+40%", "*+* %  the GPU draws more power even when idle (static-power)"),
        ("cpu-feed:-80%", "*+* %  the GPU waits between kernels*(gpu-waits)"),
        ("client:-14%", "*+* %  the client keeps fewer requests in flight*(client-starved)"),
    ],
)
def test_a_planted_cause_is_red_and_named_first(recorded, plant, told):
    run = recorded.run(SIMULATED, f"--joules-plant={plant}")

    run.assert_outcomes(failed=1)
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        ["*EnergyRegression: *b128 [[]simulated[]]: regression", "*why +*: power*", told]
    )


def test_a_starved_batch_is_invalid_and_says_why(recorded):
    run = recorded.run(SIMULATED, "--joules-plant=kv-memory:-92%")

    assert run.ret == 6
    run.stdout.fnmatch_lines(
        ["*InvalidMeasurement*", "*batch-starved*", "*(memory-capacity)", "*requests waiting*"]
    )


@pytest.mark.parametrize(
    ("plant", "field"), [("power-cap:-30%", "power_limit_w"), ("gpus:+1", "num_gpus")]
)
def test_other_hardware_is_not_compared_with_the_baseline(recorded, plant, field):
    run = recorded.run(SIMULATED, f"--joules-plant={plant}")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines([f"*BaselineMismatch*{field}=*"])


def test_beside_the_old_stack_an_added_gpu_is_explained(simulated):
    simulated.tests(ONE.replace("128", "32"))
    simulated.pyproject(
        """
        [tool.pytest-joules.stacks.old]
        python = "python3"
        """
    )

    run = simulated.run(SIMULATED, "--joules-against=old", "--joules-plant=gpus:+1")

    assert run.ret == 6  # nothing is judged between different GPUs, but it is explained
    run.stdout.fnmatch_lines(["*ran on different GPUs*", "*(parallelism)", "*GPUs 1 -> 2*"])


def test_a_planted_result_says_so_wherever_it_goes(recorded, monkeypatch):
    plant = "--joules-plant=cpu-feed:-60%"
    run = recorded.run(SIMULATED, plant, "--joules-export=out.json", "--junitxml=junit.xml")

    run.stdout.fnmatch_lines(["joules: *SIMULATED*planted in stack default: cpu-feed"])
    (first, *_) = json.loads((recorded.path / "out.json").read_text())
    assert [note for note in first["notes"] if note["code"] == "planted"]
    assert 'name="joules_source" value="simulated"' in (recorded.path / "junit.xml").read_text()

    monkeypatch.chdir(recorded.path)
    told = CliRunner().invoke(app, ["baseline", "accept", POINT.id, "--reason", "better"])
    assert told.exit_code == 2
    assert "changed by --joules-plant=cpu-feed:-60%" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--joules-plant=kv-memory:-30%",), "*--joules-plant*Add --joules-source=simulated*"),
        ((SIMULATED, "--joules-plant=luck:-30%"), "*luck: no such cause; known are clocks,*"),
        (
            (SIMULATED, "--joules-plant=clocks:-100%"),
            "*clocks:-100%: give a change above -100 %*",
        ),
        ((SIMULATED, "--joules-plant=clocks:+1001%"), "*of at most +1000%*"),
        ((SIMULATED, "--joules-plant=cpu-feed:nan"), "*"),
        (
            (SIMULATED, "--joules-plant=cpu-feed:-40%,cpu-feed:-10%"),
            "*cpu-feed is given twice*",
        ),
        ((SIMULATED, "--joules-plant=gpus:+8"), "*give how many*"),
        ((SIMULATED, "--joules-plant=clocks"), "*this is no number*"),
        ((SIMULATED, "--joules-plant=gpus:+50%"), "*give how many*"),
        (
            (SIMULATED, "--joules-plant=clocks:-9%", "--joules-record"),
            "*with --joules-plant nothing is recorded*",
        ),
    ],
)
def test_misuse_is_a_usage_error(simulated, arguments, told):
    run = simulated.run(*arguments)

    assert run.ret == 4
    run.stderr.fnmatch_lines([told])


def test_a_source_that_is_named_is_not_changed_by_a_hook(simulated):
    simulated.machine()  # where it was asked, nothing was planted, though the header said so

    run = simulated.run(SIMULATED, "--joules-plant=clocks:-10%", "--joules-plan")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["joules: *source simulated*SIMULATED*; planted in stack *"])


def test_a_gpu_that_the_model_does_not_know_cannot_be_simulated(simulated):
    run = simulated.run(SIMULATED, gpu="tomorrow")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*gpu 'tomorrow' is unknown*"])


def test_a_model_that_does_not_fit_fails_to_launch(simulated):
    simulated.tests(ONE.replace("Qwen3-8B", "Qwen3-235B-A22B-Instruct-2507"))

    run = simulated.run(SIMULATED, "--joules-record")

    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*LaunchError*does not fit in the memory of 1 x h200*"])
