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
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.errors import ConfigurationError, FormatError, JoulesError, is_expected
from pytest_joules.gate.ruling import Case, rule
from pytest_joules.ledger import Judgement
from pytest_joules.point import Point
from pytest_joules.record.parts import COSTS, RESULTS, of_part, parts
from pytest_joules.result import Result
from pytest_joules.sources.store import result_of, results_in
from pytest_joules.storage import parse, read, require_schema, text_of
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

SCHEMA = 1
FOLDER = Path(".joules") / "sessions"
SETTINGS = "session.json"
BASELINES, VERDICTS = "baselines.jsonl", "verdicts.jsonl"
PLAN, LOCK = "plan.json", "running.lock"
LOCKS = "running*.lock"
"""Those of all who write one session."""

END = "end.json"


def session_name(begun: datetime) -> str:
    """Name a session so that names sort as sessions began, also within one second."""
    return f"{begun:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}"


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


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A verdict computed again from what was stored."""

    comparison: Comparison
    stored: Mapping[str, Any]
    """The comparison of the run."""

    @property
    def is_same(self) -> bool:
        """Whether verdict and every number of the run came out again, bit for bit.

        The sentence about them is left out: a later version may word it otherwise.
        """
        return _text(self.comparison.as_json()) == _text(self.stored)


def _text(values: Mapping[str, Any]) -> str:
    compared = {name: value for name, value in values.items() if name != "explanation"}
    return json.dumps(compared, sort_keys=True)  # NaN equals NaN, and -0.0 is not 0.0


def replay(folder: Path) -> list[Replayed]:
    """Compute every verdict of a stored session again.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings_of(folder)
    results_of(folder)
    return [
        replayed(judgement, results)
        for results, _, judgements in told(folder)
        for judgement in judgements
    ]


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


Told = tuple[list[Result], dict[Point, tuple[Result, ...]], list[Judgement]]
"""Results, the stored runs that they were compared with, and the verdicts."""


def told(folder: Path) -> Iterator[Told]:
    """Yield each part's results, stored runs and verdicts.

    A verdict rests on its own part, and on what all parts had taken over: that comes first.
    """
    shared: list[Result] = []
    for part in parts(folder):
        own = _results(folder / of_part(RESULTS, part))
        results = [*shared, *own]
        shared = shared if part else own
        stored = _by_point(_results(folder / of_part(BASELINES, part)))
        yield results, stored, _verdicts(folder, results, stored, part=part)


def replayed(judgement: Judgement, results: Sequence[Result]) -> Replayed:
    """Compute a verdict again from its part's results."""
    comparison, case = judgement.comparison, judgement.case
    launched: dict[tuple[Point, str], list[Result]] = {}
    for position, result in enumerate(results[: judgement.num_results]):
        if result.is_valid and position not in judgement.set_aside:
            key = (result.point, result.provenance.context.stack)
            launched.setdefault(key, []).append(result)
    point = comparison.point
    return Replayed(
        comparison=case.compared(point, rule(point, launched, case)),
        stored=comparison.as_json(),
    )


def is_session(folder: Path) -> bool:
    """Tell whether a folder is a stored session."""
    return (folder / SETTINGS).exists()


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
        **_cost(folder),
    )


def num_launches(results: Sequence[Result]) -> int:
    """Count the launches that gave results."""
    return len({result.evidence.launch_id for result in results if result.evidence})


def _cost(folder: Path) -> dict[str, Any]:
    """Return what a session cost and which tests failed; the latter only its end tells."""
    if end := end_of(folder):
        return {name: end[name] for name in ("failed", "num_launches", "spent_gpu_s")}
    return {**spent_by(folder), "has_ended": False}


def spent_by(folder: Path) -> dict[str, Any]:
    """Return what all parts of a session had cost together; GPU time ``None``: not all told.

    Raises:
        FormatError: A file is broken.
    """
    costs = costs_of(folder)
    spent = [cost["spent_gpu_s"] for cost in costs]
    return {
        "num_launches": sum(cost["num_launches"] for cost in costs),
        "spent_gpu_s": None if None in spent else sum(spent),
    }


