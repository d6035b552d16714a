"""Stored sessions: every result at once, and with each verdict all that it rests on.

``.joules/sessions/<session>/`` holds ``session.json`` (settings), ``results.jsonl`` (every
result, valid or not, in order), ``baselines.jsonl`` (the stored runs compared with),
``verdicts.jsonl`` and, once the session has ended, ``end.json`` (what it cost and which tests
failed). Numbers are written so that they read back bit for bit.
"""

import json
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.errors import ConfigurationError, FormatError, JoulesError, is_expected
from pytest_joules.gate.ruling import Case, rule
from pytest_joules.point import Point
from pytest_joules.pruning import prune
from pytest_joules.result import Result
from pytest_joules.session import Judgement, Listener
from pytest_joules.storage import parse, read, require_schema, write_atomically
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

SCHEMA = 1
FOLDER = Path(".joules") / "sessions"
_SETTINGS, _RESULTS = "session.json", "results.jsonl"
_BASELINES, _VERDICTS = "baselines.jsonl", "verdicts.jsonl"
_END = "end.json"


def session_name(begun: datetime) -> str:
    """Name a session so that names sort as sessions began, also within one second."""
    return f"{begun:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:8]}"


@dataclass(kw_only=True)
class Recorder(Listener):
    """Writes down what a session finds out, while it runs."""

    folder: Path
    settings: Mapping[str, Any]
    """What decides verdicts besides the data, for people; verdicts carry their own."""

    keep: int = 50
    """Stored sessions to keep beside and with this one."""

    _stored: set[Point] = field(default_factory=set)
    _is_broken: bool = False

    def finished(self, result: Result) -> None:
        self._write(_RESULTS, [result.as_json()])

    def judged(self, judgement: Judgement) -> None:
        case = judgement.case
        fresh = [point for point in case.baselines if point not in self._stored]
        self._write(_BASELINES, [r.as_json() for p in fresh for r in case.baselines[p]])
        self._stored.update(fresh)
        self._write(_VERDICTS, [_verdict(judgement)])

    def ended(self, digest: Digest) -> None:
        """Write down what the session cost and which tests failed, if it measured at all."""
        if self._is_broken or not (self.folder / _SETTINGS).exists():
            return
        end = {
            "failed": [asdict(each) for each in digest.failed],
            "num_launches": digest.num_launches,
            "spent_gpu_s": digest.spent_gpu_s,
        }
        try:
            write_atomically(self.folder / _END, _pretty(end))
        except OSError as error:
            self._warn(error)

    def _write(self, name: str, entries: Sequence[Mapping[str, Any]]) -> None:
        if self._is_broken or not entries:
            return
        try:
            self._begin()
            with (self.folder / name).open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(each, sort_keys=True) + "\n" for each in entries)
        except OSError as error:  # what was measured must not be lost with it
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        self._is_broken = True
        text = f"pytest-joules: this session is not stored any further: {error}"
        warnings.warn(text, stacklevel=3)

    def _begin(self) -> None:
        if not (self.folder / _SETTINGS).exists():
            settings = {"schema": SCHEMA, **self.settings}
            write_atomically(self.folder / _SETTINGS, _pretty(settings))
            (self.folder.parents[1] / ".gitignore").write_text("*\n", encoding="utf-8")
            prune(self.folder.parent, newest=self.keep, holding=_SETTINGS, ending=_END)


