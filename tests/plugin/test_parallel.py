"""pytest -n: workers that lease GPUs, whole sweeps to one worker, one report of all."""

import json
import os
import re
import sys
import textwrap
from collections import Counter

import pytest

from pytest_joules.record import digest_of, find, replay

thorough = pytest.mark.skipif(
    "JOULES_THOROUGH" not in os.environ,
    reason="JOULES_THOROUGH is not set: each of these starts three processes and more",
)

MACHINE = """
    import os, time
    from pathlib import Path
    from pytest_joules.leases import Leases
    from pytest_joules.testing import FakeMachine, source_of

    ROOT = Path(__file__).parent

    class Machine(FakeMachine):
        def _note(self, event, launch):
            super()._note(event, launch)
            if event == "begins":
                hold(self, launch)

    def hold(machine, launch):
        pass

    def until(true):
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.01)

    def journal(word):
        path = ROOT / "journal.jsonl"
        return path.read_text().count(word) if path.exists() else 0

    machine = Machine(journal=ROOT / "journal.jsonl", {machine})

    def pytest_joules_source(options):
        leases = Leases(folder=options.lease_folder, wait_s=options.lease_wait, poll_s=0.01)
        return source_of(machine, window_s=options.window, leases=leases)
"""

MODELS = """
    import pytest
    from pytest_joules import Point

    @pytest.mark.parametrize("model", [f"org/model-{number}" for number in range(4)])
    @pytest.mark.parametrize("batch_size", [8, 16])
    def test_energy(energy_bench, model, batch_size):
        energy_bench.measure(Point(model=model, batch_size=batch_size))
"""


class Parallel:
    """A scratch project on a machine of eight fake GPUs that processes share."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.path = pytester.path
        self.machine()

    def machine(self, arguments="", extra=""):
        text = textwrap.dedent(MACHINE).format(machine=arguments) + textwrap.dedent(extra)
        (self.path / "conftest.py").write_text(text)

    def tests(self, text, name="test_energy.py"):
        (self.path / name).write_text(textwrap.dedent(text))

    def args(self, *args, gpu="h200"):
        return (
            *("-p", "no:hypothesispytest", "-p", "no:cacheprovider"),
            *([f"--gpu={gpu}"] if gpu else []),
            *("--joules-lease-folder=leases", "--joules-lease-wait=60", *args),
        )

    def run(self, *args, **how):
        return self.pytester.runpytest_subprocess(*self.args(*args, **how), timeout=120)

    def run_here(self, *args):
        """Run in this process, which is cheaper; not with workers that are to be killed."""
        return self.pytester.runpytest_inprocess(*self.args(*args))

    def started(self, *args):
        return self.pytester.popen([sys.executable, "-m", "pytest", *self.args(*args)])

    def journal(self):
        lines = (self.path / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def launches(self):
        return [each for each in self.journal() if each["event"] == "begins"]

    def session(self):
        return find("latest", self.path)


@pytest.fixture
def parallel(pytester):
    made = Parallel(pytester)
    made.tests(MODELS)
    return made


def require_never_shared(journal):
    """Follow the journal: nobody may begin on a GPU on which another has not ended."""
    busy = {}
    for line in journal:
        for gpu in line["gpus"]:
            if line["event"] == "begins":
                assert gpu not in busy, (gpu, line, busy)
                busy[gpu] = line["pid"]
            else:
                assert busy.pop(gpu) == line["pid"]


ALL_AT_ONCE = """
    def hold(machine, launch):
        until(lambda: journal("begins") >= {number})
"""


@thorough
def test_workers_measure_at_the_same_time_on_gpus_of_their_own(parallel):
    parallel.machine(extra=ALL_AT_ONCE.format(number=4))

    run = parallel.run("-n4")

    run.assert_outcomes(passed=8)
    assert len({each["pid"] for each in parallel.launches()}) == 4
    assert len({gpu for each in parallel.launches() for gpu in each["gpus"]}) == 4
    require_never_shared(parallel.journal())


@thorough
def test_one_gpu_is_shared_by_nobody_however_many_workers(parallel):
    parallel.machine("num_gpus=1")

    parallel.run("-n4").assert_outcomes(passed=8)

    assert len(parallel.launches()) == 4
    require_never_shared(parallel.journal())


def test_a_sweep_of_24_points_costs_one_launch_among_four_workers(parallel):
    parallel.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("batch_size", range(1, 25))
        def test_energy(energy_bench, batch_size):
            energy_bench.measure(Point(model="org/model", batch_size=batch_size))

        @pytest.mark.parametrize("number", range(10))
        def test_plain(number):
            pass
    """)

    run = parallel.run("-n4")

    run.assert_outcomes(passed=34)
    (launch,) = parallel.launches()
    assert launch["batch_sizes"] == list(range(24, 0, -1))
    run.stdout.fnmatch_lines(["1 launch, * GPU minutes"])


