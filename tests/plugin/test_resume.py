"""--joules-resume: real deaths of real processes, and what another run makes of them."""

import json
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from pytest_joules import baseline, record
from pytest_joules.options.frozen import Options
from pytest_joules.record.costs import end_of
from pytest_joules.record.replaying import replay
from pytest_joules.sources.choice import chosen_source
from tests.plugin.conftest import CHECK

MACHINE = "launch_noise=0.004, seed={seed}, power_w=lambda stack, point: {factor} * 400.0"
DEADLY = """
    import os
    import signal

    loads = 0
    steady = machine.power_w

    def power_w(stack, point):
        global loads
        loads += 1
        if loads == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return steady(stack, point)

    machine.power_w = power_w
"""
QUICK = """
    def pytest_joules_source(options):
        return source_of(machine, window_s=20)
"""
MEASURE = """
    from pytest_joules import Point

    POINT = Point(model="Qwen/Qwen3-8B")

    def test_sweep(energy_bench):
        results = energy_bench.sweep(POINT, batch_size=[4, 16, 64])
        assert all(result.energy_per_token_j > 0 for result in results)
"""


def sessions(joules):
    return record.known_sessions(joules.path)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def machine(joules, *, factor=1.0, seed=1, kill_at=0, extra=""):
    deadly = DEADLY.format(at=kill_at) if kill_at else ""
    more = "".join(map(textwrap.dedent, (QUICK, deadly, extra)))
    joules.machine(MACHINE.format(factor=factor, seed=seed), more)


def dies(joules, *args):
    """Run in a process of its own, which must be killed; return what it left."""
    before = set(sessions(joules))
    child = os.fork()  # everything heavy is loaded already
    if child == 0:
        joules.run(*args)
        os._exit(0)  # it was to be killed: the parent sees that it was not
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    left = set(sessions(joules)) - before
    assert len(left) <= 1
    return next(iter(left), None)


def recorded(joules, *args):
    machine(joules)
    joules.run("--joules-record", "--joules-launches=4", *args).assert_outcomes(passed=2)


@pytest.mark.parametrize("kill_at", [2, 3])
def test_a_killed_run_goes_on_and_says_the_same(joules, kill_at):
    """A rise of 10 % takes two launches of two points each: four loads."""
    recorded(joules)
    machine(joules, factor=1.1, seed=2, kill_at=kill_at)
    died = dies(joules)
    left = record.results_of(died)
    assert len(left) == kill_at - 1

    machine(joules, factor=1.1, seed=3)
    run = joules.run("--joules-resume", "--joules-export=all.json")

    run.assert_outcomes(failed=2)
    assert run.ret == 1
    went_on = sessions(joules)[-1]
    taken = record.results_of(went_on)[: len(left)]
    assert [r.but(notes=()) for r in taken] == [r.but(notes=()) for r in left]
    assert all(result.notes[-1].code == "taken-over" for result in taken)
    run.stdout.fnmatch_lines(
        [f"note: *measured in session {died.name}*", f"*; of these *{died.name}"]
    )
    exported = json.loads((joules.path / "all.json").read_text())
    assert {r.provenance.context.session for r in left} < {
        each["provenance"]["context"]["session"] for each in exported
    }
    verdicts = replay(went_on)
    assert [each.comparison.verdict for each in verdicts] == ["regression", "regression"]
    assert all(each.is_same for each in verdicts)
    # Two launches a point, none of them measured twice.
    for point in {result.point for result in taken}:
        runs = [r for r in record.results_of(went_on) if r.point == point]
        assert len({r.evidence.launch_id for r in runs}) == len(runs) == 2
    again = joules.run("--joules-resume")
    assert again.ret == pytest.ExitCode.USAGE_ERROR


def test_verdicts_are_taken_over_as_they_were(joules):
    """The second test kills its run: the first point's verdict stands, with all it rests on."""
    recorded(joules)
    joules.tests(
        CHECK
        + """
    def test_other(energy_bench):
        energy_bench.check(QWEN.but(batch_size=32, precision="fp8"))
    """
    )
    machine(joules)
    joules.run("--joules-record", "--joules-launches=4", "-k", "other")
    machine(joules, seed=2, kill_at=3)  # the loads of one launch, then the other server's
    died = dies(joules)
    was = lines(died / "verdicts.jsonl")
    assert len(was) == 2

    machine(joules, seed=3)
    run = joules.run("--joules-resume", "-v")

    run.assert_outcomes(passed=3)
    run.stdout.fnmatch_lines(["*launches made: 32"])
    went_on = sessions(joules)[-1]
    assert lines(went_on / "verdicts.jsonl")[:2] == was
    assert [each.is_same for each in replay(went_on)] == [True] * 3


