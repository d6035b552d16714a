"""Collected tests: their order, and their errors as pytest shows them."""

from collections.abc import Mapping, Sequence

import pytest

from pytest_joules.plan import server_key
from pytest_joules.point import Point


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
    """Let pytest count and show an error as one of collection."""
    report = CollectReport(
        nodeid=item.nodeid,
        outcome="failed",
        longrepr=f"{type(error).__name__}: {error}",
        result=[],
    )
    session.config.hook.pytest_collectreport(report=report)
