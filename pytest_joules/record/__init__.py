"""Stored sessions: every result at once, and with each verdict all that it rests on.

``.joules/sessions/<session>/`` holds ``session.json`` (settings), ``results.jsonl`` (every
result, valid or not, in order), ``costs.jsonl`` (what had been spent ahead of each),
``baselines.jsonl`` (the stored runs compared with), ``verdicts.jsonl``, ``plan.json`` (what was
asked, for ``--joules-resume``) and, once the session has ended, ``end.json`` (what it cost and
which tests failed). Numbers are written so that they read back bit for bit. Every line is on
disk before the next measurement starts, and a lock is held while the session runs.

Under pytest-xdist each worker writes files of its own beside the others' (``results-gw0.jsonl``
and so on), so that none is lost with another one; all of them are one session. What such a
session took over from an interrupted one stands in the files without a worker's name, ahead of
what each worker added.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_joules.digest import Digest, rows_of
from pytest_joules.errors import ConfigurationError, FormatError, is_expected
from pytest_joules.record.costs import cost_of, spent_and_failed
from pytest_joules.record.lines import results_at
from pytest_joules.record.parts import RESULTS, of_part, parts
from pytest_joules.record.verdicts import told
from pytest_joules.result import Result
from pytest_joules.sources.store import results_in
from pytest_joules.storage import read, require_schema

__tracebackhide__ = is_expected

SCHEMA = 1
FOLDER = Path(".joules") / "sessions"
SETTINGS = "session.json"
PLAN, LOCK = "plan.json", "running.lock"
LOCKS = "running*.lock"
"""Those of all who write one session."""


def running_lock(folder: Path, part: str = "") -> FileLock:
    """Return the lock that whoever writes a session holds; its death frees it."""
    return FileLock(folder / of_part(LOCK, part), timeout=0)


def is_running(folder: Path) -> bool:
    """Tell whether a process that writes a stored session lives."""
    try:
        for part in parts(folder, LOCK):  # one is there before the first result
            with running_lock(folder, part):
                pass
    except Timeout:
        return True
    return False


def plan_of(folder: Path) -> dict[str, Any]:
    """Return what a stored session was asked to measure.

    Raises:
        FormatError: It is not there, broken, or of another format.
    """
    plan = read(folder / PLAN)
    if not isinstance(plan, dict) or plan.get("schema") != SCHEMA:
        raise FormatError(
            f"{folder / PLAN}: is no plan of this version ({SCHEMA}), so nobody can tell "
            "whether the same is asked now; measure all anew without --joules-resume."
        )
    require_schema(plan, "session-plan", name=str(folder / PLAN))
    return {name: value for name, value in plan.items() if name != "schema"}


def is_session(folder: Path) -> bool:
    """Tell whether a folder is a stored session, as far as this user can see."""
    try:
        return (folder / SETTINGS).exists()
    except PermissionError:  # another user's, which are private
        return False


def digest_of(folder: Path) -> Digest:
    """Read a stored session for a report; the verdicts are those of the run.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings = settings_of(folder)
    results = results_of(folder)  # raises where they are lost
    parted = list(told(folder))
    comparisons = [each.comparison for *_, judged in parted for each in judged]
    return Digest(
        settings={name: value for name, value in settings.items() if name != "schema"},
        rows=rows_of(
            results,
            {each.point: each for each in comparisons},
            {point: runs for _, stored, _ in parted for point, runs in stored.items()},
        ),
        **spent_and_failed(folder),
    )


def settings_of(folder: Path) -> Mapping[str, Any]:
    """Return a stored session's settings.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings = read(folder / SETTINGS)
    number = settings.get("schema") if isinstance(settings, dict) else None
    if number != SCHEMA:
        raise FormatError(
            f"{folder / SETTINGS}: schema is {number!r}, this version reads {SCHEMA}; use the "
            "version that stored it."
        )
    return dict(settings)


def known_sessions(root: Path) -> list[Path]:
    """Return the folders of all stored sessions, oldest first."""
    return sorted(path for path in (root / FOLDER).glob("*") if is_session(path))


def find(name: str, root: Path) -> Path:
    """Return a stored session's folder by path or name; ``latest`` is the last one.

    Raises:
        ConfigurationError: There is none of that name.
    """
    known = known_sessions(root)
    if name == "latest" and known:
        return known[-1]
    for path in (Path(name), root / FOLDER / name):
        if is_session(path):
            return path
    what = "not a" if Path(name).exists() else "no file, folder or"
    raise ConfigurationError(
        f"{name}: {what} stored session; {root / FOLDER} holds "
        f"{', '.join(path.name for path in known) or 'none'}."
    )


def results_of(path: Path) -> list[Result]:
    """Read the results of a stored session's folder, or of a file of --joules-export.

    Those of a session that it set aside are left out: nothing may be compared with them.

    Raises:
        FormatError: They cannot be read.
    """
    if path.is_dir():
        names = parts(path)
        if not names:  # a session is stored from its first result on
            raise FormatError(f"{path / RESULTS}: is missing, so the results are lost.")
        found = [each for name in names for each in _kept(path, name)]
        # What was only looked up, several workers may have looked up.
        return found if len(names) == 1 else _distinct(found)
    return results_in(path)


def _distinct(results: Sequence[Result]) -> list[Result]:
    return list({json.dumps(each.as_json(), sort_keys=True): each for each in results}.values())


def _kept(folder: Path, part: str) -> list[Result]:
    results = results_at(folder / of_part(RESULTS, part))
    set_aside = {*cost_of(folder, part).get("set_aside", ())}
    return [each for position, each in enumerate(results) if position not in set_aside]
