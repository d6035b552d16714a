"""Going on with a session that died: the same is asked, of the same machine and software.

Alone, one process makes sure of that and takes over. With workers of pytest-xdist each of them
makes sure, since each knows what is asked, and counts what was measured as its own; once all
have, and before any test runs, their controller writes it down (``hand_over``).
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from pytest_joules import record
from pytest_joules.errors import ConfigurationError, FleetError, MeterError, is_expected
from pytest_joules.ledger import Taken
from pytest_joules.options.frozen import Options
from pytest_joules.plan import ATTACHED, Boards, Launch, Stack, plan
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, require_same, require_same_context
from pytest_joules.record.costs import end_of
from pytest_joules.record.parts import parts
from pytest_joules.record.recorder import Recorder, close
from pytest_joules.record.takeover import ANEW, left_by
from pytest_joules.result import Result
from pytest_joules.session import JoulesSession
from pytest_joules.version import __version__

__tracebackhide__ = is_expected

LATEST = "latest"
_LEAVE = "Leave --joules-resume out to measure anew"
_SHOWN = 3
_STOPPED = {2: "interrupted", 3: "internal error"}
"""By pytest's exit code."""


def resolved(chosen: Options, root: Path) -> Options:
    """Name the session to go on with, where one is asked for; raises as ``interrupted``."""
    if not chosen.resume:
        return chosen
    return replace(chosen, resume=interrupted(root, chosen.resume).name)


def require_possible(session: JoulesSession) -> None:
    """Refuse what a resumed session cannot be.

    Raises:
        ConfigurationError: It plans only, or launches nothing.
    """
    chosen, source = session.options, session.source
    if chosen.resume and (chosen.plan or not source.launches):
        raise ConfigurationError(
            "--joules-resume goes on with a session that launches, so it goes neither with "
            "--joules-plan, nor with a source that launches nothing (this one is "
            f"{source.name}). Leave one of them out."
        )


def begin(session: JoulesSession, recorder: Recorder) -> None:
    """Write down what is asked; take over what an interrupted session has done, and end it.

    Raises:
        ConfigurationError: It was asked something else, or measured with something else.
        FormatError: It is broken, or what it left cannot be written.
    """
    recorder.asked = asked_of(session)
    if not session.options.resume:
        return
    folder = _folder(session, recorder)
    if recorder.part:
        taken = taken_over(folder, session)
        # What that cost is written down once, by the controller.
        session.take_over(replace(taken, num_launches=0, spent_gpu_s=0.0))
        return
    with held(folder):
        taken = taken_over(folder, session)
        _pass_on(folder, taken, recorder)
    session.take_over(taken)


def hand_over(session: JoulesSession, recorder: Recorder) -> Taken:
    """Write down, for all workers, what each of them counts as its own; end the other session.

    Raises:
        FormatError: What it left cannot be read or written.
    """
    folder = _folder(session, recorder)
    recorder.asked = record.plan_of(folder)
    taken = left_by(folder)
    _pass_on(folder, taken, recorder)
    return taken


def _folder(session: JoulesSession, recorder: Recorder) -> Path:
    return recorder.folder.with_name(session.options.resume)


def _pass_on(folder: Path, taken: Taken, recorder: Recorder) -> None:
    recorder.take_over(taken)
    close(folder, resumed_by=recorder.folder.name)


def unfinished(session: JoulesSession, exit_code: int) -> str:
    """Say why something was left undone, so that the session may be resumed; or nothing."""
    ledger = session.ledger
    is_lost = any(isinstance(error, FleetError) for error in ledger.failures.values())
    left = "budget spent" if ledger.is_budget_spent else "fleet failed" if is_lost else ""
    return _STOPPED.get(exit_code, left)