def test_a_first_result_survives_sigkill_of_a_run_of_its_own_process(joules):
    """As users run it, in a fresh interpreter: killed when the second measurement starts."""
    joules.tests(MEASURE)
    machine(joules, kill_at=2)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--gpu=h200"]

    run = joules.pytester.run(*command)

    assert run.ret == -signal.SIGKILL
    (died,) = sessions(joules)
    (result,) = record.results_of(died)
    assert result.is_valid
    assert not (died / "end.json").exists()
    assert not record.is_running(died)
    (cost,) = lines(died / "costs.jsonl")[:1]
    assert json.loads(cost)["spent_gpu_s"] > 60


def test_what_was_measured_is_on_disk_before_anyone_goes_on(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda number: (synced.append(Path(f"/proc/self/fd/{number}").resolve()), real(number)),
    )
    from pytest_joules.storage import append_durably  # noqa: PLC0415

    path = tmp_path / "session" / "results.jsonl"
    append_durably(path, ["one"])
    first = list(synced)
    append_durably(path, ["two", "three"])

    assert first == [path, path.parent]
    assert synced[2:] == [path]
    assert path.read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize("kill_at", [1, 3])
def test_recording_goes_on_and_adds_each_run_once(joules, kill_at):
    machine(joules, kill_at=kill_at)
    died = dies(joules, "--joules-record", "--joules-launches=2")
    assert (died is None) == (kill_at == 1)  # nothing was measured, nothing is stored
    assert joules.baseline_files() == []

    machine(joules, seed=2)
    args = ["--joules-record", "--joules-launches=2"]
    run = joules.run(*args, *(["--joules-resume"] if died else []))

    run.assert_outcomes(passed=2)
    (name,) = joules.baseline_files()
    for runs in baseline.load(joules.path / "baselines" / name).values():
        assert len(runs) == len({run.evidence.launch_id for run in runs}) == 2


