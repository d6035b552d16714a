"""What people read while they wait: where a session is, what it cost, how long it takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pytest_joules.plan import Costs, Launch
from pytest_joules.point import Point
from pytest_joules.progress import (
    Event,
    LaunchBegins,
    LaunchEnds,
    LeaseEnds,
    LeaseWaits,
    LoadBegins,
    PointEnds,
)
from pytest_joules.result import Result
from pytest_joules.units import si
from pytest_joules.visible import visible


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a session knows of all its launches."""

    budget_gpu_minutes: float | None
    num_launches: int
    """Launches so far, the present one included."""

    spent_gpu_s: float
    """Of the launches before the present one."""

    to_come: int
    """Launches after the present one, as far as can be known."""

    is_least: bool
    """Whether checks may ask for more of them."""

    at_once: int = 1
    """Launches that run side by side."""

    costs: Costs = field(default_factory=Costs)


@dataclass(kw_only=True)
class Waiting:
    """Follows events; says one line for each, and one for the present moment."""

    session: Callable[[], Session]
    _waits: LeaseWaits | None = None
    _launch: Launch | None = None
    _load: LoadBegins | None = None
    _begun_s: float = 0.0
    _first_s: float | None = None
    _drawn_j: float = 0.0
    _took_s: list[float] = field(default_factory=list)

    def hear(self, event: Event) -> str:
        """Follow an event; return what to print in a log, or nothing."""
        if self._first_s is None:
            self._first_s = event.at_s
        text = self._followed(event)
        moment = clock(event.at_s - self._first_s)
        return visible(f"joules {moment}  {text}") if text else ""

    def _followed(self, event: Event) -> str:
        match event:
            case LeaseWaits():
                first = self._waits or event
                self._waits = replace(event, at_s=first.at_s)
                return f"waits for GPUs: {event.launch.largest.id} {event.text}"
            case LeaseEnds():
                began, self._waits = self._waits, None
                waited_s = event.at_s - began.at_s if began else 0.0
                return f"waited {clock(waited_s)} for GPUs"
            case LaunchBegins():
                return self._launched(event)
            case LoadBegins():
                return self._loading(event)
            case PointEnds():
                return self._ended(event)
            case LaunchEnds():
                self._took_s.append(event.at_s - self._begun_s)
                self._launch = self._load = None
                return ""

    def now(self, at_s: float) -> str:
        """Return one line for the present moment."""
        if self._waits is not None:
            waited = clock(at_s - self._waits.at_s)
            return visible(f"waits for GPUs {waited} \N{MIDDLE DOT} {self._waits.text}")
        if self._launch is None:
            return ""
        doing, since_s = "launch", self._begun_s
        if self._load is not None:
            doing, since_s = f"load {self._load.point.id}", self._load.at_s
        session = self.session()
        number = f"launch {session.num_launches} of {_least(session)}"
        parts = [number, f"{doing} {clock(at_s - since_s)}", self._energy(), self._cost(at_s)]
        return visible(" \N{MIDDLE DOT} ".join([*filter(None, parts), self._left(at_s)]))

    def gpu_s(self, at_s: float) -> float:
        """Return the GPU seconds of the present launch; 0 where there is none."""
        return self._launch.largest.num_gpus * (at_s - self._begun_s) if self._launch else 0.0

    def _launched(self, event: LaunchBegins) -> str:
        self._launch, self._load, self._begun_s = event.launch, None, event.at_s
        session, first = self.session(), event.launch.largest
        batches = ", ".join(str(point.batch_size) for point in event.launch.points)
        return (
            f"launch {session.num_launches} of {_least(session)}: {first.engine} {first.model} "
            f"{first.precision} on {first.num_gpus} x {event.launch.gpu}, stack "
            f"{event.launch.stack.name}, batch sizes {batches}"
        )

    def _loading(self, event: LoadBegins) -> str:
        ready = "" if self._load else f"ready after {clock(event.at_s - self._begun_s)}; "
        self._load = event
        return f"{ready}load {event.point.id} for a window of {event.min_window_s:g} s"

    def _ended(self, event: PointEnds) -> str:
        self._drawn_j += (self._load and self._load.energy_j()) or 0.0
        told = [_outcome(event.point, event.outcome), self._energy(is_running=False)]
        told += [self._cost(event.at_s), self._left(event.at_s)]
        return ", ".join(filter(None, told))

    def _energy(self, *, is_running: bool = True) -> str:
        running_j = (self._load.energy_j() if self._load and is_running else 0.0) or 0.0
        drawn_j = self._drawn_j + running_j
        return f"{si(drawn_j, 'J')} so far" if drawn_j else ""

    def _cost(self, at_s: float) -> str:
        session = self.session()
        spent_min = (session.spent_gpu_s + self.gpu_s(at_s)) / 60
        if session.budget_gpu_minutes is None:
            return f"{spent_min:.1f} GPU minutes"
        return f"{spent_min:.1f} of {session.budget_gpu_minutes:g} GPU minutes"

    def _left(self, at_s: float) -> str:
        session = self.session()
        each_s = self._usual_s()
        if each_s is None:
            return ""
        present_s = max(0.0, each_s - (at_s - self._begun_s))
        word = "at least" if session.is_least else "about"
        turns = math.ceil(session.to_come / session.at_once)
        return f"{word} {clock(present_s + turns * each_s)} left"

    def _usual_s(self) -> float | None:
        """Estimate how long a launch takes: as long as those before, else as planned.

        ``None``: none has begun, as where the first got no GPUs.
        """
        if self._took_s:
            return sum(self._took_s) / len(self._took_s)
        if self._launch is None:
            return None
        return self.session().costs.duration_s(self._launch)


def _least(session: Session) -> str:
    total = session.num_launches + session.to_come
    return f"{total} or more" if session.is_least else str(total)


def _outcome(point: Point, outcome: Result | Exception) -> str:
    if not isinstance(outcome, Result):
        return f"{point.id}: no result ({type(outcome).__name__})"
    if not outcome.is_valid:
        codes = ", ".join(reason.code for reason in outcome.reasons)
        return f"{point.id}: invalid ({codes})"
    energy = si(outcome.energy_per_work_unit_j, f"J/{point.work_unit}")
    window = f" in {outcome.evidence.window_s:.0f} s" if outcome.evidence else ""
    return f"{point.id}: {energy}{window}"


def clock(seconds: float) -> str:
    """Write a duration for people.

    >>> clock(5.2), clock(92), clock(3723)
    ('0:05', '1:32', '1:02:03')
    """
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}" if hours else f"{minutes}:{rest_s:02}"
