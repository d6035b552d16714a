"""Collected tests: their order, and their errors as pytest shows them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Generic, TypeVar

import pytest

from pytest_joules.digest import Failed
from pytest_joules.errors import Inconclusive, InvalidMeasurement
from pytest_joules.hiding import told
from pytest_joules.plan import server_key
from pytest_joules.point import Point

FAILED = "joules_failed"
"""What a report carries of a failed energy test: from workers of pytest-xdist, too."""

UNDECIDED = (Inconclusive, InvalidMeasurement)


def failed(item: pytest.Item, error: BaseException) -> Failed:
    """Return what outputs tell of a test that failed."""
    file, line, _ = item.location
    return Failed(
        test=item.nodeid,
        file=file,
        line=(line or 0) + 1,
        kind=type(error).__name__,
        text=told(str(error)),  # of any library: ours hide theirs themselves
        is_undecided=isinstance(error, UNDECIDED),
    )


def grouped(
    items: Sequence[pytest.Item], points: Mapping[pytest.Item, Point]
) -> list[pytest.Item]:
    """Bring tests of one server together, at the place of the first of them."""
    mates: dict[Point, list[pytest.Item]] = {}
    for item in items:
        if item in points:
            mates.setdefault(server_key(points[item]), []).append(item)
    ordered: list[pytest.Item] = []
    for item in items:
        ordered += mates.pop(server_key(points[item]), []) if item in points else [item]
    return ordered


def server_groups(asked: Mapping[str, Sequence[Point]]) -> dict[str, str]:
    """Return a name for each test, the same for those that share a server.

    Args:
        asked: The points of each test, by its id; several servers make one group of theirs.
    """
    found: Joined[str | Point] = Joined()
    for test, points in asked.items():
        for point in points:
            found.join(server_key(point), test)
    roots = {test: found.root(test) for test in asked}
    numbers = {root: str(n) for n, root in enumerate(dict.fromkeys(roots.values()))}
    return {test: numbers[root] for test, root in roots.items()}


T = TypeVar("T", bound=Hashable)


class Joined(Generic[T]):
    """Things that were joined, directly or through others."""

    def __init__(self) -> None:
        self._above: dict[T, T] = {}

    def root(self, thing: T) -> T:
        """Return the same one for all that were joined."""
        above = self._above.setdefault(thing, thing)
        while above != thing:
            thing, above = above, self._above[above]
        return thing

    def join(self, one: T, other: T) -> None:
        """Join two, and with them all that either was joined with."""
        self._above[self.root(other)] = self.root(one)


class CollectReport(pytest.CollectReport):  # type: ignore[misc]  # no other way to a heading
    """A collection error of one test: pytest's heading would name its file only.

    pytest-xdist sends reports by the name of their class, so this one keeps pytest's.
    """

    @property
    def location(self) -> tuple[str, int | None, str]:  # type: ignore[override]  # a property there, too
        return (self.fspath, None, self.nodeid)


def report_collection_error(
    session: pytest.Session, item: pytest.Item, error: BaseException
) -> None:
    """Let pytest count and show an error as one of collection; tell it to the outputs, too."""
    report = CollectReport(
        nodeid=item.nodeid,
        outcome="failed",
        longrepr=f"{type(error).__name__}: {error}",
        result=[],
    )
    setattr(report, FAILED, asdict(failed(item, error)))
    session.config.hook.pytest_collectreport(report=report)
