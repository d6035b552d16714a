"""The queue for GPUs: tickets, turns, and who is waited for; all of it files.

A ticket is a file that its process has locked, with what it asks for; numbers give the order.
Everything here is looked at and changed under the lock of the queue, which is held for
milliseconds. Locks of GPUs and tickets are only ever given back without it.
"""

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pytest_joules.errors import LeaseError, is_expected
from pytest_joules.hiding import beginning
from pytest_joules.leases.allocation import Request, allocate
from pytest_joules.leases.files import Folder, Held

__tracebackhide__ = is_expected

_QUEUE = "queue.lock"
_TICKET = "ticket-"
_RETRY_S = 0.01
"""Between two tries for the queue's lock."""

_STUCK_S = 60.0
"""Longest that anybody may hold the queue's lock: ten thousand times as long as it takes."""

_SHOWN = 120
"""Characters of a command line that are told: enough to know it by."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One request's place in the queue."""

    folder: Folder
    request: Request
    what: str
    """What the GPUs are for, for people."""

    deadline_s: float
    """On the monotonic clock: until when to wait."""

    number: int = 0
    """Nobody stands before a smaller one."""

    def turn(self) -> dict[str, Held] | str:
        """Take the GPUs, if it is their turn and they are free; else say what is waited for.

        Raises:
            LeaseError: The queue or a lock cannot be used.
        """
        with locked(self.folder):
            ahead = _ahead(self.folder, self.number)
            return self._taken([each.request for each in ahead]) or self._state(ahead)

    def _taken(self, ahead: list[Request]) -> dict[str, Held] | None:
        known = {gpu for each in (*ahead, self.request) for gpu in each.usable}
        free = [gpu for gpu in known if not self.folder.is_held(_file(gpu))]
        chosen = allocate(ahead, self.request, free)
        if chosen is None:
            return None
        locks = {gpu: self.folder.lock(_file(gpu)) for gpu in chosen}
        held = {gpu: lock for gpu, lock in locks.items() if lock is not None}
        if len(held) < len(locks):  # taken by a program that does not queue
            for lock in held.values():
                lock.close()
            return None
        try:
            for lock in held.values():
                lock.write(_self(self.what))
        except LeaseError:
            for lock in held.values():
                lock.close()
            raise
        return held

    def _state(self, ahead: list["_Other"]) -> str:
        holders: dict[str, list[str]] = {}
        for gpu in sorted(self.request.usable):
            if self.folder.is_held(_file(gpu)):
                holders.setdefault(_owner(self.folder.read(_file(gpu))), []).append(gpu)
        held = [f"{', '.join(gpus)} held by {owner}" for owner, gpus in holders.items()]
        before = [
            f"{each.owner} came first"
            for each in ahead
            if each.request.usable & self.request.usable
        ]
        return "; ".join([_wish(self.request), *held, *before])


@dataclass(frozen=True, kw_only=True)
class _Other:
    request: Request
    owner: str


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Hold the queue's lock inside the block.

    Raises:
        LeaseError: Somebody keeps it, who must be stopped or stuck.
    """
    deadline_s = time.monotonic() + _STUCK_S
    while (lock := folder.lock(_QUEUE)) is None:
        if time.monotonic() >= deadline_s:
            raise LeaseError(
                f"{folder.path / _QUEUE}: the queue for GPUs is stuck: it is held by "
                f"{_owner(folder.read(_QUEUE))}. End it."
            )
        time.sleep(_RETRY_S)
    try:
        lock.write(_self("the queue"))
        yield
    finally:
        lock.close()


@contextmanager
def queued(folder: Folder, request: Request, *, what: str, wait_s: float) -> Iterator[Ticket]:
    """Stand in the queue inside the block.

    Raises:
        LeaseError: The queue cannot be used.
    """
    deadline_s = time.monotonic() + wait_s
    with locked(folder):
        number = 1 + max(map(_number, _tickets(folder)), default=0)
        name = f"{_TICKET}{number:08}"
        lock = folder.lock(name)
        assert lock is not None  # the name is new
        lock.write({**_self(what), "request": request.as_json()})
    try:
        yield Ticket(
            folder=folder, request=request, what=what, deadline_s=deadline_s, number=number
        )
    finally:
        folder.remove(name)
        lock.close()


def _tickets(folder: Folder) -> list[str]:
    return [name for name in folder.names() if _number(name)]


def _number(name: str) -> int:
    text = name.removeprefix(_TICKET)
    return int(text) if text != name and text.isascii() and text.isdigit() else 0


def _ahead(folder: Folder, number: int) -> list[_Other]:
    """Return what living processes asked for earlier; sweep up after the others."""
    found = []
    for name in sorted(_tickets(folder), key=_number):
        if _number(name) >= number:
            continue
        try:
            is_held = folder.is_held(name)
        except LeaseError:
            continue  # nobody's place: a ticket is a file that all may lock
        if not is_held:
            folder.remove(name)
        elif (other := _other(folder.read(name))) is not None:
            found.append(other)
    return found


def _other(said: Any) -> _Other | None:
    try:
        return _Other(request=Request.from_json(said["request"]), owner=_owner(said))
    except (KeyError, TypeError, ValueError):
        return None  # whoever holds such a file has asked for nothing


def _file(gpu: str) -> str:
    """Name the lock of a GPU, whatever its UUID is made of.

    >>> _file("GPU-1f/../x")
    'gpu-GPU-1f%2F..%2Fx.lock'
    """
    return f"gpu-{quote(gpu, safe='')}.lock"


def _self(what: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "user": _user(), "command": _command(), "for": what}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in many containers
        return str(os.getuid())


def _command() -> str:
    try:
        parts = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return beginning(" ".join(filter(None, parts)), _SHOWN)


def _owner(said: Any) -> str:
    if not isinstance(said, dict):
        return "a process that does not say who it is"
    pid, user, command, what = (
        str(said.get(name))[:_SHOWN] for name in ("pid", "user", "command", "for")
    )
    return f"process {pid} of {user} ({command}) for {what}"


def _wish(request: Request) -> str:
    if request.only_boards:
        return f"needs {' or '.join('+'.join(board) for board in request.boards)}"
    return f"needs {request.count} of {len(request.gpus)} GPUs"
