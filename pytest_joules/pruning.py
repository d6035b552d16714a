"""Keeps ``.joules`` from growing without end: the newest of what is stored stays."""

import shutil
from pathlib import Path

FAILED = "failed"
"""A file of this name marks a folder whose logs somebody may still need."""

FAILED_LONGER = 5
"""How many times as many failed folders are kept."""


def prune(folder: Path, *, newest: int, holding: str) -> None:
    """Delete all but the newest sub-folders; of failed ones more are kept.

    Args:
        folder: Where to look; only its direct sub-folders are deleted.
        newest: How many stay, the one just made among them; so many of those that did not
            fail, and ``FAILED_LONGER`` times as many of those that did.
        holding: A file that a sub-folder must hold to be ours to delete.

    Raises:
        OSError: One cannot be deleted.
    """
    ours = [each for each in folder.iterdir() if (each / holding).is_file()]
    ours.sort(key=lambda each: each.stat().st_mtime_ns, reverse=True)
    failed = [each for each in ours if (each / FAILED).exists()]
    good = [each for each in ours if each not in failed]
    for old in (*good[newest:], *failed[FAILED_LONGER * newest :]):
        if not old.is_symlink():
            shutil.rmtree(old)
