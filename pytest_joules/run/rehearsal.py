"""Runs tests up to their first use of a measured value: which points will they ask for?"""

from collections.abc import Generator
from typing import NamedTuple

import pytest
from _pytest.runner import runtestprotocol

from pytest_joules.errors import is_expected
from pytest_joules.point import Point
from pytest_joules.run.bench import RehearsalEnds

__tracebackhide__ = is_expected

_STOPS = (Exception, RehearsalEnds, pytest.fail.Exception)


class Rehearsed(NamedTuple):
    """What the rehearsal of one test found."""

    points: tuple[Point, ...]
    """In the order in which the test asked for them."""

    stopped_by: BaseException | None
    """What its body raised."""


class Rehearsal:
    """Runs one test after another; nothing that their bodies raise gets out."""

    def __init__(self) -> None:
        self.is_on = False
        self.asked: list[Point] = []
        """Points of the test that is being rehearsed; its bench adds them."""

        self._stopped_by: BaseException | None = None

    def of(self, item: pytest.Item, following: pytest.Item | None) -> Rehearsed:
        """Run a test with its fixtures; ``following`` says which of them stay set up."""
        self.is_on, self.asked, self._stopped_by = True, [], None
        try:
            runtestprotocol(item, log=False, nextitem=following)
        finally:
            self.is_on = False
            item.user_properties.clear()
            item._report_sections.clear()  # noqa: SLF001  or its output would be shown twice
        return Rehearsed(tuple(self.asked), self._stopped_by)

    def call(self) -> Generator[None, object, object]:
        """Let a test's body run until it stops."""
        try:
            return (yield)
        except _STOPS as error:  # its real run will raise it
            self._stopped_by = error
            return True

    @staticmethod
    def set_up(
        fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Let a fixture be set up; one that needs a value ends as a skip."""
        try:
            return (yield)
        except RehearsalEnds as error:
            # As pytest keeps an Exception, or it would not tear the fixture down.
            ended = pytest.skip.Exception("the rehearsal ends here")
            key = fixturedef.cache_key(request)  # type: ignore[arg-type]  # pytest's own is a SubRequest
            fixturedef.cached_result = (None, key, (ended, error.__traceback__))
            raise ended from None