def test_what_a_dead_run_had_recorded_is_not_recorded_again(joules):
    machine(
        joules,
        extra="""
    def pytest_runtest_logreport(report):
        if report.when == "call" and report.passed:
            os.kill(os.getpid(), signal.SIGKILL)
    import os, signal
    """,
    )
    args = ["--joules-record", "--joules-launches=2"]
    dies(joules, *args)
    (name,) = joules.baseline_files()
    path = joules.path / "baselines" / name
    assert [len(runs) for runs in baseline.load(path).values()] == [2]

    machine(joules, seed=2)
    run = joules.run(*args, "--joules-resume")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(
        ["*launches made: none"]
    )  # the second point's runs were there, too
    assert [len(runs) for runs in baseline.load(path).values()] == [2, 2]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the project of ``half_done`` is kept, once it was made."""
    return tmp_path_factory.mktemp("kept") / "project"


@pytest.fixture
def half_done(joules, kept):
    """A check that died after its first result; made once, then copied."""
    if kept.exists():
        shutil.copytree(kept, joules.path, dirs_exist_ok=True)
    else:
        joules.pyproject("[tool.pytest-joules.stacks.default]\nenv = {TOKEN = 'hidden'}\n")
        recorded(joules)
        machine(joules, seed=2, kill_at=2)
        dies(joules)
        machine(joules, seed=3)
        shutil.copytree(joules.path, kept)
    joules.died = sessions(joules)[-1]
    return joules


def _other_software(joules):
    joules.machine("packages={'torch': '9.9'}", QUICK)


def _other_limit(joules):
    machine(joules, extra="machine.gpus.power_limit_factor = 0.5\n")


def _other_driver(joules):
    machine(
        joules,
        extra="""
        from dataclasses import replace
        gpus = machine.identify()
        machine.identify = lambda: tuple(replace(gpu, driver="999.1") for gpu in gpus)
    """,
    )


def _other_board(joules):
    machine(
        joules,
        extra="""
        gpus = machine.identify()
        machine.identify = lambda: gpus[1:]
    """,
    )


def _other_stack(joules):
    joules.pyproject("[tool.pytest-joules.stacks.default]\nenv = {TOKEN = 'other'}\n")


def _more_points(joules):
    joules.tests(CHECK.replace("[16, 64]", "[16, 64, 128]"))


def _fewer_points(joules):
    joules.tests(CHECK.replace("[16, 64]", "[64]"))


def _other_baseline(joules):
    machine(joules, seed=9)
    joules.run("--joules-record", "--joules-launches=1")
    machine(joules, seed=3)


def _nothing(joules):
    del joules


DIFFERENT = {
    "window": (_nothing, ["--joules-window=40"], "window_s was 60.0 and is 40.0"),
    "tolerance": (
        _nothing,
        ["--joules-tolerance=5%"],
        "tolerance of qwen3-8b*was 0.03 and is 0.05",
    ),
    "record": (_nothing, ["--joules-record"], "record was False and is True"),
    "stack": (_other_stack, [], "stack.env.TOKEN was "),
    "more": (_more_points, [], "points: new are qwen3-8b-*b128"),
    "fewer": (_fewer_points, [], "points: no more are qwen3-8b-*b16"),
    "baseline": (_other_baseline, [], "baseline of qwen3-8b-"),
    "packages": (_other_software, [], "packages.torch='absent', now it is '9.9'"),
    "limit": (_other_limit, [], "power_limit_w=700.0, now it is 350.0"),
    "driver": (_other_driver, [], "driver='fake', now it is '999.1'"),
    "board": (_other_board, [], "launches so far ran on GPU-*-0, which are not all visible"),
}


@pytest.mark.parametrize(("change", "args", "told"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_is_named_and_nothing_is_measured(half_done, *, change, args, told):
    change(half_done)

    run = half_done.run(f"--joules-resume={half_done.died.name}", *args)

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*{half_done.died.name}*{told}*--joules-resume*"])
    run.stdout.no_fnmatch_line("launches made: *6*")
    assert not (half_done.died / "end.json").exists()  # it may still be resumed
    assert "hidden" not in (half_done.died / "plan.json").read_text()


def test_software_that_only_a_launch_shows_is_compared_there(half_done):
    machine(
        half_done,
        seed=3,
        extra="""
        import contextlib
        started = machine.started

        @contextlib.contextmanager
        def with_another_revision(launch, *, gpu_uuids):
            with started(launch, gpu_uuids=gpu_uuids) as server:
                server.model_revision = "another"
                yield server

        machine.started = with_another_revision
        """,
    )

    run = half_done.run("--joules-resume")

    assert run.ret == 1
    run.stdout.fnmatch_lines(["*model_revision='fake', now it is 'another'*"])


@pytest.mark.parametrize("where", [(), ("--joules-fleet=127.0.0.1:1",)], ids=["here", "fleet"])
def test_without_an_interrupted_session_there_is_nothing_to_resume(joules, where):
    """On a fleet that is said before anybody looks for the cluster, which is not there."""
    run = joules.run("--joules-resume", *where)

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*no session in *was interrupted*Leave --joules-resume out*"])


def test_a_session_that_ended_has_nothing_to_resume(joules):
    recorded(joules)
    (ended,) = sessions(joules)

    for name, told in (("", "was interrupted"), (f"={ended.name}", "all that it was asked")):
        run = joules.run(f"--joules-resume{name}")
        assert run.ret == pytest.ExitCode.USAGE_ERROR
        run.stderr.fnmatch_lines([f"*{told}*Leave --joules-resume out*"])


def test_a_session_that_runs_is_not_taken_over(half_done):
    with record.running_lock(half_done.died):
        run = half_done.run("--joules-resume")

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*session {half_done.died.name} still runs*"])


def test_a_plan_resumes_nothing(half_done):
    run = half_done.run("--joules-resume", "--joules-plan")

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*--joules-resume goes on with a session that launches*"])


def test_a_server_that_somebody_else_runs_is_measured_anew(joules):
    """One start of it is one sample: another session's share of it cannot be told apart."""
    joules.tests(
        """
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("batch_size", [16, 64])
        def test_energy(energy_bench, batch_size):
            energy_bench.measure(Point(model="a/b", engine="endpoint", batch_size=batch_size))
        """
    )
    machine(joules, kill_at=2)
    died = dies(joules)
    machine(joules)

    run = joules.run("--joules-resume")

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    told = f"*session {died.name} measured a server that it had not started*"
    run.stderr.fnmatch_lines([f"{told}anew without --joules-resume*"])
    assert not (died / "end.json").exists()


