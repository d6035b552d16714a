"""Budgets and deadlines: what is left when they are spent is never green."""

from pathlib import Path

import psutil
import pytest

from pytest_joules import record
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Stack
from pytest_joules.record.costs import cost_of, end_of
from tests.fakes.vllm_program import make_stack

SWEEP = """
    from pytest_joules import Point

    POINT = Point(model="Qwen/Qwen3-8B")

    def test_largest(energy_bench):
        assert energy_bench.measure(POINT.but(batch_size=64)).energy_per_token_j > 0

    def test_middle(energy_bench):
        assert energy_bench.measure(POINT.but(batch_size=16)).energy_per_token_j > 0

    def test_smallest(energy_bench):
        assert energy_bench(model="Qwen/Qwen3-8B", batch_size=4).energy_per_token_j > 0
"""
HEARD = """
    heard = []
    source = pytest_joules_source

    def pytest_joules_source(options):
        def hear(event):
            heard.append((type(event).__name__, event.at_s))

        return source(options).saying(hear)

    def pytest_terminal_summary(terminalreporter):
        told = [f"{name} {at_s:.0f}" for name, at_s in heard if name.startswith("Launch")]
        print("heard:", ", ".join(told))
"""


def heard(run):
    """Return when launches began and ended."""
    (line,) = [line for line in run.stdout.lines if "heard: " in line]
    told = line.partition("heard: ")[2]
    events = [each.split() for each in told.split(", ") if each]
    return [(name, float(at_s)) for name, at_s in events]


def test_a_launch_that_overruns_its_estimate_is_stopped_between_points(joules):
    """Three points are estimated at six minutes, but each takes six: the budget is seven."""
    joules.machine("step_s=0.11", HEARD)
    joules.tests(SWEEP)

    run = joules.run("--joules-budget=7")

    run.assert_outcomes(passed=1, failed=2)
    assert run.ret == 6
    assert sum("Inconclusive: " in line for line in run.stdout.lines) >= 2
    run.stdout.fnmatch_lines(["*of 7 GPU minutes are spent*--joules-budget*"])
    run.stdout.fnmatch_lines(
        ["note: unfinished (budget spent); *with --joules-resume goes on*"]
    )
    assert [name for name, _ in heard(run)] == ["LaunchBegins", "LaunchEnds"]
    (session,) = record.known_sessions(joules.path)
    assert end_of(session)["unfinished"] == "budget spent"
    assert len(record.results_of(session)) == 1


def test_what_was_spent_before_a_resume_counts_and_more_may_be_allowed(joules):
    joules.machine("step_s=0.11", HEARD)
    joules.tests(SWEEP)
    joules.run("--joules-budget=7")
    (first,) = record.known_sessions(joules.path)
    spent_min = cost_of(first)["spent_gpu_s"] / 60

    same = joules.run("--joules-resume", "--joules-budget=7")
    more = joules.run("--joules-resume", f"--joules-budget={spent_min + 100}")

    same.assert_outcomes(passed=1, failed=2)
    assert same.ret == 6
    assert heard(same) == []
    more.assert_outcomes(passed=3)
    cost = cost_of(record.known_sessions(joules.path)[-1])
    assert cost["num_launches"] == 2
    assert cost["spent_gpu_s"] / 60 > 2 * spent_min


def test_a_longer_window_is_estimated_as_longer(joules):
    joules.tests(SWEEP)

    run = joules.run("--joules-budget=20", "--joules-window=600")

    run.assert_outcomes(failed=3)
    assert "unfinished" not in run.stdout.str()  # there is nothing to go on with
    run.stdout.fnmatch_lines(["*0.0 of 20 GPU minutes are spent and*takes about 33.0*"])
    run.stdout.fnmatch_lines(["*launches made: none"])


def test_a_sweep_of_twelve_batch_sizes_is_one_launch_and_launches_overlap_nothing(joules):
    joules.machine("", HEARD)
    joules.tests("""
        from pytest_joules import Point

        POINT = Point(model="Qwen/Qwen3-8B")
        SIZES = [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24]

        def test_sweep(energy_bench):
            assert len(energy_bench.sweep(POINT, batch_size=SIZES)) == 12

        def test_others(energy_bench):
            for precision in ("fp8", "int4"):
                energy_bench.measure(POINT.but(batch_size=8, precision=precision))
    """)

    run = joules.run("--joules-window=45")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["*launches made: 24,20,16,14,12,10,8,6,4,3,2,1 | 8 | 8"])
    events = heard(run)
    assert [name for name, _ in events] == ["LaunchBegins", "LaunchEnds"] * 3
    times = [at_s for _, at_s in events]
    assert times == sorted(times)


def test_a_point_that_takes_too_long_is_given_up_and_says_how_far_it_came(joules):
    joules.machine("step_s=0.11", HEARD, window=60)
    conftest = joules.path / "conftest.py"
    text = conftest.read_text().replace("60))", "60), deadline_s=options.point_deadline)")
    conftest.write_text(text)
    joules.tests(SWEEP)

    run = joules.run("--joules-point-deadline=40")

    run.assert_outcomes(failed=3)
    assert run.ret == 6
    run.stdout.fnmatch_lines(["*not finished after 40 s: * of * were answered*point-deadline*"])
    assert [name for name, _ in heard(run)] == ["LaunchBegins", "LaunchEnds"]


@pytest.mark.parametrize("name", ["", "old"])
def test_the_launch_deadline_is_the_stacks_own_unless_the_option_says_otherwise(name):
    stacks = {"old": Stack(name="old", deadline_s=900.0), "default": Stack(deadline_s=700.0)}

    own = Options(stacks=stacks).stack_named(name).deadline_s
    asked = Options(stacks=stacks, launch_deadline=5.0).stack_named(name).deadline_s

    assert own == (900.0 if name else 700.0)
    assert asked == 5.0
    assert Options(launch_deadline=5.0).stack_named("").deadline_s == 5.0


def test_a_server_that_is_never_ready_is_ended_at_the_launch_deadline(joules, mock_nvml):
    """The real engine, meter and processes; only the GPU and vLLM itself are stand-ins."""
    del mock_nvml
    (joules.path / "conftest.py").unlink()
    stack = make_stack(joules.path / "env", "never-healthy")
    env = ", ".join(f'{name} = "{value}"' for name, value in stack.env.items())
    joules.pyproject(
        f'[tool.pytest-joules.stacks.default]\npython = "{stack.python}"\nenv = {{{env}}}\n'
    )
    joules.tests(SWEEP)

    run = joules.run("--joules-launch-deadline=2", "-k", "largest")

    run.assert_outcomes(failed=1)
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*not ready to serve*deadline of 2 s*--joules-launch-deadline*"])
    assert not [pid for pid in psutil.pids() if str(joules.path / "env") in _environment(pid)]


def _environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:  # it ended
        return ""