def _pretty(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _verdict(judgement: Judgement) -> dict[str, Any]:
    case = judgement.case
    return {
        "comparison": _numbers(judgement.comparison),
        "point": judgement.comparison.point.as_json(),
        "num_results": judgement.num_results,
        "tolerances": [[point.as_json(), value] for point, value in case.tolerances.items()],
        "stack": case.stack,
        "against": case.against,
        **({"set_aside": list(judgement.set_aside)} if judgement.set_aside else {}),
    }


def _numbers(comparison: Comparison) -> dict[str, Any]:
    return {**asdict(comparison), "point": comparison.point.id}


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A verdict computed again from what was stored."""

    comparison: Comparison
    stored: Mapping[str, Any]
    """The comparison of the run."""

    @property
    def is_same(self) -> bool:
        """Whether every number of the run came out again, bit for bit."""
        return _text(_numbers(self.comparison)) == _text(self.stored)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)  # NaN equals NaN here, and -0.0 is not 0.0


def replay(folder: Path) -> list[Replayed]:
    """Compute every verdict of a stored session again.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings_of(folder)
    results = results_of(folder)
    stored = _by_point(_results(folder / _BASELINES))
    return [_replayed(each, results) for each in _verdicts(folder, results, stored)]


def _replayed(judgement: Judgement, results: Sequence[Result]) -> Replayed:
    comparison, case = judgement.comparison, judgement.case
    launched: dict[tuple[Point, str], list[Result]] = {}
    for position, result in enumerate(results[: judgement.num_results]):
        if result.is_valid and position not in judgement.set_aside:
            key = (result.point, result.provenance.context.stack)
            launched.setdefault(key, []).append(result)
    point = comparison.point
    return Replayed(
        comparison=case.compared(point, rule(point, launched, case)),
        stored=_numbers(comparison),
    )


def is_session(folder: Path) -> bool:
    """Tell whether a folder is a stored session."""
    return (folder / _SETTINGS).exists()


def digest_of(folder: Path) -> Digest:
    """Read a stored session for a report; the verdicts are those of the run.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings = settings_of(folder)
    results = results_of(folder)
    stored = _by_point(_results(folder / _BASELINES))
    judgements = _verdicts(folder, results, stored)
    comparisons = [each.comparison for each in judgements]
    set_aside = {position for each in judgements for position in each.set_aside}
    launches = {r.evidence.launch_id for r in results if r.evidence}
    return Digest(
        settings={name: value for name, value in settings.items() if name != "schema"},
        rows=rows_of(
            [each for position, each in enumerate(results) if position not in set_aside],
            {each.point: each for each in comparisons},
            stored,
        ),
        **(_end(folder) or {"num_launches": len(launches)}),
    )


def _end(folder: Path) -> dict[str, Any]:
    """Return what the session wrote last; empty where it did not live to."""
    if not (folder / _END).exists():
        return {}
    end = read(folder / _END)
    require_schema(end, "session-end", name=str(folder / _END))
    return {**end, "failed": tuple(Failed(**each) for each in end["failed"])}


def _verdicts(
    folder: Path, results: Sequence[Result], stored: Mapping[Point, tuple[Result, ...]]
) -> list[Judgement]:
    """Read the verdicts; each must find the results and baselines that it rests on."""
    path = folder / _VERDICTS
    judgements = []
    for number, values in enumerate(_lines(path), start=1):
        each = _judgement(values, stored, name=f"{path}, line {number}")
        comparison = each.comparison
        if each.num_results > len(results):
            raise FormatError(
                f"{folder / _RESULTS}: holds {len(results)} results, but the verdict on "
                f"{comparison.point.id} rests on {each.num_results}."
            )
        is_of_baseline = not each.case.against and comparison.num_reference_launches
        if is_of_baseline and comparison.point not in each.case.baselines:
            raise FormatError(
                f"{folder / _BASELINES}: holds no run of {comparison.point.id}, but its "
                f"verdict rests on {comparison.num_reference_launches}."
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
        num_results=values["num_results"],
        set_aside=tuple(values.get("set_aside", ())),
    )


def settings_of(folder: Path) -> Mapping[str, Any]:
    """Return a stored session's settings.

    Raises:
        FormatError: The session is not there, broken, or of another format.
    """
    settings = read(folder / _SETTINGS)
    number = settings.get("schema") if isinstance(settings, dict) else None
    if number != SCHEMA:
        raise FormatError(
            f"{folder / _SETTINGS}: schema is {number!r}, this version reads {SCHEMA}; use the "
            "version that stored it."
        )
    return dict(settings)


def find(name: str, root: Path) -> Path:
    """Return a stored session's folder by path or name; ``latest`` is the last one.

    Raises:
        ConfigurationError: There is none of that name.
    """
    known = sorted(path for path in (root / FOLDER).glob("*") if is_session(path))
    if name == "latest" and known:
        return known[-1]
    for path in (Path(name), root / FOLDER / name):
        if is_session(path):
            return path
    raise ConfigurationError(
        f"{name}: no file, folder or stored session; {root / FOLDER} holds "
        f"{', '.join(path.name for path in known) or 'none'}."
    )


def results_of(path: Path) -> list[Result]:
    """Read the results of a stored session's folder, or of a file of --joules-export.

    Raises:
        FormatError: They cannot be read.
    """
    if path.is_dir():
        if not (path / _RESULTS).exists():  # a session is stored from its first result on
            raise FormatError(f"{path / _RESULTS}: is missing, so the results are lost.")
        return _results(path / _RESULTS)
    return [result_of(values, str(path)) for values in read(path)]


def _by_point(results: Sequence[Result]) -> dict[Point, tuple[Result, ...]]:
    points = dict.fromkeys(result.point for result in results)
    return {point: tuple(r for r in results if r.point == point) for point in points}


def _results(path: Path) -> list[Result]:
    return [result_of(values, str(path)) for values in _lines(path)]


def result_of(values: Mapping[str, Any], name: str) -> Result:
    """Build one result from its JSON.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        return Result.from_json(values)
    except (JoulesError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise FormatError(f"{name}: a result cannot be read: {error!r}.") from None


def _lines(path: Path) -> Iterator[Any]:
    """Yield each line's JSON; a last line cut off by a crash is left out."""
    if not path.exists():
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            return
        # Invalid results may hold NaN, which strict JSON has not.
        yield parse(line, name=f"{path}, line {number}", is_strict=False)
