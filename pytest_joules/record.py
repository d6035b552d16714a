"""Stored sessions: every result at once, and with each verdict all that it rests on.

``.joules/sessions/<session>/`` holds ``session.json`` (settings), ``results.jsonl`` (every
result, valid or not, in order), ``baselines.jsonl`` (the stored runs compared with),
``verdicts.jsonl`` and, once the session has ended, ``end.json`` (what it cost and which tests
failed). Numbers are written so that they read back bit for bit.

Under pytest-xdist each worker writes files of its own beside the others' (``results-gw0.jsonl``
and so on, and ``cost-gw0.json`` after every launch), so that none is lost with another one;
all of them are one session.
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
from pytest_joules.parts import COST, RESULTS, cost_of, of_part, parts
from pytest_joules.point import Point
from pytest_joules.pruning import prune
from pytest_joules.result import Result
from pytest_joules.session import Judgement, Ledger, Listener
from pytest_joules.storage import parse, read, require_schema, write_atomically
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

SCHEMA = 1
FOLDER = Path(".joules") / "sessions"
_SETTINGS = "session.json"
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

    part: str = ""
    """The worker's name where several write down one session."""

    _stored: set[Point] = field(default_factory=set)
    _is_broken: bool = False

    def finished(self, result: Result) -> None:
        self._write(RESULTS, [result.as_json()])

    def judged(self, judgement: Judgement) -> None:
        case = judgement.case
        fresh = [point for point in case.baselines if point not in self._stored]
        self._write(_BASELINES, [r.as_json() for p in fresh for r in case.baselines[p]])
        self._stored.update(fresh)
        self._write(_VERDICTS, [_verdict(judgement)])

    def launched(self, ledger: Ledger) -> None:
        if not self.part or self._is_broken or not is_session(self.folder):
            return
        cost = {
            "calibrations": [
                [p.as_json(), c.as_json()] for p, c in ledger.calibrations.items()
            ],
            "num_launches": ledger.num_launches,
            "spent_gpu_s": ledger.spent_gpu_s,
        }
        try:
            write_atomically(self.folder / of_part(COST, self.part), _pretty(cost))
        except OSError as error:
            self._warn(error)

    def spent_elsewhere_gpu_s(self) -> float:
        others = [part for part in parts(self.folder) if part != self.part]
        return float(sum(cost_of(self.folder, part).get("spent_gpu_s", 0.0) for part in others))

    def ended(self, digest: Digest) -> None:
        """Write down what the session cost and which tests failed, if it measured at all."""
        # A worker's end is not the session's.
        if self.part or self._is_broken or not is_session(self.folder):
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
            path = self.folder / of_part(name, self.part)
            with path.open("a", encoding="utf-8") as stream:
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
        """Whether verdict and every number of the run came out again, bit for bit.

        The sentence about them is left out: a later version may word it otherwise.
        """
        return _text(_numbers(self.comparison)) == _text(self.stored)


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
        _replayed(judgement, results)
        for results, _, judgements in told(folder)
        for judgement in judgements
    ]


def told(
    folder: Path,
) -> Iterator[tuple[list[Result], dict[Point, tuple[Result, ...]], list[Judgement]]]:
    """Yield each part's results, stored runs and verdicts: a verdict rests on its own part."""
    for part in parts(folder):
        results = _results(folder / of_part(RESULTS, part))
        stored = _by_point(_results(folder / of_part(_BASELINES, part)))
        yield results, stored, _verdicts(folder, results, stored, part=part)


def _replayed(judgement: Judgement, results: Sequence[Result]) -> Replayed:
    comparison, case = judgement.comparison, judgement.case
    launched: dict[tuple[Point, str], list[Result]] = {}
    for result in results[: judgement.num_results]:
        if result.is_valid:
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
    results, parted = results_of(folder), list(told(folder))
    comparisons = [each.comparison for *_, judged in parted for each in judged]
    return Digest(
        settings={name: value for name, value in settings.items() if name != "schema"},
        rows=rows_of(
            results,
            {each.point: each for each in comparisons},
            {point: runs for _, stored, _ in parted for point, runs in stored.items()},
        ),
        **(_end(folder) or {"num_launches": num_launches(results)}),
    )


def num_launches(results: Sequence[Result]) -> int:
    """Count the launches that gave results."""
    return len({result.evidence.launch_id for result in results if result.evidence})


def _end(folder: Path) -> dict[str, Any]:
    """Return what the session wrote last; empty where it did not live to."""
    if not (folder / _END).exists():
        return {}
    end = read(folder / _END)
    require_schema(end, "session-end", name=str(folder / _END))
    return {**end, "failed": tuple(Failed(**each) for each in end["failed"])}


def _verdicts(
    folder: Path,
    results: Sequence[Result],
    stored: Mapping[Point, tuple[Result, ...]],
    *,
    part: str,
) -> list[Judgement]:
    """Read the verdicts; each must find the results and baselines that it rests on."""
    path = folder / of_part(_VERDICTS, part)
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
                f"{folder / of_part(_BASELINES, part)}: holds no run of {comparison.point.id}, "
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
        num_results=values["num_results"],
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
        names = parts(path)
        if not names:  # a session is stored from its first result on
            raise FormatError(f"{path / RESULTS}: is missing, so the results are lost.")
        found = [each for name in names for each in _results(path / of_part(RESULTS, name))]
        # What was only looked up, several workers may have looked up.
        return (
            found if len(names) == 1 else list({_text(r.as_json()): r for r in found}.values())
        )
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
