"""Stands in for ``energy_bench`` in the rehearsal that precedes a run.

It notes the points and ends the test's body at the first use of a measured value, so no made-up
number ever reaches a test.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from _pytest.outcomes import Skipped

from pytest_joules.errors import is_expected
from pytest_joules.ledger import Wish
from pytest_joules.point import Point
from pytest_joules.run.bench import asked_share, point_of, require_point
from pytest_joules.session import JoulesSession

__tracebackhide__ = is_expected


class RehearsalEnds(Skipped):
    """A measured value was needed, so the rehearsal of this test is over.

    It is no ``Exception``: a test's own handlers must not go on with nothing. But it is one
    that pytest expects of a fixture: after any other, it would leave those of the test set up.
    """


class Pending:
    """A result or comparison that does not exist yet; any use of it ends the rehearsal."""

    def __init__(self, point: Point) -> None:
        self.point = point

    def __getattr__(self, name: str) -> NoReturn:
        raise RehearsalEnds(name)

    def __bool__(self) -> NoReturn:
        raise RehearsalEnds("bool")


class RehearsalBench:
    """Notes what a test asks for and measures nothing."""

    def __init__(
        self,
        session: JoulesSession,
        *,
        tolerance: float | None,
        hear: Callable[[Point], None],
    ) -> None:
        self._session = session
        self._tolerance = tolerance
        self._hear = hear

    def __call__(self, **fields: Any) -> Pending:
        return self.measure(point_of(fields))

    def measure(self, point: Point) -> Pending:
        require_point(point)
        self._hear(point)
        self._session.note(point, Wish.MEASURE)
        return Pending(point)

    def sweep(self, point: Point, **axes: Any) -> tuple[Pending, ...]:
        require_point(point)
        return tuple(self.measure(each) for each in point.sweep(**axes))

    def check(self, point: Point, *, tolerance: float | None = None) -> Pending:
        require_point(point)
        asked = asked_share(tolerance, self._tolerance)
        self._hear(point)
        self._session.note(point, Wish.CHECK, asked)
        return Pending(point)
