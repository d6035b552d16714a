"""pytest -n and --joules-resume: runs of several processes that died, and who goes on."""

import signal
import time

from pytest_joules.record import digest_of, is_running, results_of
from pytest_joules.record.costs import end_of
from pytest_joules.verdict import EXIT_UNDECIDED
from tests.fakes.parallel_project import parallel

__all__ = ["parallel"]  # a fixture

ALL_DIE = """
    import signal

    def hold(machine, launch):
        if not is_among_first({launches}):
            until(lambda: journal("ends") == {launches})
            os.killpg(0, signal.SIGKILL)
"""
ONE_DIES = """
    def hold(machine, launch):
        if "model-1" in launch.largest.model:
            os.kill(os.getpid(), 9)
"""
FIRST_DIES = """
    from pytest_joules.record import FOLDER, is_running

    def hold(machine, launch):
        if is_among_first(1):
            os.kill(os.getpid(), 9)
        (ROOT / "held").write_text(str(is_running(ROOT / FOLDER / "{session}")))
"""


def dies(parallel, *args, launches):
    """Run until some launches have ended; then all processes of the run die at once."""
    parallel.machine(extra=ALL_DIE.format(launches=launches))
    run = parallel.started(*args, start_new_session=True)
    assert run.wait(120) == -signal.SIGKILL
    session = parallel.session()
    deadline_s = time.monotonic() + 60
    while is_running(session):  # its workers were killed with it, but may be gone later
        assert time.monotonic() < deadline_s
    assert end_of(session) == {}
    return session


def fresh(parallel, extra=""):
    for path in (parallel.path / "journal.jsonl", *parallel.path.glob("place-*")):
        path.unlink()
    parallel.machine(extra=extra)


def test_a_run_of_workers_that_died_twice_ends_alone(parallel):
    """Four launches of two points each: two, then one, then one."""
    first = dies(parallel, "-n2", launches=2)
    assert len(results_of(first)) == 4
    fresh(parallel)

    second = dies(parallel, "-n2", "--joules-resume", launches=1)
    assert end_of(first)["resumed_by"] == second.name
    assert len(results_of(second)) == 6
    fresh(parallel)

    run = parallel.run_here("--joules-resume", "-rA")

    run.assert_outcomes(passed=8)
    (launch,) = parallel.launches()
    assert launch["batch_sizes"] == [16, 8]
    run.stdout.fnmatch_lines(
        [f"4 launches, * GPU minutes; of these 3 launches * {second.name}"]
    )
    last = parallel.session()
    results = results_of(last)
    assert len({(each.point, each.evidence.launch_id) for each in results}) == 8
    sessions = [each.provenance.context.session for each in results]
    assert [sessions.count(each) for each in dict.fromkeys(sessions)] == [2, 2, 2, 2]
    assert digest_of(last).num_launches == 4
    spent_s = digest_of(last).spent_gpu_s
    assert spent_s > digest_of(second).spent_gpu_s > digest_of(first).spent_gpu_s > 0


def test_a_run_in_which_a_worker_died_is_gone_on_with_by_workers_that_die_as_well(parallel):
    """Both tests of one model kill their worker; when resumed, the first one alone does."""
    parallel.machine(extra=ONE_DIES)
    died = parallel.run("-n2")
    died.assert_outcomes(passed=6, failed=2)
    first = parallel.session()
    assert end_of(first)["unfinished"] == "a worker died"
    assert "org/model-1" not in {each.point.model for each in results_of(first)}
    fresh(parallel, extra=FIRST_DIES.format(session=first.name))

    run = parallel.run("-n1", "--joules-resume")

    run.assert_outcomes(passed=7, failed=1)
    killed, measured = parallel.launches()
    assert killed["pid"] != measured["pid"]
    assert (parallel.path / "held").read_text() == "True"  # by nobody else to be gone on with
    assert not is_running(first)
    last = parallel.session()
    assert len(results_of(last)) == 8
    assert end_of(last)["unfinished"] == "a worker died"


def test_a_budget_that_workers_spent_is_something_left_undone(parallel):
    run = parallel.run("-n1", "--joules-budget=3")

    assert run.ret == EXIT_UNDECIDED
    assert len(results_of(parallel.session())) == 2
    assert end_of(parallel.session())["unfinished"] == "budget spent"
