"""More of pytest -n with real processes than every change can pay for, about ten minutes.

pytest tests/perf/parallel_runs.py
"""

import re
import sys
from collections import Counter

import pytest

from pytest_joules.record import digest_of
from tests.fakes.parallel_project import CHECKS, parallel, require_never_shared, worse

__all__ = ["parallel", "worse"]  # fixtures

ALL_AT_ONCE = """
    def hold(machine, launch):
        until(lambda: journal("begins") >= {number})
"""


def test_workers_measure_at_the_same_time_on_gpus_of_their_own(parallel):
    parallel.machine(extra=ALL_AT_ONCE.format(number=4))

    run = parallel.run("-n4")

    run.assert_outcomes(passed=8)
    assert len({each["pid"] for each in parallel.launches()}) == 4
    assert len({gpu for each in parallel.launches() for gpu in each["gpus"]}) == 4
    require_never_shared(parallel.journal())


def test_one_gpu_is_shared_by_nobody_however_many_workers(parallel):
    parallel.machine("num_gpus=1")

    parallel.run("-n4").assert_outcomes(passed=8)

    assert len(parallel.launches()) == 4
    require_never_shared(parallel.journal())


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


def test_two_runs_on_one_machine_take_turns(parallel):
    parallel.machine("num_gpus=2", extra="""
        def hold(machine, launch):
            if (ROOT / "hold").exists():
                (ROOT / f"holds-{os.getpid()}").touch()
                until(lambda: len(list(ROOT.glob("holds-*"))) >= 2)
    """)  # fmt: skip
    (parallel.path / "hold").touch()

    first, second = parallel.started("-n2"), parallel.started("-n2")

    assert [each.wait(600) for each in (first, second)] == [0, 0]
    assert len(parallel.launches()) == 8
    require_never_shared(parallel.journal())


STACKS = "[tool.pytest-joules.stacks.old]\npython = 'python3'\n"


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


def test_the_chance_of_a_false_alarm_is_that_of_a_run_without_workers(worse):
    alone = alarm(worse.run())
    (worse.path / "journal.jsonl").unlink()

    assert alarm(worse.run("-n4")) == alone
    assert alarm(worse.run("-n2")) == alone


def alarm(run):
    (line,) = [line for line in run.outlines if "any false alarm" in line]
    return line


def test_exit_code_6_where_all_that_failed_is_undecided(parallel):
    parallel.machine("largest_batch=4")

    run = parallel.run("-n2")

    run.assert_outcomes(failed=8)
    assert run.ret == 6


def test_exit_code_1_where_something_else_failed_too(parallel):
    parallel.machine("largest_batch=4")
    parallel.tests("def test_plain(): assert False", name="test_plain.py")

    run = parallel.run("-n2")

    assert run.ret == 1


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
    assert "1 failed test\n" in (parallel.path / "comment.md").read_text()


def test_waiting_is_told_by_the_worker(parallel):
    parallel.machine("num_gpus=1", extra="""
        def hold(machine, launch):
            until(lambda: len(list((ROOT / "leases").glob("ticket-*"))) > 0
                  or (ROOT / "waited").exists())
            (ROOT / "waited").touch()
    """)  # fmt: skip
    conftest = parallel.path / "conftest.py"
    fake = "return source_of(machine, window_s=min(options.window, 15), leases=leases)"
    assert fake in conftest.read_text()
    live = f"""from dataclasses import replace
    made = {fake.removeprefix("return ")}
    rigs = {{n: replace(r, source='live') for n, r in made.rigs.items()}}
    return replace(made, rigs=rigs, name='live')"""
    conftest.write_text(conftest.read_text().replace(fake, live))

    run = parallel.run("-n2")

    run.assert_outcomes(passed=8)
    run.stderr.fnmatch_lines(
        ["[[]gw?] joules *waits for GPUs: *needs 1 of 1 GPUs; GPU-fake-h200-0 held by *"]
    )


def test_the_gpu_may_stand_in_a_file(parallel):
    (parallel.path / "pyproject.toml").write_text("[tool.pytest-joules]\ngpu = 'h200'\n")

    run = parallel.pytester.runpytest_subprocess("-n2", "-p", "no:hypothesispytest")

    run.assert_outcomes(passed=8)
    run.stdout.fnmatch_lines(["4 launches, * GPU minutes"])


@pytest.mark.parametrize("dist", ["loadfile", "loadscope", "loadgroup", "worksteal"])
def test_other_ways_to_distribute_keep_sweeps_together(parallel, dist):
    parallel.run("-n2", f"--dist={dist}").assert_outcomes(passed=8)

    assert len(parallel.launches()) == 4


def test_the_budget_is_that_of_all_workers(parallel):
    """Each of the four launches takes about 2 GPU minutes, and about 3 are expected."""
    parallel.machine("num_gpus=1")

    run = parallel.run("-n4", "--joules-budget=6")

    outcomes = run.parseoutcomes()
    assert outcomes["failed"] > 0
    assert run.ret == 6
    assert len(parallel.launches()) < 4


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


def test_recorded_results_are_shown_once(parallel):
    (parallel.path / "stored").mkdir()
    parallel.run("-n2", "--joules-export=stored/all.json")
    (parallel.path / "conftest.py").unlink()

    args = ["--joules-source=recorded", "--joules-data=stored", "--joules-export=again.csv"]
    run = parallel.run("-n3", *args)

    run.assert_outcomes(passed=8)
    assert len((parallel.path / "again.csv").read_text().splitlines()) == 1 + 8
    assert len(list((parallel.path / ".joules" / "sessions").iterdir())) == 1