@thorough
def test_tests_that_join_two_servers_run_with_the_tests_of_both(parallel):
    parallel.tests("""
        from pytest_joules import Point

        ONE, TWO = Point(model="org/one", batch_size=8), Point(model="org/two", batch_size=8)

        def test_one(energy_bench):
            energy_bench.measure(ONE)

        def test_both(energy_bench):
            one, two = energy_bench.measure(ONE), energy_bench.measure(TWO)
            assert one.power_w < 1.1 * two.power_w

        def test_two(energy_bench):
            energy_bench.measure(TWO)
    """)

    parallel.run("-n3").assert_outcomes(passed=3)

    assert len(parallel.launches()) == 2
    assert len({each["pid"] for each in parallel.launches()}) == 1


@thorough
def test_a_wide_point_among_narrow_ones_gets_its_four_gpus_at_once(parallel):
    parallel.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("number", range(9))
        def test_narrow(energy_bench, number):
            energy_bench.measure(Point(model=f"org/narrow-{number}", batch_size=8))

        @pytest.mark.parametrize("number", range(2))
        def test_wide(energy_bench, number):
            point = Point(model=f"org/wide-{number}", batch_size=8, num_gpus=4)
            energy_bench.measure(point)
    """)
    parallel.machine("num_gpus=4")

    parallel.run("-n4").assert_outcomes(passed=11)

    require_never_shared(parallel.journal())
    assert Counter(len(each["gpus"]) for each in parallel.launches()) == {1: 9, 4: 2}


@thorough
def test_two_runs_on_one_machine_take_turns(parallel):
    parallel.machine("num_gpus=2", extra="""
        def hold(machine, launch):
            if (ROOT / "hold").exists():
                (ROOT / f"holds-{os.getpid()}").touch()
                until(lambda: len(list(ROOT.glob("holds-*"))) == 2)
    """)  # fmt: skip
    (parallel.path / "hold").touch()

    first, second = parallel.started("-n2"), parallel.started("-n2")

    assert [each.wait(120) for each in (first, second)] == [0, 0]
    assert len(parallel.launches()) == 8
    require_never_shared(parallel.journal())


def test_a_run_without_workers_leases_as_well(parallel):
    parallel.tests("""
        import os
        from pathlib import Path
        from pytest_joules import Point

        def test_energy(energy_bench):
            energy_bench.measure(Point(model="org/model", batch_size=8, num_gpus=8))
    """)
    parallel.machine(
        extra="""
        def hold(machine, launch):
            (ROOT / "holds").touch()
            until(lambda: (ROOT / "go").exists())
    """
    )
    first = parallel.started()
    while not (parallel.path / "holds").exists():
        assert first.poll() is None

    run = parallel.run("--joules-lease-wait=0.2")

    (parallel.path / "go").touch()
    assert first.wait(60) == 0
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [f"*LeaseError: *waited 0.2 s*by process {first.pid} of *pytest*--joules-lease-wait*"]
    )


CHECKS = """
    import pytest
    from pytest_joules import Point

    @pytest.mark.parametrize("model", [f"org/model-{number}" for number in range(4)])
    def test_energy(energy_bench, model):
        energy_bench.check(Point(model=model, batch_size=16))
