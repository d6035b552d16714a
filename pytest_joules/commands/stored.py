"""Results wherever they are stored: sessions, exports, baselines, published folders."""

from collections.abc import Sequence
from pathlib import Path

from pytest_joules import baseline, record, storage
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.sources.mlenergy import is_leaderboard, read_leaderboard
from pytest_joules.sources.store import read_results
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


def results_at(name: str, *, stack: str = "", option: str = "--stack") -> list[Result]:
    """Read the results that a name or path stands for, valid or not, of one stack.

    Args:
        name: As for ``every_result_at``.
        stack: Whose results; needed only where a session compared two stacks.
        option: What the user would name the stack with.

    Raises:
        ConfigurationError: There is nothing of that name, or several stacks.
        FormatError: It cannot be read.
    """
    results = every_result_at(name)
    is_mixed = any(len(stacks) > 1 for stacks in _stacks_by_session(results).values())
    return runs_of_stack(results, stack, option) if stack or is_mixed else results


def _stacks_by_session(results: Sequence[Result]) -> dict[str, set[str]]:
    # Several in one session were compared; a baseline may gather them over the years.
    found: dict[str, set[str]] = {}
    for context in (result.provenance.context for result in results):
        found.setdefault(context.session, set()).add(context.stack)
    return found


def every_result_at(name: str) -> list[Result]:
    """Read the results that a name or path stands for, of all stacks.

    Args:
        name: A stored session's name or folder (``latest`` is the last one), a file of
            ``--joules-export=FILE.json``, a baseline file, or a folder of any of these
            files or of published results.

    Raises:
        ConfigurationError: There is nothing of that name.
        FormatError: It cannot be read.
    """
    path = Path(name)
    if path.is_file():
        return _of_file(path)
    if _is_sessions(path):
        return record.results_of(record.find(name, Path()))
    if is_leaderboard(path):
        return list(read_leaderboard(path).results)
    files = storage.files_below(path, ".json")
    if not files:
        return list(read_results(path))  # says what could have been there
    return [result for each in files for result in _of_file(each)]


def comparisons_at(name: str) -> dict[Point, Comparison]:
    """Read the verdicts of the run that stored a session; none where a name is something else.

    Raises:
        ConfigurationError: There is nothing of that name.
        FormatError: It cannot be read.
    """
    path = Path(name)
    if path.is_file() or not _is_sessions(path):
        return {}
    rows = record.digest_of(record.find(name, Path())).rows
    return {row.point: row.comparison for row in rows if row.comparison is not None}


def _is_sessions(path: Path) -> bool:
    return not path.is_dir() or record.is_session(path)


def _of_file(path: Path) -> list[Result]:
    if isinstance(storage.read(path), dict):
        return [run for runs in baseline.load(path).values() for run in runs]
    return record.results_of(path)


def runs_of_stack(runs: Sequence[Result], stack: str, option: str = "--stack") -> list[Result]:
    """Return the runs of one stack; without a name there must be only one.

    Raises:
        ConfigurationError: There are several stacks, or none of that name.
    """
    known = sorted({run.provenance.context.stack for run in runs})
    if not stack and len(known) > 1:
        raise ConfigurationError(
            f"the results are of stacks {', '.join(known)}; say which with {option}=NAME."
        )
    if stack and stack not in known:
        raise ConfigurationError(f"the results hold {', '.join(known)}, not stack {stack}.")
    return [run for run in runs if not stack or run.provenance.context.stack == stack]
