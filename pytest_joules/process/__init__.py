"""Start a process tree, keep its log, and always end all of it.

Every command runs under its own ``supervisor``, which outlives this process by as long as
it takes to end the command's last descendant: after a normal end, an exception, Ctrl-C,
SIGTERM and SIGKILL alike.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from pytest_joules.errors import LaunchError, is_expected
from pytest_joules.hiding import remember, secrets_of, spellings
from pytest_joules.process import supervisor
from pytest_joules.process.supervisor import KILL_S, MARK, descendants, kill_hard

__tracebackhide__ = is_expected

GRACE_S: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""

MAX_LOG_BYTES: Final = 64 << 20
_START_S: Final = 30.0
_SLACK_S: Final = 10.0
_TAIL_BYTES: Final = 1 << 20


class Supervised:
    """A command that runs under a supervisor."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._mark = job["env"][MARK]
        self._grace_s = float(job["grace_s"])
        self._reports: dict[str, Any] = {}
        self._unread = b""
        self._ended = False
        self.log_path = Path(job["log_path"])
        self._supervisor = _start_supervisor(self.log_path)
        assert self._supervisor.stdin
        assert self._supervisor.stdout
        self._orders, self._answers = self._supervisor.stdin, self._supervisor.stdout
        self._orders.write(json.dumps(job).encode() + b"\n")
        self._orders.flush()

    def pids(self) -> frozenset[int]:
        """Return every process of the command, in whatever session it is."""
        return descendants(self._supervisor.pid)

    def returncode(self) -> int | None:
        """Return how the command ended; ``None`` while it runs."""
        return self.wait(0)

    def wait(self, timeout_s: float) -> int | None:
        """Wait until the command ends, at most ``timeout_s``; return as ``returncode``."""
        self._listen("returncode", timeout_s)
        if "returncode" not in self._reports and self._supervisor.poll() is not None:
            return self._supervisor.returncode  # killed: the command died with it
        code = self._reports.get("returncode")
        return None if code is None else int(code)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of what the command wrote."""
        older = self.log_path.with_name(self.log_path.name + ".1")
        text = b"".join(_last_bytes(path) for path in (older, self.log_path))
        return "\n".join(text.decode(errors="replace").splitlines()[-lines:])

    def end(self) -> None:
        """End every process of the command; again is nothing.

        Raises:
            LaunchError: A process survived even SIGKILL.
        """
        if self._ended:
            return
        self._ended = True
        # Closing is the order: from here on nothing that happens to us can stop it.
        self._orders.close()
        self._listen("survivors", self._grace_s + KILL_S + _SLACK_S)
        self._supervisor.kill()
        self._supervisor.wait()
        self._answers.close()
        survivors = self._reports.get("survivors")
        if survivors is None:
            survivors = self._sweep()
        if survivors:
            raise LaunchError(
                f"processes {', '.join(map(str, survivors))} of {self.log_path} could not be "
                "ended: they belong to another user or hang in a driver. End them before "
                "measuring anything here, as they may still use the GPU."
            )

    def require_started(self) -> None:
        """Wait until the command runs.

        Raises:
            LaunchError: It cannot be executed.
        """
        self._listen("pid", _START_S)
        if "pid" not in self._reports:
            reason = self._reports.get("error") or f"no answer; {self.log_tail()}"
            raise LaunchError(f"the command cannot be started: {reason}")

    def _listen(self, awaited: str, timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        while not self._reports.keys() & {awaited, "error", "survivors"}:
            left_s = max(0.0, deadline - monotonic())
            if not select.select([self._answers], [], [], left_s)[0]:
                return
            data = os.read(self._answers.fileno(), _TAIL_BYTES)
            if not data:
                self._supervisor.wait()
                return
            *lines, self._unread = (self._unread + data).split(b"\n")
            for line in lines:
                self._reports.update(json.loads(line))

    def _sweep(self) -> frozenset[int]:
        """End what a supervisor left that was itself killed; return what remains."""
        deadline = monotonic() + KILL_S
        while (left := _remains(self._mark, self._reports.get("pid"))) and (
            monotonic() < deadline
        ):
            kill_hard(left)
            select.select([], [], [], 0.02)
        return left


@contextmanager
def supervised(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log_path: Path,
    grace_s: float = GRACE_S,
    max_log_bytes: int = MAX_LOG_BYTES,
) -> Iterator[Supervised]:
    """Run a command with exactly this environment, without a shell; end it on leaving.

    Args:
        argv: Program and arguments.
        env: The whole environment.
        log_path: Gets standard output and error, secrets of the environment masked.
        grace_s: Seconds that all its processes have to end after SIGTERM.
        max_log_bytes: Bound of the log; the oldest part goes first.

    Raises:
        LaunchError: The program cannot be executed, or a process could not be ended.
    """
    secrets = secrets_of(env)
    remember(secrets)
    child = Supervised(
        {
            "argv": list(argv),
            "env": {**env, MARK: uuid4().hex},
            "log_path": str(log_path.resolve()),
            "grace_s": grace_s,
            "max_log_bytes": max_log_bytes,
            "hidden": spellings(secrets),
            "parent": os.getpid(),
        }
    )
    try:
        child.require_started()
        yield child
    finally:
        child.end()


def _remains(mark: str, session: int | None) -> frozenset[int]:
    """Return the processes of a command whose supervisor is gone.

    They carry its mark in their environment or are of its session; some processes overwrite
    the former with their title, some leave the latter.
    """
    needle = f"{MARK}={mark}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            try:
                is_marked = needle in (entry / "environ").read_bytes().split(b"\0")
                if is_marked or os.getsid(pid) == session:
                    found.add(pid)
            except OSError:  # it ended, or is another user's
                continue
    return frozenset(found)


def _start_supervisor(log_path: Path) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 this package's own file, no shell
            # Isolated: a package's environment variables and site hooks stay out.
            [sys.executable, "-I", "-S", supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            # Ctrl-C in a terminal goes to pytest's process group only.
            start_new_session=True,
        )


def _last_bytes(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read()