def asked_of(session: JoulesSession) -> dict[str, Any]:
    """Return all that decides what a session measures and how, as JSON-ready values.

    Secrets may stand in a stack's environment, so of its values only short digests are kept.
    """
    chosen = session.options
    return {
        "plugin": __version__,
        "gpu": chosen.gpu,
        "source": session.source.name,
        "fleet": bool(chosen.fleet),
        "plant": dict(chosen.plant),
        "window_s": chosen.window,
        "record": chosen.record,
        "calibrate": chosen.calibrate,
        "launches": chosen.num_launches if chosen.records else None,
        "stack": _declared(session.stack),
        "against": _declared(session.old_stack) if session.old_stack else None,
        "points": [_point(session, point) for point in session.ledger.wishes],
    }


def _declared(stack: Stack) -> dict[str, Any]:
    told = {**asdict(stack), "env": {name: _digest(text) for name, text in stack.env.items()}}
    del told["deadline_s"]  # how long one waits changes nothing that is measured
    return _plain(told)


def _point(session: JoulesSession, point: Point) -> dict[str, Any]:
    referee = session.referee
    compares = point in referee.tolerances and not session.options.records
    runs = referee.known_runs(point) if compares else ()
    stored = [[r.evidence and r.evidence.launch_id, r.energy_per_work_unit_j] for r in runs]
    return {
        "point": point.as_json(),
        "id": point.id,
        "wishes": sorted(wish.name.lower() for wish in session.ledger.wishes[point]),
        "tolerance": referee.tolerances.get(point),
        "baseline": _digest(json.dumps(stored)) if stored else "",
    }


