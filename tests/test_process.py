"""Real processes: whatever happens to pytest, nothing of a command is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from textwrap import dedent
from time import monotonic, sleep

import pytest

from pytest_joules.errors import LaunchError
from pytest_joules.process import Supervised, supervised
from tests.fakes.processes import runs

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60


def until(condition: Callable[[], object]) -> None:
    deadline = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < deadline, "the awaited condition never came"
        sleep(0.01)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", dedent(code)]


# A child in a session of its own, an orphan in another, and one that ignores SIGTERM.
TREE = """
    import os, signal, sys, time
    def leaf():
        os.write(1, b"%d\\n" % os.getpid())
        while True: time.sleep(1000)
    if os.fork() == 0:
        os.setsid()
        leaf()
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            leaf()
        os._exit(0)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        leaf()
    leaf()
"""
# Forks and exits for ever: no listing of processes is ever up to date.
CHAIN = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.setpgid(0, 0)
        while True:
            if os.fork(): os._exit(0)
            time.sleep(0.001)
    print("ready", flush=True)
    time.sleep(1000)
"""


def logged_pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def live(log: Path) -> list[int]:
    return [pid for pid in logged_pids(log) if runs(pid)]


def run(code: str, log: Path, **options: float) -> AbstractContextManager[Supervised]:
    return supervised(python(code), env=dict(os.environ), log_path=log, **options)


def test_every_descendant_is_ended_in_whatever_session_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with run(TREE, log, grace_s=0.5) as child:
        until(lambda: len(logged_pids(log)) == 4)
        pids = logged_pids(log)
        assert set(pids) <= child.pids()
        assert child.returncode() is None

    assert not [pid for pid in pids if runs(pid)]
    assert child.pids() == frozenset()


def test_a_process_that_forks_and_exits_for_ever_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with run(CHAIN, log, grace_s=0.1) as child:
        until(lambda: child.log_tail() == "ready")

    assert child.pids() == frozenset()


def test_an_exception_ends_it_and_is_not_hidden(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def fail_once_it_runs() -> None:
        with run(TREE, log, grace_s=0.1):
            until(lambda: len(logged_pids(log)) == 4)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail_once_it_runs()

    assert not live(log)


def test_a_normal_end_gives_its_code_and_ends_what_it_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            time.sleep(1000)
        import sys; sys.exit(7)
    """
    with run(code, log, grace_s=0.1) as child:
        assert child.wait(PATIENCE_S) == 7
        until(lambda: not child.pids())

    assert child.returncode() == 7
    assert not live(log)


def test_death_by_a_signal_is_a_negative_code(tmp_path: Path) -> None:
    with run("import os; os.kill(os.getpid(), 11)", tmp_path / "log") as child:
        assert child.wait(PATIENCE_S) == -signal.SIGSEGV


def test_time_to_end_by_itself_is_given(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        def bye(*_): print("saved"); sys.exit(3)
        signal.signal(signal.SIGTERM, bye)
        os.write(1, b"ready\\n")  # print may write the end of a line apart
        signal.pause()
    """
    with run(code, tmp_path / "log") as child:
        until(lambda: child.log_tail() == "ready")

    assert child.log_tail() == "ready\nsaved"
    assert child.returncode() == 3


def test_the_command_gets_exactly_the_environment_and_default_signals(tmp_path: Path) -> None:
    code = """
        import os, signal
        print(sorted(set(os.environ) - {"LC_CTYPE", "PYTEST_JOULES_SUPERVISED"}))
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getsid(0) == os.getpid())
        print(sorted(map(int, os.listdir("/proc/self/fd")))[:3])
    """
    env = {"ONLY": "this"}
    with supervised(python(code), env=env, log_path=tmp_path / "log") as child:
        assert child.wait(PATIENCE_S) == 0

    assert child.log_tail() == "['ONLY']\nTrue True\n[0, 1, 2]"


def test_a_command_that_cannot_be_executed_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(LaunchError, match="No such file or directory: '/no/such/python'"),
        supervised(["/no/such/python"], env={}, log_path=tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_a_flood_of_output_neither_fills_the_disk_nor_blocks_the_command(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    code = """
        import sys
        for i in range(200_000): print("line", i, "x" * 40)
        print("the end")
    """
    with run(code, log, max_log_bytes=1 << 20) as child:
        assert child.wait(PATIENCE_S) == 0

    assert child.log_tail(1) == "the end"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20


def test_the_tail_reaches_into_the_older_half(tmp_path: Path) -> None:
    code = """
        import sys, time
        for i in range(30): sys.stdout.write(f"{i:03d} {'x' * 95}\\n"); sys.stdout.flush()
    """
    with run(code, tmp_path / "log", max_log_bytes=2000) as child:
        assert child.wait(PATIENCE_S) == 0

    tail = child.log_tail(5).splitlines()
    assert [line[:3] for line in tail] == ["025", "026", "027", "028", "029"]


HOLDER = """
    import os, signal, sys
    from pathlib import Path
    # A shell has background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from pytest_joules.process import supervised
    env, log = dict(os.environ), Path({log!r})
    with supervised({argv!r}, env=env, log_path=log, grace_s=0.2):
        {then}
"""


@contextmanager
def holder(log: Path, then: str) -> "Iterator[subprocess.Popen[bytes]]":
    code = HOLDER.format(argv=python(TREE), log=str(log), then=then)
    with subprocess.Popen(
        [sys.executable, "-c", dedent(code)], cwd=ROOT, start_new_session=True
    ) as parent:
        try:
            yield parent
        finally:
            parent.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_when_the_holder_is_ended_by(
    number: signal.Signals, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with holder(log, "import signal; signal.pause()") as parent:
        until(lambda: len(logged_pids(log)) == 4)

        parent.send_signal(number)
        parent.wait(PATIENCE_S)

    until(lambda: not live(log))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_survives_when_the_holders_whole_group_gets(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As Ctrl-C in a terminal and a CI runner's last word do."""
    log = tmp_path / "log"
    with holder(log, "import signal; signal.pause()") as parent:
        until(lambda: len(logged_pids(log)) == 4)

        os.killpg(parent.pid, number)
        parent.wait(PATIENCE_S)

        until(lambda: not live(log))


def test_nothing_survives_when_a_fork_of_the_holder_keeps_the_pipe(tmp_path: Path) -> None:
    log, fork = tmp_path / "log", tmp_path / "fork"
    then = (
        "pid = os.fork()\n"
        f"        pid and Path({str(fork)!r}).write_text(str(pid))\n"
        "        import signal; signal.pause()"
    )
    with holder(log, then) as parent:
        until(lambda: len(logged_pids(log)) == 4 and fork.exists() and fork.read_text())

        parent.kill()
        parent.wait(PATIENCE_S)

        try:
            until(lambda: not live(log))
        finally:
            os.kill(int(fork.read_text()), signal.SIGKILL)


def test_nothing_survives_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with run(TREE, log) as child:
        until(lambda: len(logged_pids(log)) == 4)
        os.kill(child._supervisor.pid, signal.SIGKILL)  # noqa: SLF001 it has no other name
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
        # The command itself goes with its supervisor, the rest when it is ended.
        until(lambda: len(live(log)) < 4)

    assert live(log) == []


def test_ending_twice_is_ending_once(tmp_path: Path) -> None:
    with run("import time; time.sleep(1000)", tmp_path / "log") as child:
        child.end()
        child.end()

    assert child.returncode() == -signal.SIGTERM