"""
STACKS = "[tool.pytest-joules.stacks.old]\npython = 'python3'\n"


@thorough
def test_both_stacks_of_a_point_run_on_the_board_of_its_first_launch(parallel):
    parallel.tests(CHECKS)
    (parallel.path / "pyproject.toml").write_text(STACKS)
    parallel.machine("launch_noise=0.004")

    parallel.run("-n4", "--joules-against=old").assert_outcomes(passed=4)

    boards = {}
    for row in digest_of(parallel.session()).rows:
        for result in row.results:
            board = result.provenance.context.gpu_uuids
            boards.setdefault(row.point, set()).add(board)
    assert {len(each) for each in boards.values()} == {1}
    stacks = Counter(each["stack"] for each in parallel.launches())
    assert set(stacks) == {"default", "old"}
    require_never_shared(parallel.journal())


@thorough
def test_a_baseline_is_compared_with_on_its_own_board(parallel):
    parallel.tests(CHECKS)
    parallel.run("-n4", "--joules-record", "--joules-launches=4").assert_outcomes(passed=4)
    recorded = boards_of_baselines(parallel)
    assert {len(each) for each in recorded.values()} == {1}
    (parallel.path / "journal.jsonl").unlink()

    run = parallel.run("-n3")

    run.assert_outcomes(passed=4)
    for row in digest_of(parallel.session()).rows:
        (stored,) = recorded[row.point.model]
        assert {r.provenance.context.gpu_uuids for r in row.results} == {stored}


def boards_of_baselines(parallel):
    found = {}
    for path in (parallel.path / "baselines").rglob("*.json"):
        text = path.read_text()
        model = re.search(r"org/model-\d", text)[0]
        found[model] = {(gpu,) for gpu in re.findall(r"GPU-fake-h200-\d", text)}
    return found


@thorough
def test_recording_from_two_workers_into_one_file_loses_no_run(parallel):
    """Points of one model and task share a file, though not a server."""
    parallel.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("precision", ["bf16", "fp8"])
        @pytest.mark.parametrize("tensor", [1, 2])
        def test_energy(energy_bench, precision, tensor):
            point = Point(model="org/model", batch_size=8, num_gpus=tensor)
            energy_bench.check(point.but(precision=precision))
    """)
    parallel.machine(extra=ALL_AT_ONCE.format(number=4))

    parallel.run("-n4", "--joules-record", "--joules-launches=3").assert_outcomes(passed=4)

    (path,) = (parallel.path / "baselines").rglob("*.json")
    assert path.read_text().count('"launch_id"') == 12
    assert len({each["pid"] for each in parallel.launches()}) == 4


WORSE = """
    machine.power_w = lambda stack, point: 500.0 if "model-0" in point.model else 400.0
"""


@pytest.fixture
def worse(parallel):
    """Four recorded points, one of which then draws a quarter more."""
    parallel.tests(CHECKS)
    steady = "power_w=lambda stack, point: 400.0, launch_noise=0.002"
    parallel.machine(steady)
    recorded = parallel.run_here("--joules-record", "--joules-launches=8")
    recorded.assert_outcomes(passed=4)
    (parallel.path / "journal.jsonl").unlink()
    parallel.machine(steady, extra=WORSE)
    return parallel


def test_the_controller_tells_of_all_workers(worse, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(worse.path / "summary.md"))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(worse.path))

    run = worse.run(
        *("-n2", "--joules-export=all.json", "--joules-export=all.csv"),
        *("--joules-report=report.html", "--joules-comment=comment.md", "--junitxml=j.xml"),
    )

    run.assert_outcomes(passed=3, failed=1)
    assert run.ret == 1
    rows = [line for line in run.outlines if line.startswith("model-") and " fake " in line]
    assert len(rows) == 4
    assert [row[:7] for row in rows if "regression" in row] == ["model-0"]
    run.stdout.fnmatch_lines(
        [
            "joules: gpu h200, source fake*",
            "4 comparisons share a chance of at most 0.6 % of any false alarm",
            "* launches, * GPU minutes",
            "::error file=test_energy.py*model-0*",
        ]
    )
    assert (
        len({each["point"] for each in json.loads((worse.path / "all.json").read_text())}) == 4
    )
    for name in ("all.csv", "report.html", "comment.md", "summary.md"):
        text = (worse.path / name).read_text()
        assert all(f"model-{number}" in text for number in range(4)), name
    assert (worse.path / "j.xml").read_text().count("joules_verdict") == 4
    require_one_session(worse)


