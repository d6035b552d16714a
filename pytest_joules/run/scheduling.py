"""Which worker of pytest-xdist gets which tests; loaded where xdist is, which is optional.

Tests that share a server stay together, so that a sweep costs one start however many workers
there are. The rest is distributed as ``--dist`` says.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from xdist.scheduler import (
    LoadFileScheduling,
    LoadGroupScheduling,
    LoadScopeScheduling,
)

from pytest_joules.run.collection import Joined

Groups = Mapping[str, str]
"""The group of each test that needs a server, by its id; see ``collection.server_groups``."""

_BEGINS = 2
"""Tests that a worker must have been told for the first of them to begin."""

_SCOPES = {
    "loadfile": LoadFileScheduling,
    "loadgroup": LoadGroupScheduling,
    "loadscope": LoadScopeScheduling,
}


class ServerScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is optional
    """Hands out whole groups of tests."""

    def __init__(self, config: pytest.Config, log: Any, groups: Callable[[], Groups]) -> None:
        super().__init__(config, log)
        self._groups = groups
        self._scopes: Mapping[str, str] = {}

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Take a worker's tests; all workers have the same, or xdist refuses to begin."""
        if not self._scopes:
            kind = _SCOPES.get(self.config.option.dist)
            other = (lambda test: kind._split_scope(self, test)) if kind else None  # noqa: SLF001  xdist's own hook
            self._scopes = scopes(collection, self._groups(), other)
        super().add_node_collection(node, collection)

    def remove_node(self, node: Any) -> str | None:
        """Take back what a worker left that ended; return the test that it died in, if any.

        That test is not run again: it would take the next worker with it. xdist's own
        method would also hand out what is done already, which nobody would ever report.
        """
        left = {
            name: unit for name, unit in self.assigned_work.pop(node).items() if open_(unit)
        }
        crashed = next((test for unit in left.values() for test in open_(unit)), None)
        if crashed is None:
            return None
        left[self._split_scope(crashed)][crashed] = True
        self.workqueue.update({name: unit for name, unit in left.items() if open_(unit)})
        for other in self.nodes:
            self._reschedule(other)
        return crashed

    def _reschedule(self, node: Any) -> None:
        # A worker begins a test when it knows the next one, or that there is none: with one
        # alone it would wait for ever.
        while self.workqueue and not node.shutting_down and self._pending(node) < _BEGINS:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()

    def _pending(self, node: Any) -> int:
        return sum(len(open_(unit)) for unit in self.assigned_work[node].values())

    def _split_scope(self, nodeid: str) -> str:
        return self._scopes.get(nodeid, nodeid)


def open_(unit: Mapping[str, bool]) -> list[str]:
    """Return the tests of a group that are not done, in order."""
    return [test for test, is_done in unit.items() if not is_done]


def scopes(
    tests: Sequence[str], groups: Groups, other: Callable[[str], str] | None = None
) -> dict[str, str]:
    """Return for each test the name of those that it must run with.

    Args:
        tests: Ids of all tests.
        groups: Those that need a server, with its name.
        other: A further reason to stay together, as ``--dist=loadfile`` gives one.
    """
    found: Joined[tuple[str, str]] = Joined()
    for test in tests:
        if test in groups:
            found.join(("test", test), ("server", groups[test]))
        if other is not None:
            found.join(("test", test), ("scope", other(test)))
    return {test: " ".join(found.root(("test", test))) for test in tests}
