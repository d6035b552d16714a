"""Which worker of pytest-xdist gets which tests; the only module that imports xdist.

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

from pytest_joules.collection import Joined

Groups = Mapping[str, str]
"""The group of each test that needs a server, by its id; see ``collection.server_groups``."""

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

    def _split_scope(self, nodeid: str) -> str:
        return self._scopes.get(nodeid, nodeid)


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
