"""A folder for each launch, with its log and its loads; the newest stay."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

from pytest_joules.errors import JoulesError, LaunchError, is_expected
from pytest_joules.plan import Launch
from pytest_joules.pruning import FAILED, prune

__tracebackhide__ = is_expected

LAUNCHES: Final = Path(".joules/launches")
KEEP: Final = 50
"""Launches whose folders stay, unless ``--joules-keep`` says otherwise."""

_OURS: Final = "launched"
"""A file of this name marks a folder that was made here, and is locked while it is used."""

_in_use: Final[dict[Path, FileLock]] = {}
"""The lock of this process's last launch in each root: nobody prunes that one."""


def new_folder(root: Path, launch: Launch, *, keep: int) -> Path:
    """Make a launch's folder, and delete old ones beyond the ``keep`` newest.

    Raises:
        LaunchError: It cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        prune(root, newest=keep, holding=_OURS, locks=_OURS)
        folder = Path(tempfile.mkdtemp(prefix=f"{launch.largest.id}-", dir=root))
        _use(root, folder)
    except (OSError, NotImplementedError) as error:  # the latter: no locks on this disk
        raise LaunchError(
            f"{root}: cannot be written: {error}. Logs and traces of a launch go there: free "
            "space, or run pytest where it may write."
        ) from None
    return folder


def _use(root: Path, folder: Path) -> None:
    if root in _in_use:
        _in_use.pop(root).release()  # a process launches one at a time
    lock = FileLock(folder / _OURS, timeout=0)
    lock.acquire()
    _in_use[root] = lock


@contextmanager
def marking_failure(folder: Path) -> Iterator[None]:
    """Mark a folder whose logs tell of a failure: they are kept longer."""
    try:
        yield
    except JoulesError:
        (folder / FAILED).touch()
        raise
