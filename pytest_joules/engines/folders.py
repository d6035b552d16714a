"""A folder for each launch, with its log and its loads; the newest stay."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pytest_joules.errors import JoulesError, LaunchError, is_expected
from pytest_joules.plan import Launch
from pytest_joules.pruning import FAILED, prune

__tracebackhide__ = is_expected

LAUNCHES: Final = Path(".joules/launches")
KEEP: Final = 50
"""Launches whose folders stay, unless ``--joules-keep`` says otherwise."""

_OURS: Final = "launched"
"""A file of this name marks a folder that was made here."""


def new_folder(root: Path, launch: Launch, *, keep: int) -> Path:
    """Make a launch's folder, and delete old ones beyond the ``keep`` newest.

    Raises:
        LaunchError: It cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        prune(root, newest=keep, holding=_OURS)
        folder = Path(tempfile.mkdtemp(prefix=f"{launch.largest.id}-", dir=root))
        (folder / _OURS).touch()
    except OSError as error:
        raise LaunchError(
            f"{root}: cannot be written: {error}. Logs and traces of a launch go there: free "
            "space, or run pytest where it may write."
        ) from None
    return folder


@contextmanager
def marking_failure(folder: Path) -> Iterator[None]:
    """Mark a folder whose logs tell of a failure: they are kept longer."""
    try:
        yield
    except JoulesError:
        (folder / FAILED).touch()
        raise