def test_workers_go_on_with_what_one_process_began(half_done):
    left = record.results_of(half_done.died)

    run = half_done.run("--joules-resume", "-n1", "--joules-export=all.json")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines([f"* launches, *; of these 1 launch * {half_done.died.name}"])
    went_on = sessions(half_done)[-1]
    (shared,) = [json.loads(line) for line in lines(went_on / "results.jsonl")]
    assert shared["notes"][-1]["code"] == "taken-over"
    every = record.results_of(went_on)
    assert every[0].but(notes=()) == left[0].but(notes=())
    assert len(every) == len({(r.point, r.evidence.launch_id) for r in every})
    # Two points, judged by launches of one server: the first one's was made by the dead run.
    assert len({r.evidence.launch_id for r in every}) == record.digest_of(went_on).num_launches
    assert len(json.loads((half_done.path / "all.json").read_text())) == len(every)
    assert [each.is_same for each in replay(went_on)] == [True, True]
    assert end_of(half_done.died)["resumed_by"] == went_on.name


def test_workers_refuse_what_differs_once_and_leave_it_as_it_was(half_done):
    run = half_done.run("--joules-resume", "--joules-window=40", "-n2")

    assert run.ret == 1
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*window_s was 60.0 and is 40.0*--joules-resume*"])
    assert sessions(half_done)[-1] == half_done.died
    assert not (half_done.died / "end.json").exists()


def test_ctrl_c_is_an_interruption_and_a_resumed_run_may_be_resumed(joules):
    joules.tests(MEASURE)
    for number in (2, 1):
        machine(
            joules,
            extra=DEADLY.format(at=2).replace(
                "os.kill(os.getpid(), signal.SIGKILL)", "raise KeyboardInterrupt"
            ),
        )
        args = ["--gpu=h200", *(["--joules-resume"] if number == 1 else [])]
        run = joules.pytester.runpytest_inprocess(*args, no_reraise_ctrlc=True)
        assert run.ret == pytest.ExitCode.INTERRUPTED
        run.stdout.fnmatch_lines(
            ["note: unfinished (interrupted*with --joules-resume goes on*"]
        )
    assert len(record.results_of(sessions(joules)[-1])) == 2

    machine(joules)
    run = joules.run("--joules-resume")

    run.assert_outcomes(passed=1)
    run.stdout.fnmatch_lines(["*launches made: 4", "3 launches, *of these 2 launches*"])
    assert "unfinished" not in run.stdout.str()
    ends = [end_of(each).get("resumed_by") for each in sessions(joules)]
    assert ends == [sessions(joules)[1].name, sessions(joules)[2].name, None]


STOPPING = """
    from pytest_joules import Point

    def test_first(energy_bench):
        assert energy_bench(model="Qwen/Qwen3-8B", batch_size=16).energy_per_token_j < 0

    def test_second(energy_bench):
        assert energy_bench(model="Qwen/Qwen3-14B", batch_size=16).energy_per_token_j > 0
"""


def test_a_run_that_stopped_at_a_failure_may_be_resumed(joules):
    """With -x the second test's point is not measured, though nothing was interrupted."""
    joules.tests(STOPPING)
    machine(joules)

    stopped = joules.run("-x")

    stopped.assert_outcomes(failed=1)
    stopped.stdout.fnmatch_lines(["note: unfinished (stopped by -x *with --joules-resume *"])
    (folder,) = sessions(joules)
    assert len(record.results_of(folder)) == 1

    run = joules.run("--joules-resume")

    run.assert_outcomes(failed=1, passed=1)
    run.stdout.fnmatch_lines(["2 launches, *of these 1 launch*"])
    assert "unfinished" not in run.stdout.str()


def test_a_run_that_stopped_at_its_last_point_has_left_nothing(joules):
    joules.tests(STOPPING.partition("    def test_second")[0])
    machine(joules)

    assert "unfinished" not in joules.run("-x").stdout.str()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "plan.json: not the JSON"),
        ('{"schema": 2}', "plan.json: is no plan of this version"),
        ('{"schema": 1}', "plan.json: must contain"),
        ('{"schema": 1, "points": [{"id": "x"}]}', "plan.json: points*must contain"),
    ],
)
def test_a_broken_plan_is_refused_with_its_file(half_done, text, told):
    (half_done.died / "plan.json").write_text(text)

    run = half_done.run("--joules-resume")

    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines([f"*{told}*"])


def test_a_torn_last_line_is_measured_again(half_done):
    path = half_done.died / "results.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[:100])

    run = half_done.run("--joules-resume")

    run.assert_outcomes(passed=2)


def test_simulated_launches_after_a_resume_are_no_copies_of_those_before():
    """Noise is drawn from a seed and a launch's number, which begins anew in each run."""
    seeds = {
        chosen_source(Options(gpu="h200", source="simulated", resume=name))
        .clean.rigs["vllm"]
        .engine.chance.seed
        for name in ("", "first", "second")
    }

    assert len(seeds) == 3