def require_one_session(worse):
    """All were recorded on the first GPU, so all are measured there, one after the other."""
    folder = worse.session()
    assert {each.name for each in folder.glob("results*.jsonl")} == {
        "results-gw0.jsonl",
        "results-gw1.jsonl",
    }
    assert sorted(str(each.comparison.verdict) for each in replay(folder)) == [
        "regression",
        *["unchanged"] * 3,
    ]
    assert all(each.is_same for each in replay(folder))
    digest = digest_of(folder)
    assert [each.test for each in digest.failed] == ["test_energy.py::test_energy[org/model-0]"]
    assert digest.num_launches == len(worse.launches())
    assert digest.spent_gpu_s > 0
    assert {tuple(each["gpus"]) for each in worse.launches()} == {("GPU-fake-h200-0",)}
    require_never_shared(worse.journal())


@thorough
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["compare", "latest"], "as in the run"),
        (["show", "latest"], "model-3"),
        (["export", "latest", "x.csv"], ""),
        (["report", "latest", "--out", "x.html"], ""),
    ],
)
def test_commands_find_the_latest_session(worse, args, text):
    worse.run("-n4")

    run = worse.pytester.run(sys.executable, "-m", "pytest_joules", *args)

    assert run.ret in (0, 1), run.stderr.str()
    assert text in run.stdout.str()
    for name in args[-1:]:
        if name.startswith("x."):
            assert "model-3" in (worse.path / name).read_text()


@thorough
def test_the_chance_of_a_false_alarm_is_that_of_a_run_without_workers(worse):
    alone = alarm(worse.run())
    (worse.path / "journal.jsonl").unlink()

    assert alarm(worse.run("-n4")) == alone
    assert alarm(worse.run("-n2")) == alone


def alarm(run):
    (line,) = [line for line in run.outlines if "any false alarm" in line]
    return line


@thorough
def test_exit_code_6_where_all_that_failed_is_undecided(parallel):
    parallel.machine("largest_batch=4")

    run = parallel.run("-n2")

    run.assert_outcomes(failed=8)
    assert run.ret == 6


@thorough
def test_exit_code_1_where_something_else_failed_too(parallel):
    parallel.machine("largest_batch=4")
    parallel.tests("def test_plain(): assert False", name="test_plain.py")

    run = parallel.run("-n2")

    assert run.ret == 1


@thorough
def test_collection_errors_of_workers_are_told_once(parallel):
    parallel.tests("""
        from pytest_joules import Point

        def test_wrong(energy_bench):
            energy_bench.measure(Point(model="org/model", batch_size=-1))

        def test_right(energy_bench):
            energy_bench.measure(Point(model="org/model", batch_size=8))
    """)

    run = parallel.run("-n2", "--joules-comment=comment.md")

    assert run.ret != 0
    assert run.stdout.str().count("InvalidPoint: ") >= 1
    assert (parallel.path / "comment.md").read_text().count("test_wrong") == 1


KILLED = """
    def hold(machine, launch):
        if "model-1" in launch.largest.model and not (ROOT / "killed").exists():
            (ROOT / "killed").write_text(os.environ["PYTEST_XDIST_WORKER"])
            os.kill(os.getpid(), 9)
"""


def test_a_killed_worker_shows_as_what_it_is_and_its_results_are_kept(parallel):
    parallel.tests("""
        import pytest
        from pytest_joules import Point

        POINTS = [Point(model=f"org/model-{number}", batch_size=8) for number in range(2)]

        @pytest.mark.parametrize("number", range(2))
        def test_energy(energy_bench, number):
            energy_bench.measure(POINTS[number])

        def test_order(energy_bench):
            zero, one = map(energy_bench.measure, POINTS)
            assert zero.power_w < 1.1 * one.power_w
    """)
    parallel.machine("num_gpus=1", extra=KILLED)

    run = parallel.run("-n2", "--joules-export=all.json")

    name = (parallel.path / "killed").read_text()
    assert run.ret == 1
    run.stdout.fnmatch_lines([f"*worker '{name}' crashed while running*", "*model-0*"])
    run.stdout.fnmatch_lines([f"note: worker {name} died*"])
    folder = parallel.session()
    assert "org/model-0" in (folder / f"results-{name}.jsonl").read_text()
    exported = json.loads((parallel.path / "all.json").read_text())
    assert Counter("model-0" in str(each) for each in exported) == {True: 2, False: 1}
    begun = [each for each in parallel.journal() if each["event"] == "begins"]
    assert len({each["pid"] for each in begun}) == 2
    assert {gpu for each in begun for gpu in each["gpus"]} == {"GPU-fake-h200-0"}


