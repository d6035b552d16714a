"""A process's part in its run: alone it does all, a worker of pytest-xdist what it is given.

What a worker has finished is on disk at once, so none of it is lost with its worker.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_joules.point import Point
from pytest_joules.record import resume
from pytest_joules.record.recorder import Recorder
from pytest_joules.run.collection import server_groups
from pytest_joules.run.workers import KEY, given_to, worker_name
from pytest_joules.session import JoulesSession


@dataclass(kw_only=True)
class Part:
    """What a process does that runs all tests by itself, and the others as well."""

    session: Path
    """Folder of the stored session; one for all workers."""

    is_written: bool = True
    """Whether anybody would read it: what costs no launch is not worth keeping, but workers
    tell their controller by it."""

    worker: str = ""
    """This worker's name; empty for all others."""

    _recorder: Recorder | None = None

    def recorder(self, settings: Mapping[str, object], keep: int) -> Recorder | None:
        """Return who writes results down; ``None`` where nobody would read them."""
        if not self.is_written:
            return None
        self._recorder = Recorder(
            folder=self.session, settings=settings, keep=keep, part=self.worker
        )
        return self._recorder

    def begin(self, session: JoulesSession, asked: Mapping[str, Sequence[Point]]) -> None:
        """Go on where an interrupted session stopped.

        Args:
            session: What measures.
            asked: The points of each test.

        Raises:
            ConfigurationError: It was asked something else, or measured with something else.
            FormatError: It is broken, or what it left cannot be written.
        """
        del asked  # only a controller wants to hear of them
        if self._recorder is not None and not session.options.plan:
            resume.begin(session, self._recorder)

    def end(self, session: JoulesSession, exit_code: int) -> str:
        """Say why something was left undone; empty where nothing was."""
        return resume.unfinished(session, exit_code)

    def losses(self) -> list[str]:
        """Say which workers died, and what of theirs is known."""
        return []


@dataclass(kw_only=True)
class Worker(Part):
    """What a worker does, beside what it does alone: it tells its controller."""

    shared: Path
    """Private folder that lasts as long as the run."""

    _config: pytest.Config

    @classmethod
    def of(cls, config: pytest.Config) -> "Worker":
        """Take the part that the controller gave.

        Raises:
            pytest.UsageError: It gave none.
        """
        given = given_to(config)
        if not given:
            raise pytest.UsageError(
                "pytest-joules: this worker of pytest-xdist has energy tests, but its "
                "controller has no GPU named. Name it for both, on the command line (--gpu) "
                "or in [tool.pytest-joules]."
            )
        return cls(
            session=Path(given["session"]),
            worker=worker_name(config),
            shared=Path(given["shared"]),
            _config=config,
        )

    def begin(self, session: JoulesSession, asked: Mapping[str, Sequence[Point]]) -> None:
        """Tell as well which tests share a server, before the controller hands any out."""
        super().begin(session, asked)
        path = self.shared / f"groups-{self.worker}.json"
        path.write_text(json.dumps(server_groups(asked)), encoding="utf-8")

    def end(self, session: JoulesSession, exit_code: int) -> str:
        """Tell the controller as well why something was left undone, or not written."""
        left = super().end(session, exit_code)
        trouble = self._recorder.trouble if self._recorder else ""
        told = {"unfinished": left, "trouble": trouble}
        self._config.workeroutput[KEY] = told  # type: ignore[attr-defined]  # pytest-xdist's
        return left
