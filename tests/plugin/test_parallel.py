"""pytest -n: workers that lease GPUs, whole sweeps to one worker, one report of all.

Each run starts several processes, so these are few; ``tests/perf/parallel_runs.py`` has more.
"""

import json
from collections import Counter

from pytest_joules.record import digest_of
from pytest_joules.record.replaying import replay
from tests.fakes.parallel_project import parallel, require_never_shared, worse

__all__ = ["parallel", "worse"]  # fixtures


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

    run = parallel.run("-n4", "--joules-window=60")

    run.assert_outcomes(passed=34)
    (launch,) = parallel.launches()
    assert launch["batch_sizes"] == list(range(24, 0, -1))
    run.stdout.fnmatch_lines(["1 launch, * GPU minutes"])


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
        len({str(each["point"]) for each in json.loads((worse.path / "all.json").read_text())})
        == 4
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
    run.assert_outcomes(passed=2, failed=1)  # what killed a worker is not run again
    run.stdout.fnmatch_lines([f"*worker '{name}' crashed while running*", "*model-0*"])
    run.stdout.fnmatch_lines([f"note: worker {name} died*"])
    folder = parallel.session()
    assert "org/model-0" in (folder / f"results-{name}.jsonl").read_text()
    exported = json.loads((parallel.path / "all.json").read_text())
    assert Counter("model-0" in str(each) for each in exported) == {True: 1, False: 1}
    begun = [each for each in parallel.journal() if each["event"] == "begins"]
    assert len({each["pid"] for each in begun}) == 2
    assert {gpu for each in begun for gpu in each["gpus"]} == {"GPU-fake-h200-0"}


def test_a_plan_needs_no_workers(parallel):
    run = parallel.run_here("-n4", "--joules-plan")

    assert run.ret == 0
    run.stdout.fnmatch_lines(["*energy plan: nothing is launched*", "*model-3*"])


def test_each_worker_measuring_everything_is_refused(parallel):
    run = parallel.run_here("-n2", "--dist=each")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--dist=each*another --dist*"])


def test_a_place_that_cannot_hold_results_is_refused_before_anything_is_measured(parallel):
    (parallel.path / ".joules").write_text("")

    run = parallel.run_here("-n2")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*.joules cannot be written*sessions*Run pytest where it may*"])


def test_results_that_workers_could_not_write_down_are_no_success(parallel):
    parallel.machine(
        extra="""
        def hold(machine, launch):
            (ROOT / ".joules").write_text("")  # as a disk that fills up
    """
    )

    run = parallel.run("-n1", "--joules-export=all.json", "-W", "ignore")

    run.assert_outcomes(passed=8)
    assert run.ret == 1
    run.stdout.fnmatch_lines(["results of worker gw0 are missing here and in all files: *"])


def test_workers_of_other_machines_are_refused(parallel):
    run = parallel.run_here("--dist=load", "--tx=ssh=elsewhere")

    assert run.ret == 4
    run.stderr.fnmatch_lines(["*--tx=ssh=elsewhere*another machine*--tx=popen*"])