@thorough
def test_waiting_is_told_by_the_worker(parallel):
    parallel.machine("num_gpus=1", extra="""
        def hold(machine, launch):
            until(lambda: len(list((ROOT / "leases").glob("ticket-*"))) > 0
                  or (ROOT / "waited").exists())
            (ROOT / "waited").touch()
    """)  # fmt: skip
    text = (parallel.path / "conftest.py").read_text().replace(
        "return source_of(machine, window_s=options.window, leases=leases)",
        "made = source_of(machine, window_s=options.window, leases=leases)\n"
        "    from dataclasses import replace\n"
        "    rigs = {n: replace(r, source='live') for n, r in made.rigs.items()}\n"
        "    return replace(made, rigs=rigs, name='live')",
    )  # fmt: skip
    (parallel.path / "conftest.py").write_text(text)

    run = parallel.run("-n2")

    run.assert_outcomes(passed=8)
    run.stderr.fnmatch_lines(
        ["[[]gw?] joules *waits for GPUs: *needs 1 of 1 GPUs; GPU-fake-h200-0 held by *"]
    )


def test_a_plan_needs_no_workers(parallel):
    run = parallel.run_here("-n4", "--joules-plan")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["*energy plan: nothing is launched*", "*model-3*"])


def test_each_worker_measuring_everything_is_refused(parallel):
    run = parallel.run_here("-n2", "--dist=each")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--dist=each*another --dist*"])


def test_workers_of_other_machines_are_refused(parallel):
    run = parallel.run_here("--dist=load", "--tx=ssh=elsewhere")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--tx=ssh=elsewhere*another machine*--tx=popen*"])


@thorough
def test_the_gpu_may_stand_in_a_file(parallel):
    (parallel.path / "pyproject.toml").write_text("[tool.pytest-joules]\ngpu = 'h200'\n")

    run = parallel.pytester.runpytest_subprocess("-n2", "-p", "no:hypothesispytest")

    run.assert_outcomes(passed=8)
    run.stdout.fnmatch_lines(["4 launches, * GPU minutes"])


@thorough
@pytest.mark.parametrize("dist", ["loadfile", "loadscope", "loadgroup", "worksteal"])
def test_other_ways_to_distribute_keep_sweeps_together(parallel, dist):
    parallel.run("-n2", f"--dist={dist}").assert_outcomes(passed=8)

    assert len(parallel.launches()) == 4


@thorough
def test_the_budget_is_that_of_all_workers(parallel):
    """Each of the four launches takes about 2 GPU minutes, and about 3 are expected."""
    parallel.machine("num_gpus=1")

    run = parallel.run("-n4", "--joules-budget=6")

    outcomes = run.parseoutcomes()
    assert outcomes["failed"] > 0
    assert run.ret == 6
    assert len(parallel.launches()) < 4


@thorough
def test_simulated_results_need_no_lease(parallel):
    (parallel.path / "conftest.py").unlink()
    parallel.tests("""
        import pytest
        from pytest_joules import Point

        @pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "Qwen/Qwen3-14B"])
        def test_energy(energy_bench, model):
            energy_bench.measure(Point(model=model, batch_size=8))
    """)

    run = parallel.run("-n2", "--joules-source=simulated")

    run.assert_outcomes(passed=2)
    run.stdout.fnmatch_lines(["*SIMULATED*", "2 launches, * GPU minutes"])
    assert not (parallel.path / "leases").exists()


@thorough
def test_recorded_results_are_shown_once(parallel):
    (parallel.path / "stored").mkdir()
    parallel.run("-n2", "--joules-export=stored/all.json")
    (parallel.path / "conftest.py").unlink()

    args = ["--joules-source=recorded", "--joules-data=stored", "--joules-export=again.csv"]
    run = parallel.run("-n3", *args)

    run.assert_outcomes(passed=8)
    assert len((parallel.path / "again.csv").read_text().splitlines()) == 1 + 8
    assert len(list((parallel.path / ".joules" / "sessions").iterdir())) == 1
