"""Where progress goes in a pytest run: a status line on a terminal, plain lines in a log.

pytest captures standard output while tests run and has its own idea of the current line, so
lines go through its reporter with capture suspended, and the status line goes to a copy of
the terminal and is gone before pytest writes again.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from pytest_joules.budget import expected_costs
from pytest_joules.plan import server_key
from pytest_joules.point import Point
from pytest_joules.progress import Event, LaunchBegins, LaunchEnds, LeaseEnds, LeaseWaits
from pytest_joules.report.fleet_waiting import FleetWaiting
from pytest_joules.report.waiting import Session, Waiting
from pytest_joules.run.workers import is_worker, worker_name
from pytest_joules.session import JoulesSession

if TYPE_CHECKING:  # only a terminal needs it
    from rich.live import Live
    from rich.text import Text

_SILENT = -2
"""Verbosity (``-qq``) from which nothing is told."""


class Screen:
    """Hears of one session's launches and shows them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._session: JoulesSession | None = None
        self._waiting = Waiting(session=self._facts)
        self._fleet = FleetWaiting(session=self._facts)
        self._seen: set[Point] = set()
        self._live: Live | None = None
        self._terminal: io.TextIOWrapper | None = None

    def watch(self, session: JoulesSession) -> None:
        """Take the session whose launches are heard of."""
        self._session = session

    def hear(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, LaunchBegins):
            self._seen.add(server_key(event.launch.largest))
        line = self._waiting.hear(event)
        if line and is_worker(self._config):
            self._write_beside(line)
        reporter = self._reporter()
        if reporter is None:
            return
        if _is_terminal(reporter):
            self._show(event, reporter)
        else:
            self.write(line)

    def hear_from(self, node: str, key: Point, event: Event) -> None:
        """Show an event of a fleet's node."""
        if isinstance(event, LaunchBegins):
            self._seen.add(key)
        self.write(self._fleet.hear(node, key, event))

    def write(self, line: str) -> None:
        """Show a line, if there is one and anybody wants to read."""
        reporter = self._reporter()
        if reporter is not None and line:
            with self._uncaptured():
                reporter.write_line(line)
                reporter.flush()

    def _write_beside(self, line: str) -> None:
        """Write a worker's line: pytest-xdist leaves it the controller's standard error."""
        if self._config.option.verbose > _SILENT:
            with self._uncaptured():
                os.write(2, f"[{worker_name(self._config)}] {line}\n".encode(errors="replace"))

    def _reporter(self) -> pytest.TerminalReporter | None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        return None if reporter is None or reporter.verbosity <= _SILENT else reporter

    def _facts(self) -> Session:
        assert self._session is not None
        options, ledger = self._session.options, self._session.ledger
        servers = {server_key(point) for point in ledger.wishes}
        to_come = len(servers - self._seen)
        if options.records:
            to_come = max(0, options.num_launches * len(servers) - ledger.num_launches)
        return Session(
            budget_gpu_minutes=options.budget,
            num_launches=ledger.num_launches,
            spent_gpu_s=ledger.spent_gpu_s,
            to_come=to_come,
            is_least=bool(self._session.referee.tolerances) and not options.records,
            costs=expected_costs(options.window),
        )

    def _show(self, event: Event, reporter: pytest.TerminalReporter) -> None:
        if isinstance(event, LaunchBegins | LeaseWaits):
            self._stop()
            with self._uncaptured():
                reporter.ensure_newline()
                reporter.flush()
                self._live = self._started()
        elif isinstance(event, LaunchEnds | LeaseEnds):
            self._stop()

    def _started(self) -> "Live":
        from rich.console import Console  # noqa: PLC0415  only a terminal needs it
        from rich.live import Live  # noqa: PLC0415

        # A copy: while a test runs, standard output itself leads into pytest's capture.
        self._terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
        live = Live(
            console=Console(file=self._terminal, force_terminal=True),
            get_renderable=self._status,
            refresh_per_second=1,  # the machine is being measured
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start(refresh=True)
        return live

    def _status(self) -> "Text":
        from rich.text import Text  # noqa: PLC0415  only a terminal needs it

        assert self._session is not None
        now_s = self._session.source.clock()
        return Text(self._waiting.now(now_s), no_wrap=True, overflow="ellipsis")

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            yield


def _is_terminal(reporter: pytest.TerminalReporter) -> bool:
    return bool(reporter.isatty) and os.environ.get("TERM", "dumb") != "dumb"