def _digest(text: str) -> str:
    """Tell whether a text changed; too short to find it again."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))  # tuples are lists in a file
    return plain


def interrupted(root: Path, name: str) -> Path:
    """Return the folder of the session to go on with; ``latest`` is the last that died.

    Raises:
        ConfigurationError: There is none, it ended, or it still runs.
    """
    if name == LATEST:
        open_ones = [each for each in record.known_sessions(root) if not _ended(each)]
        if not open_ones:
            raise ConfigurationError(
                f"--joules-resume: no session in {root / record.FOLDER} was interrupted after "
                "it had measured something. Leave --joules-resume out."
            )
        return _require_dead(open_ones[-1])
    found = record.find(name, root)
    if ended := _ended(found):
        raise ConfigurationError(f"--joules-resume={name}: {ended}. {_LEAVE}.")
    return _require_dead(found)


def _ended(folder: Path) -> str:
    """Say how a session ended; empty where it has left something undone."""
    end = end_of(folder)
    if by := end.get("resumed_by"):
        return f"session {by} went on with it already"
    if end and not end.get("unfinished"):
        return "this session ended with all that it was asked"
    return "" if parts(folder) else "this session had measured nothing"


def _require_dead(folder: Path) -> Path:
    with _lockable(folder):
        is_running = record.is_running(folder)
    if is_running:
        raise ConfigurationError(
            f"--joules-resume: session {folder.name} still runs. Wait until it ends, or end it."
        )
    return folder


@contextmanager
def held(folder: Path) -> Generator[None]:
    """Keep everybody else from going on with a session inside the block.

    Raises:
        ConfigurationError: Somebody does, or did since it was chosen.
    """
    try:
        with _lockable(folder), record.running_lock(folder):
            if ended := _ended(folder):
                raise ConfigurationError(f"--joules-resume={folder.name}: {ended}. {_LEAVE}.")
            yield
    except Timeout:
        raise ConfigurationError(
            f"--joules-resume: session {folder.name} is just being taken over by another run."
        ) from None


@contextmanager
def _lockable(folder: Path) -> Generator[None]:
    try:
        yield
    except Timeout:  # which is an OSError as well
        raise
    except OSError as error:
        raise ConfigurationError(
            f"--joules-resume: session {folder.name} cannot be locked: {error}. Go on with a "
            f"session that is yours and on a disk with locks. {_LEAVE}."
        ) from None


def taken_over(folder: Path, session: JoulesSession) -> Taken:
    """Read what an interrupted session leaves to this one, which is asked the same.

    Raises:
        ConfigurationError: Something differs; names the field with both values.
        FormatError: The session is broken.
    """
    name = folder.name
    then, now = record.plan_of(folder), _plain(asked_of(session))
    _require_none(_differences(then, now), name)
    taken = left_by(folder)
    if not taken.results:
        raise ConfigurationError(
            f"--joules-resume: session {name} holds no valid measurement; {ANEW}."
        )
    _require_same_machine(session, taken.results, name)
    # On other hardware there is no baseline at all, which would be said in its stead.
    _require_none(_other_fields(then["points"], now["points"], ("baseline",)), name)
    return taken


def _require_same_machine(session: JoulesSession, results: Sequence[Result], name: str) -> None:
    here = _Here(session)
    for result in results:
        what = f"{result.point.id}: session {name}"
        if result.point.engine == ATTACHED:
            raise ConfigurationError(
                f"{what} measured a server that it had not started, whose start is one "
                f"sample however often it is asked; {ANEW}."
            )
        theirs = result.provenance
        try:
            identity, context = here.identity(result), here.context(result)
        except MeterError as error:  # such as a board that is gone
            raise ConfigurationError(f"{what}: {error} Or {ANEW}.") from None
        require_same(identity, theirs.identity, what)
        require_same_context(context, theirs.context, what)


class _Here:
    """What this machine is for each launch, asked once for all that must be alike.

    Asked on the boards where the launch ran: others of the machine may be free or taken now.
    """

    def __init__(self, session: JoulesSession) -> None:
        self._session = session
        self._identities: dict[Any, Identity] = {}
        self._contexts: dict[Any, Context] = {}

    def identity(self, result: Result) -> Identity:
        stack, point = result.provenance.context.stack, result.point
        key = stack, point.num_gpus, point.media, _board(result)
        if key not in self._identities:
            self._identities[key] = self._session.source.identity(self._launch(result))
        return self._identities[key]

    def context(self, result: Result) -> Context:
        stack, point = result.provenance.context.stack, result.point
        key = stack, point.num_gpus, point.engine, _board(result)
        if key not in self._contexts:
            self._contexts[key] = self._session.source.context(self._launch(result))
        return self._contexts[key]

    def _launch(self, result: Result) -> Launch:
        session, name = self._session, result.provenance.context.stack
        stack = next(s for s in (session.stack, session.old_stack) if s and s.name == name)
        launch = plan([result.point], stack=stack, gpu=session.options.gpu).launches[0]
        return replace(launch, boards=Boards(fixed=_board(result)))


def _board(result: Result) -> tuple[str, ...]:
    return result.provenance.context.gpu_uuids


def _require_none(differences: Iterator[str], name: str) -> None:
    differs = next(differences, None)
    if differs:
        raise ConfigurationError(
            f"--joules-resume: session {name} was asked something else: {differs}. Ask the "
            f"same, or {ANEW}."
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in now:
        if name == "points":
            yield from _other_points(then.get(name, []), now[name])
        else:
            yield from _other_values(name, then.get(name), now[name])


def _other_values(name: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _other_values(f"{name}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield f"{name} was {_shown(then)} and is {_shown(now)}"


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _other_points(then: Sequence[Any], now: Sequence[Any]) -> Iterator[str]:
    old, new = _by_point(then), _by_point(now)
    for told, some in (("no more", old.keys() - new.keys()), ("new", new.keys() - old.keys())):
        if some:
            ids = sorted({**old, **new}[key]["id"] for key in some)
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            yield f"points: {told} are {', '.join(ids[:_SHOWN])}{more}"
    yield from _other_fields(then, now, ("wishes", "tolerance"))


def _other_fields(
    then: Sequence[Any], now: Sequence[Any], names: Sequence[str]
) -> Iterator[str]:
    old = _by_point(then)
    for key, each in _by_point(now).items():
        for name in names:
            known = old.get(key, each)[name]
            yield from _other_values(f"{name} of {each['id']}", known, each[name])


def _by_point(points: Sequence[Any]) -> dict[str, Any]:
    return {json.dumps(each["point"], sort_keys=True): each for each in points}
