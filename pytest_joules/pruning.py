"""Keeps ``.joules`` from growing without end: the newest of what is stored stays."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

FAILED = "failed"
"""A file of this name marks a folder whose logs somebody may still need."""

FAILED_LONGER = 5
"""How many times as many failed folders are kept."""

_GONE_ON_WITH_S = 24 * 3600.0
"""How long after its last change somebody may go on with a folder that got no end."""


def prune(
    folder: Path, *, newest: int, holding: str, locks: str, ending: str | None = None
) -> None:
    """Delete all but the newest sub-folders; of failed ones more are kept.

    Args:
        folder: Where to look; only its direct sub-folders are deleted.
        newest: How many stay, the one just made among them; so many of those that did not
            fail, and ``FAILED_LONGER`` times as many of those that did.
        holding: A file that a sub-folder must hold to be ours to delete.
        locks: Pattern of the files of a sub-folder that those who write to it have locked;
            it stays as long as they live, however old it is.
        ending: A file that a sub-folder gets when all is done; one without it that changed
            within a day stays.

    Raises:
        OSError: One cannot be deleted.
    """
    ours = [each for each in folder.iterdir() if _holds(each, holding)]
    ours.sort(key=_changed_ns, reverse=True)
    failed = [each for each in ours if (each / FAILED).exists()]
    good = [each for each in ours if each not in failed]
    for old in (*good[newest:], *failed[FAILED_LONGER * newest :]):
        if old.is_symlink() or (ending and _may_go_on(old, ending)):
            continue
        with _locked(old, locks) as is_ours:
            if is_ours:
                _delete(old)


@contextmanager
def _locked(folder: Path, locks: str) -> Iterator[bool]:
    """Keep everybody else from writing to a folder inside the block; false: somebody does."""
    # Not by filelock, which makes folder and file anew where another deletes them just now.
    with ExitStack() as stack:
        try:
            for path in sorted(folder.glob(locks)):
                stream = stack.enter_context(path.open("r+b"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            yield False
        else:
            yield True


def _holds(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except PermissionError:  # another user's, who may hide it
        return False


def _delete(folder: Path) -> None:
    while folder.exists():
        # Another session may delete the same files at the same moment.
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _changed_ns(path: Path) -> int:
    """Return when a file or folder changed last; one that is gone did so before all others."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _inside(folder: Path) -> tuple[Path, ...]:
    try:
        return tuple(folder.iterdir())
    except FileNotFoundError:
        return ()


def _may_go_on(folder: Path, ending: str) -> bool:
    if (folder / ending).exists():
        return False
    # A line more in a file does not change its folder's time.
    changed_s = max(map(_changed_ns, (folder, *_inside(folder)))) / 1e9
    return datetime.now(UTC).timestamp() - changed_s < _GONE_ON_WITH_S
