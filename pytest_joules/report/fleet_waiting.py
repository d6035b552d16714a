"""What people read while a fleet measures: a line for each step of every node."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pytest_joules.point import Point
from pytest_joules.progress import Event, LaunchBegins, LaunchEnds
from pytest_joules.report.waiting import Session, Waiting
from pytest_joules.visible import visible


@dataclass(kw_only=True)
class FleetWaiting:
    """Follows the events of many cells; says one line for each."""

    session: Callable[[], Session]
    _cells: dict[Point, Waiting] = field(default_factory=dict)
    _running: set[Point] = field(default_factory=set)
    _first_s: float | None = None
    _present: tuple[Point, float] | None = None
    """Whose event it is that is told now, and when it happened."""

    def hear(self, node: str, key: Point, event: Event) -> str:
        """Follow an event of a server key's cell; return what to print, or nothing."""
        if self._first_s is None:
            self._first_s = event.at_s
        self._present = (key, event.at_s)
        if isinstance(event, LaunchBegins):
            self._running.add(key)
        if isinstance(event, LaunchEnds):
            self._running.discard(key)
        if key not in self._cells:
            self._cells[key] = Waiting(session=self._facts, _first_s=self._first_s)
        line = self._cells[key].hear(event)
        moment, gap, told = line.partition("  ")
        return f"{moment}{gap}{visible(node)}: {told}" if line else ""

    def _facts(self) -> Session:
        """Return the session's facts for one cell: the others cost and do their share."""
        session = self.session()
        assert self._present is not None
        present, at_s = self._present
        others_gpu_s = sum(
            self._cells[key].gpu_s(at_s) for key in self._running if key != present
        )
        return replace(
            session,
            spent_gpu_s=session.spent_gpu_s + others_gpu_s,
            at_once=max(1, len(self._running)),
        )
