"""Run one command, and let no part of it outlive the process that asked for it.

``process.supervised`` runs this file as a script. It uses the standard library only: it
starts in milliseconds and imports nothing of the environment under test.

Standard input
    One JSON line, the job. Its end, by whatever means the asking process goes, is the
    order to end everything.
Standard output
    JSON lines: ``{"pid": 1}`` or ``{"error": "..."}``, ``{"returncode": 0}`` as soon as the
    command ends by itself or is ended, and last ``{"survivors": []}``.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any, Final

MARK: Final = "PYTEST_JOULES_SUPERVISED"
"""Environment variable that every supervised process carries."""

KILL_S: Final = 30.0
"""Seconds after which a process that survives SIGKILL (stuck in a driver) is given up."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_ORPHAN_CHECK_S: Final = 1.0
_CHUNK: Final = 1 << 16


def descendants(root: int) -> frozenset[int]:
    """Return every process below ``root``, zombies included, whatever its session."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in found]
        found.update(new)
        todo.extend(new)
    return frozenset(found - {root})


def _parents() -> list[tuple[int, int]]:
    rows = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except OSError:  # it ended since the folder was listed
                continue
            # The command's name stands in parentheses and may itself hold any character.
            rows.append((int(entry.name), int(stat.rpartition(b")")[2].split()[1])))
    return rows


def kill_hard(pids: frozenset[int]) -> None:
    """Send SIGKILL to processes and to their whole groups.

    A group is killed at once, so that a process which forks and exits in a loop cannot
    always be one fork ahead.
    """
    for pid in pids:
        try:
            group = os.getpgid(pid)
            if group != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # gone, or of another user: then it is reported as a survivor


class _Veil:
    """Masks secrets in a stream, also one that comes in two pieces."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = [secret.encode(errors="surrogateescape") for secret in secrets]
        self._longest = max(map(len, self._secrets), default=0)
        self._held = b""

    def shown(self, data: bytes, *, is_last: bool = False) -> bytes:
        """Return what can be shown by now; what may be the begin of a secret waits."""
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        end = len(data) if is_last else len(data) - self._begun(data)
        self._held = data[end:]
        return data[:end]

    def _begun(self, data: bytes) -> int:
        sizes = range(min(len(data), self._longest - 1), 0, -1)
        return next(
            (n for n in sizes if any(each.startswith(data[-n:]) for each in self._secrets)), 0
        )


class _Log:
    """A file of bounded size, without secrets; the older half is ``PATH.1``."""

    def __init__(self, path: str, max_bytes: int, secrets: list[str]) -> None:
        self._path, self._half = path, max_bytes // 2
        self._veil = _Veil(secrets)
        self._file, self._size = self._open(), 0

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Write what is no secret; with ``is_last`` also what was held back."""
        data = self._veil.shown(data, is_last=is_last)
        try:
            if self._size + len(data) > self._half:
                os.close(self._file)
                Path(self._path).replace(self._path + ".1")
                self._file, self._size = self._open(), 0
            self._size += os.write(self._file, data)
        except OSError:
            return  # a full disk must not keep the command from being ended


class _Supervisor:
    def __init__(self, job: dict[str, Any]) -> None:
        self._grace_s = float(job["grace_s"])
        self._parent = int(job["parent"])
        self._log = _Log(job["log_path"], int(job["max_log_bytes"]), job["hidden"])
        self._wake = _wakeups()
        self._output, write_end = os.pipe()
        os.set_blocking(self._output, False)
        self._inputs = [sys.stdin.fileno(), self._wake, self._output]
        self._stopping = False
        self._running = True
        self._child = subprocess.Popen(  # noqa: S603 the caller's own command, no shell
            job["argv"],
            env=job["env"],
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 this process has one thread
        )
        os.close(write_end)
        _say(pid=self._child.pid)

    def run(self) -> None:
        while self._running and not self._stopping:
            self._turn(_ORPHAN_CHECK_S)
        survivors = self._end_all()
        self._log.write(b"", is_last=True)
        _say(survivors=sorted(survivors))

    def _end_all(self) -> frozenset[int]:
        for pid in descendants(os.getpid()):
            _send(pid, signal.SIGTERM)
        self._until_gone(self._grace_s, kill=False)
        return self._until_gone(KILL_S, kill=True)

    def _until_gone(self, limit_s: float, *, kill: bool) -> frozenset[int]:
        deadline = monotonic() + limit_s
        while left := descendants(os.getpid()):
            if monotonic() > deadline:
                break
            if kill:
                kill_hard(left)
            self._turn(0.05)
        return left

    def _turn(self, timeout_s: float) -> None:
        ready, _, _ = select.select(self._inputs, [], [], timeout_s)
        for source in ready:
            self._take(source)
        self._reap()
        # A process forked from the asking one may hold the pipe open after its death.
        self._stopping |= os.getppid() != self._parent

    def _take(self, source: int) -> None:
        data = os.read(source, _CHUNK)
        if source == self._wake:
            self._stopping |= any(number != signal.SIGCHLD for number in data)
        elif source == self._output:
            self._log.write(data)
        elif not data:
            self._stopping = True
        if not data:
            self._inputs.remove(source)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                self._running = False
                self._drain()
                _say(returncode=self._child.returncode)

    def _drain(self) -> None:
        # The last words are in the log before anybody is told that the command ended.
        while self._output in self._inputs:
            try:
                self._take(self._output)
            except BlockingIOError:
                break
        self._log.write(b"", is_last=True)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _wakeups() -> int:
    """Turn signals into bytes on a pipe."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Handlers, not SIG_IGN: an ignored signal would stay ignored in the command.
        signal.signal(number, lambda *_: None)
    return read_end


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(**report: Any) -> None:
    try:
        os.write(sys.stdout.fileno(), json.dumps(report).encode() + b"\n")
    except BrokenPipeError:
        return  # nobody is left to be told; ending goes on


def main() -> None:
    """Read the job, run it, end it."""
    # Orphans of the command come to this process instead of to init, so none is lost.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    job = json.loads(_first_line())
    try:
        supervisor = _Supervisor(job)
    except OSError as error:
        _say(error=str(error))
        return
    supervisor.run()


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(sys.stdin.fileno(), _CHUNK)
        if not data:
            raise SystemExit("the asking process went before it said what to run")
        line += data
    return line


if __name__ == "__main__":
    main()
