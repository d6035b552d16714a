"""Keeps ``.joules`` from growing without end: the newest of what is stored stays."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

FAILED = "failed"
"""A file of this name marks a folder whose logs somebody may still need."""

FAILED_LONGER = 5
"""How many times as many failed folders are kept."""

_RUNS_ON_S = 24 * 3600.0
"""How long after its last change a folder without an end may still be written to."""


def prune(folder: Path, *, newest: int, holding: str, ending: str | None = None) -> None:
    """Delete all but the newest sub-folders; of failed ones more are kept.

    Args:
        folder: Where to look; only its direct sub-folders are deleted.
        newest: How many stay, the one just made among them; so many of those that did not
            fail, and ``FAILED_LONGER`` times as many of those that did.
        holding: A file that a sub-folder must hold to be ours to delete.
        ending: A file that a sub-folder gets when nobody writes to it any more; one without
            it that changed within a day stays.

    Raises:
        OSError: One cannot be deleted.
    """
    ours = [each for each in folder.iterdir() if (each / holding).is_file()]
    ours.sort(key=_changed_ns, reverse=True)
    failed = [each for each in ours if (each / FAILED).exists()]
    good = [each for each in ours if each not in failed]
    for old in (*good[newest:], *failed[FAILED_LONGER * newest :]):
        if not old.is_symlink() and not (ending and _may_run(old, ending)):
            _delete(old)


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


def _may_run(folder: Path, ending: str) -> bool:
    if (folder / ending).exists():
        return False
    # A line more in a file does not change its folder's time.
    changed_s = max(map(_changed_ns, (folder, *_inside(folder)))) / 1e9
    return datetime.now(UTC).timestamp() - changed_s < _RUNS_ON_S
