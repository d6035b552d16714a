"""Writes a session down while it runs, so that nothing found out is lost with it."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_joules.digest import Digest
from pytest_joules.errors import FormatError
from pytest_joules.gate.calibration import Calibration
from pytest_joules.ledger import Judgement, Listener, Taken
from pytest_joules.point import Point
from pytest_joules.pruning import prune
from pytest_joules.record import LOCKS, PLAN, SCHEMA, SETTINGS, is_session, running_lock
from pytest_joules.record.costs import END, cost_of, end_of, spent_by
from pytest_joules.record.parts import COSTS, RESULTS, of_part, parts
from pytest_joules.record.verdicts import BASELINES, VERDICTS
from pytest_joules.result import Result
from pytest_joules.storage import append_durably, write_atomically

_LOOKED_AT_S = 10.0
"""Longest that another run may hold our lock, to see whether we live: thousands of times more
than that takes."""


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

    asked: Mapping[str, Any] = field(default_factory=dict)
    """What the session was asked to measure; another may go on with the same alone."""

    _stored: set[Point] = field(default_factory=set)
    _cost: dict[str, Any] = field(default_factory=dict)
    _calibrations: list[list[Any]] = field(default_factory=list)
    _lock: FileLock | None = None
    _has_begun: bool = False
    trouble: str = ""
    """Why nothing is written any further, in words."""

    def take_over(self, taken: Taken) -> None:
        """Write down all that is taken over; only then is this a session that others see.

        Raises:
            FormatError: It cannot be written: nobody shall believe that it was.
        """
        self._guarded(self._hold)  # makes the folder, which is private
        self._cost = {"set_aside": list(taken.set_aside)} if taken.set_aside else {}
        self.spent(taken.num_launches, taken.spent_gpu_s)
        self._append(RESULTS, [result.as_json() for result in taken.results])
        for judgement in taken.judgements:
            self._store_judgement(judgement)
        self._guarded(self._begin)
        if self.trouble:
            raise FormatError(
                f"{self.folder}: what is taken over from session {taken.session} cannot be "
                "written (the warning says why). Mend that and resume again; it is not lost."
            )

    def spent(self, num_launches: int, gpu_s: float) -> None:
        self._cost = {**self._cost, "num_launches": num_launches, "spent_gpu_s": gpu_s}
        if self._has_begun:
            self._write(COSTS, [self._cost])
        elif self.part:  # others share the budget, also with one whose launches all fail
            self._guarded(self._begin)

    def spent_elsewhere_gpu_s(self) -> float:
        others = [part for part in parts(self.folder) if part != self.part]
        return float(sum(cost_of(self.folder, part).get("spent_gpu_s", 0.0) for part in others))

    def calibrated(self, point: Point, calibration: Calibration) -> None:
        self._calibrations.append([point.as_json(), calibration.as_json()])
        self._cost["calibrations"] = self._calibrations
        self._write(COSTS, [self._cost])

    def set_aside(self, positions: Sequence[int]) -> None:
        self._cost["set_aside"] = list(positions)
        self._write(COSTS, [self._cost])

    def finished(self, result: Result) -> None:
        self._write(RESULTS, [result.as_json()])

    def judged(self, judgement: Judgement) -> None:
        self._guarded(self._begin)
        self._store_judgement(judgement)

    def join(self) -> None:
        """Let the session live as long as this process, where others have begun it."""
        if is_session(self.folder):
            self._guarded(self._hold)

    def ended(self, digest: Digest, *, unfinished: str = "") -> None:
        """Write down what the session cost and which tests failed, if it measured at all.

        Args:
            digest: What it found out.
            unfinished: Why something was left undone, so that it may be resumed.
        """
        # A worker's end is not the session's.
        if is_session(self.folder) and not self.trouble and not self.part:
            end = {
                "failed": [asdict(each) for each in digest.failed],
                "num_launches": digest.num_launches,
                "spent_gpu_s": digest.spent_gpu_s,
                "unfinished": unfinished,
            }
            self._guarded(lambda: write_atomically(self.folder / END, _pretty(end)))
        if self._lock is not None:
            self._lock.release()

    def _store_judgement(self, judgement: Judgement) -> None:
        case = judgement.case
        fresh = [point for point in case.baselines if point not in self._stored]
        self._append(BASELINES, [r.as_json() for p in fresh for r in case.baselines[p]])
        self._stored.update(fresh)
        self._append(VERDICTS, [_verdict(judgement)])

    def _write(self, name: str, entries: Sequence[Mapping[str, Any]]) -> None:
        self._guarded(self._begin)
        self._append(name, entries)

    def _append(self, name: str, entries: Sequence[Mapping[str, Any]]) -> None:
        if entries:
            lines = [json.dumps(each, sort_keys=True) for each in entries]
            self._guarded(lambda: append_durably(self.folder / of_part(name, self.part), lines))

    def _guarded(self, job: Callable[[], None]) -> None:
        if self.trouble:
            return
        try:
            job()
        except (OSError, NotImplementedError) as error:  # the latter: no locks on this disk
            self._warn(error)  # what was measured must not be lost with it

    def _warn(self, error: Exception) -> None:
        self.trouble = f"this session is not stored any further: {error}"
        warnings.warn(f"pytest-joules: {self.trouble}", stacklevel=4)

    def _hold(self) -> None:
        if self._lock is None:
            # Private: failed tests may quote what is nobody else's.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = running_lock(self.folder, self.part)
            self._lock.acquire(timeout=_LOOKED_AT_S)

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        self._hold()
        self._append(COSTS, [self._cost] if self._cost else [])
        if self.part:
            append_durably(self.folder / of_part(RESULTS, self.part), [])
        if not is_session(self.folder):
            settings = {"schema": SCHEMA, **self.settings}
            write_atomically(self.folder / PLAN, _pretty({"schema": SCHEMA, **self.asked}))
            write_atomically(self.folder / SETTINGS, _pretty(settings))
            write_atomically(self.folder.parents[1] / ".gitignore", "*\n")
            self._prune()

    def _prune(self) -> None:
        try:
            prune(
                self.folder.parent,
                newest=self.keep,
                holding=SETTINGS,
                locks=LOCKS,
                ending=END,
            )
        except (OSError, NotImplementedError) as error:  # this session is stored all the same
            warnings.warn(f"pytest-joules: old sessions stay: {error}", stacklevel=4)


def _pretty(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _verdict(judgement: Judgement) -> dict[str, Any]:
    case = judgement.case
    return {
        "comparison": judgement.comparison.as_json(),
        "point": judgement.comparison.point.as_json(),
        "num_results": judgement.num_results,
        "tolerances": [[point.as_json(), value] for point, value in case.tolerances.items()],
        "stack": case.stack,
        "against": case.against,
        **({"set_aside": list(judgement.set_aside)} if judgement.set_aside else {}),
    }


def close(folder: Path, *, resumed_by: str) -> None:
    """End an interrupted session: another has all that it held.

    Raises:
        OSError: The folder cannot be written.
    """
    end = {"failed": [], **spent_by(folder), **end_of(folder), "resumed_by": resumed_by}
    end["failed"] = [asdict(each) for each in end["failed"]]
    write_atomically(folder / END, _pretty(end))