def costs_of(folder: Path) -> list[dict[str, Any]]:
    """Return what each part had cost; one that did not tell made the launches of its results.

    Raises:
        FormatError: A file is broken.
    """
    costs = []
    for part in parts(folder) or [""]:
        made = num_launches(_results(folder / of_part(RESULTS, part)))
        untold = {"num_launches": made, "spent_gpu_s": None}
        costs.append({**untold, **cost_of(folder, part)})
    return costs


def cost_of(folder: Path, part: str = "") -> dict[str, Any]:
    """Return what a session, or a worker's part, had cost when it last told; empty: never.

    Raises:
        FormatError: The file is broken.
    """
    cost: dict[str, Any] = {}
    path = folder / of_part(COSTS, part)
    for number, values in enumerate(_lines(path), start=1):
        require_schema(values, "session-cost", name=f"{path}, line {number}")
        cost = values
    return cost


def end_of(folder: Path) -> dict[str, Any]:
    """Return what the session wrote last; empty where it did not live to.

    Raises:
        FormatError: The file is broken.
    """
    if not (folder / END).exists():
        return {}
    end = read(folder / END)
    require_schema(end, "session-end", name=str(folder / END))
    return {**end, "failed": tuple(Failed(**each) for each in end["failed"])}


def _verdicts(
    folder: Path,
    results: Sequence[Result],
    stored: Mapping[Point, tuple[Result, ...]],
    *,
    part: str,
) -> list[Judgement]:
    """Read the verdicts; each must find the results and baselines that it rests on."""
    path = folder / of_part(VERDICTS, part)
    judgements = []
    for number, values in enumerate(_lines(path), start=1):
        each = _judgement(values, stored, name=f"{path}, line {number}")
        comparison = each.comparison
        if each.num_results > len(results):
            raise FormatError(
                f"{folder / of_part(RESULTS, part)}: holds {len(results)} results, but the "
                f"verdict on {comparison.point.id} rests on {each.num_results}."
            )
        is_of_baseline = not each.case.against and comparison.num_reference_launches
        if is_of_baseline and comparison.point not in each.case.baselines:
            raise FormatError(
                f"{folder / of_part(BASELINES, part)}: holds no run of {comparison.point.id}, "
                f"but its verdict rests on {comparison.num_reference_launches}."
            )
        judgements.append(each)
    return judgements


def _judgement(
    values: Any, stored: Mapping[Point, tuple[Result, ...]], *, name: str
) -> Judgement:
    require_schema(values, "session-verdict", name=name)
    try:
        point = Point.from_json(values["point"])
        tolerances = {Point.from_json(each): value for each, value in values["tolerances"]}
    except (JoulesError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: a point cannot be read: {error!r}.") from None
    if point not in tolerances:
        raise FormatError(f"{name}: tolerances lacks the verdict's own point, {point.id}.")
    numbers = values["comparison"]
    verdict = Verdict(numbers["verdict"])
    return Judgement(
        comparison=Comparison(**{**numbers, "point": point, "verdict": verdict}),
        case=Case(
            stack=values["stack"],
            against=values["against"],
            tolerances=tolerances,
            baselines={each: stored[each] for each in tolerances if each in stored},
        ),
        num_results=int(values["num_results"]),
        set_aside=tuple(values.get("set_aside", ())),
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
    return list({_text(each.as_json()): each for each in results}.values())


def _kept(folder: Path, part: str) -> list[Result]:
    results = _results(folder / of_part(RESULTS, part))
    set_aside = {*cost_of(folder, part).get("set_aside", ())}
    return [each for position, each in enumerate(results) if position not in set_aside]


def _by_point(results: Sequence[Result]) -> dict[Point, tuple[Result, ...]]:
    points = dict.fromkeys(result.point for result in results)
    return {point: tuple(r for r in results if r.point == point) for point in points}


def _results(path: Path) -> list[Result]:
    return [
        result_of(values, f"{path}, line {number}")
        for number, values in enumerate(_lines(path), start=1)
    ]


def _lines(path: Path) -> Iterator[Any]:
    """Yield each line's JSON; a last line cut off by a crash is left out."""
    if not path.exists():
        return
    for number, line in enumerate(text_of(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        # Invalid results may hold NaN, which strict JSON has not.
        yield parse(line, name=f"{path}, line {number}", is_strict=False)
