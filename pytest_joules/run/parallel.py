"""Finds this process's part in a run of pytest-xdist, and lets it hear what it needs.

Workers measure and write down; the controller, which runs no test, puts together what they
wrote.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pytest_joules.options.frozen import Options
from pytest_joules.record import FOLDER, known_sessions, resume
from pytest_joules.record.names import session_name
from pytest_joules.run.controller import Controller
from pytest_joules.run.part import Part, Worker
from pytest_joules.run.workers import given_to, is_controller, is_worker
from pytest_joules.session import JoulesSession

Report = pytest.TestReport | pytest.CollectReport


def resolved(config: pytest.Config, chosen: Options) -> Options:
    """Name the session to go on with, where one is asked for: to all workers the same.

    Raises:
        ConfigurationError: There is none, it ended, or it still runs.
    """
    if not is_worker(config):
        return resume.resolved(chosen, config.rootpath)
    return replace(chosen, resume=given_to(config).get("resume", ""))


def part_of(config: pytest.Config, *, is_stored: bool, resumes: str) -> Part:
    """Find this process's part.

    Args:
        config: Of the run.
        is_stored: Whether its session stays: results that cost no launch are not worth keeping.
        resumes: Name of the interrupted session that is gone on with; empty: of none.

    Raises:
        ConfigurationError: As ``Controller.of``.
        pytest.UsageError: As ``Controller.of`` and ``Worker.of``.
    """
    if is_worker(config):
        return Worker.of(config)
    stored = known_sessions(config.rootpath)
    name = session_name(datetime.now(UTC), [each.name for each in stored])
    if is_controller(config):
        return Controller.of(config, name=name, is_stored=is_stored, resumes=resumes)
    return Part(session=config.rootpath / FOLDER / name, is_written=is_stored)


def hooks_of(part: Part, session: JoulesSession, hear: Callable[[Report], None]) -> "Hooks":
    """Return the hooks that a process needs for its part."""
    return ControllerHooks(part, session, hear) if isinstance(part, Controller) else Hooks(hear)


class Hooks:
    """Hooks of pytest that a run with energy tests needs."""

    def __init__(self, hear: Callable[[Report], None]) -> None:
        self._hear = hear

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._hear(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._hear(report)


class ControllerHooks(Hooks):
    """And those of pytest-xdist."""

    def __init__(
        self, controller: Controller, session: JoulesSession, hear: Callable[[Report], None]
    ) -> None:
        super().__init__(hear)
        self._controller = controller
        self._session = session
        self._collected: dict[str, tuple[str, ...]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        super().pytest_runtest_logreport(report)
        self._controller.join()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        self._controller.give(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        self._controller.lose(node, error)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        from pytest_joules.run.scheduling import ServerScheduling  # noqa: PLC0415  needs xdist

        return ServerScheduling(config, log, self._controller.groups)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        from xdist.workermanage import parse_tx_spec_config  # noqa: PLC0415  optional

        self._collected[node.gateway.id] = tuple(ids)
        is_last = len(self._collected) == len(parse_tx_spec_config(node.config))
        if is_last and len({*self._collected.values()}) == 1:  # else xdist runs no test
            self._controller.ready(self._session, list(self._collected))
