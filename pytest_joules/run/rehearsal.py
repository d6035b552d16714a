"""Runs tests up to their first use of a measured value: which points will they ask for?"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from _pytest.runner import runtestprotocol

from pytest_joules.errors import ConfigurationError, InvalidPoint, JoulesError, is_expected
from pytest_joules.point import Point
from pytest_joules.run.pending import RehearsalEnds

__tracebackhide__ = is_expected

_STOPS = (Exception, RehearsalEnds, pytest.fail.Exception)


class Rehearsed(NamedTuple):
    """What the rehearsal of one test found."""

    points: tuple[Point, ...]
    """In the order in which the test asked for them."""

    refused: JoulesError | None
    """Why something that its body asks for cannot be."""


class Rehearsal:
    """Runs one test after another; nothing that their bodies raise gets out."""

    def __init__(self) -> None:
        self.is_on = False
        self.asked: list[Point] = []
        """Points of the test that is being rehearsed; its bench tells them."""

        self._refused: JoulesError | None = None

    def of(self, item: pytest.Item, following: pytest.Item | None) -> Rehearsed:
        """Run a test with its fixtures; ``following`` says which of them stay set up."""
        self.is_on, self.asked, self._refused = True, [], None
        try:
            with _silent_sub_tests(item, self):
                runtestprotocol(item, log=False, nextitem=following)
        finally:
            self.is_on = False
            item.user_properties.clear()
            item._report_sections.clear()  # noqa: SLF001  or its output would be shown twice
        return Rehearsed(tuple(self.asked), self._refused)

    def hear(self, point: Point) -> None:
        """Take a point that the test asks for.

        Raises:
            ConfigurationError: The run has begun, so this would measure nothing.
        """
        if not self.is_on:
            raise ConfigurationError(
                "this energy_bench is left over from the rehearsal and measures nothing: the "
                "end of a fixture raised what pytest does not handle there, such as "
                "SystemExit. Let it raise an Exception, or nothing."
            )
        self.asked.append(point)

    def call(self) -> Generator[None, object, object]:
        """Let a test's body run until it stops."""
        try:
            return (yield)
        except _STOPS as error:  # its real run will raise it
            self.stopped_by(error)
            return True

    def stopped_by(self, error: BaseException) -> None:
        """Take what a body raised, or a part of it."""
        if self._refused is None and isinstance(error, InvalidPoint | ConfigurationError):
            self._refused = error

    def set_up(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Let a fixture be set up; in the rehearsal pytest's ``subtests`` are ours."""
        made = yield
        if self.is_on and fixturedef.argname == "subtests":
            made = Subtests(self)
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]  # pytest's own is a SubRequest
            fixturedef.cached_result = (made, key, None)
        return made


class Subtests:
    """Stands in for pytest's fixture ``subtests``, which would report what happens in one."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    @contextmanager
    def test(self, msg: str | None = None, **kwargs: Any) -> Iterator[None]:
        """Let a part of a test's body run until it stops; the next one begins all the same."""
        del msg, kwargs
        try:
            yield
        except (*_STOPS, pytest.skip.Exception) as error:
            self._rehearsal.stopped_by(error)


@contextmanager
def _silent_sub_tests(item: pytest.Item, rehearsal: Rehearsal) -> Iterator[None]:
    """Keep a test of unittest from reporting, now or later, what it raises now."""

    def stopped(_test: object, _part: object, raised: object) -> None:
        if isinstance(raised, tuple):
            rehearsal.stopped_by(raised[1])

    own = vars(item)
    own.update({"addSubTest": stopped} if hasattr(item, "addSubTest") else {})
    try:
        yield
    finally:
        own.pop("addSubTest", None)
        own.pop("_excinfo", None)
