"""The folder of the locks, and the kernel's locks on its files.

Users who share a machine share the folder, so nobody in it is trusted with more than keeping
others waiting: names are opened inside the one folder that was checked, never through a link,
and only plain files with a single name are written. The locks are ``flock``'s, which end with
the process that holds them. ``filelock`` is not used here: in a sticky folder it refuses the
lock file of another account, and excluding other accounts is what this folder is for.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_joules.errors import LeaseError, is_expected

__tracebackhide__ = is_expected

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SHARED_FOLDER, _SHARED_FILE = 0o1777, 0o666
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LONGEST = 1 << 16
"""Bytes of a file that are read: who holds it, and what for."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A file that this process has locked, until it is closed or the process ends."""

    path: Path
    descriptor: int

    def write(self, values: Any) -> None:
        """Replace what the file says.

        Raises:
            LeaseError: It cannot be written, as on a full disk.
        """
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, json.dumps(values).encode(), 0)
        except OSError as error:
            raise LeaseError(f"{self.path}: cannot be written: {error}; make room.") from None

    def close(self) -> None:
        """Give the lock back; what the file says no longer holds."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """An open folder of lock files."""

    path: Path
    descriptor: int

    def lock(self, name: str) -> Held | None:
        """Lock a file, making it where it is missing; ``None``: somebody else holds it.

        Raises:
            LeaseError: It is no file of ours or of anybody's to lock.
        """
        descriptor = self._opened(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(descriptor)  # or a cleaner of old files would take it away while held
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return Held(path=self.path / name, descriptor=descriptor)

    def is_held(self, name: str) -> bool:
        """Tell whether any process holds a file; asks under the queue's lock only."""
        held = self.lock(name)
        if held is None:
            return True
        os.close(held.descriptor)
        return False

    def read(self, name: str) -> Any:
        """Return what a file says; ``None`` where that cannot be read."""
        try:
            descriptor = os.open(name, _FILE, dir_fd=self.descriptor)
        except OSError:
            return None
        try:
            return json.loads(os.pread(descriptor, _LONGEST, 0))
        except (OSError, ValueError, RecursionError):
            return None
        finally:
            os.close(descriptor)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208  paths cannot say: in this folder

    def remove(self, name: str) -> None:
        """Remove a file, where it is ours to remove."""
        with suppress(FileNotFoundError, PermissionError):
            os.unlink(name, dir_fd=self.descriptor)

    def _opened(self, name: str) -> int:
        try:
            descriptor = self._made(name)
        except OSError as error:
            raise self._refused(name, str(error)) from None
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            os.close(descriptor)
            raise self._refused(name, "it is no plain file, or has another name elsewhere")
        return descriptor

    def _made(self, name: str) -> int:
        # Not with O_CREAT where it is there: Linux then refuses what other users made.
        while True:
            with suppress(FileNotFoundError):
                return os.open(name, _FILE, dir_fd=self.descriptor)
            with suppress(FileExistsError), _for_all():
                flags = _FILE | os.O_CREAT | os.O_EXCL
                return os.open(name, flags, _SHARED_FILE, dir_fd=self.descriptor)

    def _refused(self, name: str, reason: str) -> LeaseError:
        return LeaseError(
            f"{self.path / name}: cannot be locked: {reason}. GPUs are leased through this "
            "file; remove it once nobody measures, or let all users of the machine choose "
            "another folder (--joules-lease-folder)."
        )


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Open the folder inside the block, making it where it is missing.

    Raises:
        LeaseError: It cannot be made, is a link, or other users could replace its files.
    """
    try:
        _make(path)
        descriptor = os.open(path, _FOLDER)
    except OSError as error:
        raise _unusable(path, str(error)) from None
    try:
        _require_safe(path, os.fstat(descriptor))
        yield Folder(path=path, descriptor=descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    with suppress(FileExistsError), _for_all():
        path.mkdir(mode=_SHARED_FOLDER)


@contextmanager
def _for_all() -> Iterator[None]:
    """Make files with just the permissions asked for, and never with others before."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _require_safe(path: Path, about: os.stat_result) -> None:
    if about.st_mode & _WRITABLE_BY_OTHERS and not about.st_mode & stat.S_ISVTX:
        raise _unusable(
            path, f"its mode is {stat.S_IMODE(about.st_mode):o}: others may replace its files"
        )


def _unusable(path: Path, reason: str) -> LeaseError:
    return LeaseError(
        f"{path}: no folder to lease GPUs through: {reason}. Make it a folder that is private "
        f"(chmod 700) or sticky (chmod 1777), or let all users of the machine choose another "
        "one (--joules-lease-folder)."
    )
