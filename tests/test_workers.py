"""The worker's protocol: events in order, and no death, error or silence without a log."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from pytest_joules.engines import logs, workers
from pytest_joules.engines.workers import Worker
from pytest_joules.errors import LaunchError, ServerDied

PROGRAM = Path(__file__).parent / "fakes" / "worker_program.py"
PATIENCE_S = 60.0
# As torchrun: two ranks, and the first that fails ends the other.
BOTH = """
import os, subprocess, sys
ranks = [
    subprocess.Popen([sys.executable, *sys.argv[1:]], env={**os.environ, "RANK": str(rank)})
    for rank in range(2)
]
pid, status = os.wait()
if status:
    for rank in ranks:
        rank.terminate()
for rank in ranks:
    rank.wait()
sys.exit(1 if status else 0)
"""


@pytest.fixture(params=[1, 2], ids=["one-rank", "two-ranks"])
def num_ranks(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def worker(num_ranks: int, tmp_path: Path) -> Iterator[Worker]:
    launcher = [] if num_ranks == 1 else ["-c", BOTH]
    argv = [sys.executable, *launcher, str(PROGRAM)]
    env = {name: value for name, value in os.environ.items() if name != "RANK"}
    with workers.started(
        argv, {"engine": "none"}, env=env, folder=tmp_path, num_ranks=num_ranks
    ) as running:
        running.await_ready(PATIENCE_S)
        yield running


def asked(worker: Worker, *, silence_s: float = PATIENCE_S, **order: object) -> list[dict]:
    return [dict(event) for event in worker.ask(order, silence_s=silence_s)]


def test_every_rank_is_ready_with_what_it_says(num_ranks: int, tmp_path: Path) -> None:
    launcher = [] if num_ranks == 1 else ["-c", BOTH]
    argv = [sys.executable, *launcher, str(PROGRAM)]
    env = {name: value for name, value in os.environ.items() if name != "RANK"}
    with workers.started(
        argv, {"engine": "none"}, env=env, folder=tmp_path, num_ranks=num_ranks
    ) as running:
        ready = running.await_ready(PATIENCE_S)

    assert {rank: event["rank_said"] for rank, event in ready.items()} == {
        rank: rank for rank in range(num_ranks)
    }
    assert ready[0]["argument"] == str(tmp_path.resolve())


def test_events_come_in_the_order_of_each_rank(worker: Worker, num_ranks: int) -> None:
    for count in (3, 0, 2):
        events = asked(worker, count=count)
        for rank in range(num_ranks):
            mine = [event["number"] for event in events if event["rank"] == rank]
            assert mine == list(range(count))


def test_more_than_a_pipe_holds_arrives_whole(worker: Worker, num_ranks: int) -> None:
    events = asked(worker, count=100, text="é" * 5_000)

    assert len(events) == 100 * num_ranks
    assert {event["text"] for event in events} == {"é" * 5_000}


def test_the_end_of_orders_is_an_end_by_itself(worker: Worker, tmp_path: Path) -> None:
    pids = worker.process_ids
    worker.end()

    log = (tmp_path / "worker.log").read_text()
    assert "rank 0 ended by itself" in log
    assert worker._child.returncode() == 0  # noqa: SLF001
    assert pids


def test_an_exception_of_a_rank_is_told_with_its_text_and_log(
    worker: Worker, num_ranks: int
) -> None:
    last = num_ranks - 1
    with pytest.raises(ServerDied) as caught:
        asked(worker, do="fail", text="no such shape", rank=last)

    assert f"rank {last} of the worker failed: ValueError: no such shape" in str(caught.value)
    assert "Traceback" in str(caught.value)
    assert "worker.log" in str(caught.value)


def test_a_killed_rank_is_told_with_the_log(worker: Worker, num_ranks: int) -> None:
    with pytest.raises(
        ServerDied, match=r"the worker (ended with code|was ended by signal 9)"
    ) as caught:
        asked(worker, do="die", rank=num_ranks - 1)

    assert f"rank {num_ranks - 1} heard" in str(caught.value)


def test_an_exit_without_words_is_no_success(worker: Worker) -> None:
    with pytest.raises(ServerDied):
        asked(worker, do="exit", code=0)


def test_silence_ends_in_an_error_that_names_the_rank(worker: Worker, num_ranks: int) -> None:
    began_s = monotonic()
    with pytest.raises(ServerDied, match=f"rank {num_ranks - 1} of the worker said nothing"):
        asked(worker, do="hang", rank=num_ranks - 1, silence_s=0.5)

    assert monotonic() - began_s < PATIENCE_S


def test_a_launcher_that_is_killed_is_told_and_leaves_no_rank(worker: Worker) -> None:
    os.kill(min(worker.process_ids), signal.SIGKILL)
    with pytest.raises(ServerDied):
        asked(worker, do="hang")


def test_a_program_that_ends_before_it_is_ready_is_a_launch_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('no engine here')"]
    with (
        workers.started(argv, {}, env=dict(os.environ), folder=tmp_path) as running,
        pytest.raises(LaunchError, match="no engine here"),
    ):
        running.await_ready(PATIENCE_S)


def test_the_worker_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S"]
    with (
        workers.started(argv, {"engine": "none"}, env={}, folder=tmp_path) as running,
        pytest.raises(LaunchError, match="rank 0 of the worker failed: KeyError: 'none'"),
    ):
        running.await_ready(PATIENCE_S)


def test_the_worker_can_be_imported_without_pytest_and_imports_no_engine() -> None:
    code = (
        "import sys\n"
        "from pytest_joules.engines.worker import __main__, components, diffusion, xdit\n"
        "assert not {'pytest', 'torch', 'diffusers', 'numpy', 'zeus'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_the_worker_run_as_a_module_reads_its_job(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest_joules.engines.worker", str(tmp_path)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "job.json" in run.stderr


def test_what_a_launcher_says_of_its_ranks_is_no_cause() -> None:
    log = (
        "[rank0]: ValueError: the cause\n"
        'nanobind: leaked 3 types!\n - leaked type "x"\n'
        "See https://nanobind.readthedocs.io/W1121 09:14:16.738000 24880 "
        "torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 1\n"
        "  rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 25220)\n"
    )
    assert logs.of_ranks(log) == "[rank0]: ValueError: the cause"
    assert logs.killed(log) == ["rank 1 was ended by signal 9"]


def test_a_folder_that_holds_no_pipes_is_a_launch_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ""]
    with (
        pytest.raises(LaunchError, match="cannot hold named pipes"),
        workers.started(argv, {}, env={}, folder=tmp_path / "nowhere"),
    ):
        pytest.fail("it started")
