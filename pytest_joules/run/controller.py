"""The controller's part in a run of pytest-xdist: it runs no test, and hears of its workers.

It puts together what they wrote, those as well that were lost.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_joules.errors import JoulesError
from pytest_joules.ledger import Taken
from pytest_joules.record import FOLDER, resume
from pytest_joules.run.part import Part
from pytest_joules.run.workers import KEY, require_local
from pytest_joules.session import JoulesSession


@dataclass(kw_only=True)
class Controller(Part):
    """What the process does that hands tests out to workers."""

    shared: Path
    """Private folder that lasts as long as the run."""

    resumes: str
    """Name of the interrupted session that is gone on with."""

    taken: Taken | None = None
    """What it left, once all workers have agreed that it is theirs."""

    _lost: dict[str, str] = field(default_factory=dict)
    """Workers that died, and how."""

    _unfinished: str = ""
    """Why a worker left something undone."""

    _unstored: dict[str, str] = field(default_factory=dict)
    """Workers that could not write all down, and why."""

    _kept: ExitStack
    """What ends with the run."""

    @classmethod
    def of(
        cls, config: pytest.Config, *, name: str, is_stored: bool, resumes: str
    ) -> "Controller":
        """Make room where workers and controller meet.

        Args:
            config: Of the run.
            name: Of its session.
            is_stored: Whether the session stays.
            resumes: Name of the interrupted session that it goes on with; empty: of none.

        Raises:
            ConfigurationError: Another run is going on with the same session.
            pytest.UsageError: The workers could not lease this machine's GPUs, or would all
                run all tests; or there is no room.
        """
        require_local(config)
        kept = ExitStack()
        config.add_cleanup(kept.close)
        if resumes:  # workers read it, those as well that replace a lost one
            kept.enter_context(resume.held(config.rootpath / FOLDER / resumes))
        shared = Path(kept.enter_context(_temporary()))
        root = config.rootpath if is_stored else shared
        _require_writable(root / FOLDER)
        return cls(session=root / FOLDER / name, shared=shared, resumes=resumes, _kept=kept)

    def give(self, node: Any) -> None:
        """Tell a worker that is about to start where to write, and what to go on with."""
        node.workerinput[KEY] = {
            "session": str(self.session),
            "shared": str(self.shared),
            "resume": self.resumes,
        }

    def ready(self, session: JoulesSession, workers: Sequence[str]) -> None:
        """Take over for all workers, once all have begun, none has refused, and no test runs.

        Raises:
            pytest.UsageError: What was left cannot be read or written.
        """
        if not self.resumes or not {*workers} <= {*self._told()} or self._recorder is None:
            return
        try:
            self.taken = resume.hand_over(session, self._recorder)
        except JoulesError as error:
            raise pytest.UsageError(f"pytest-joules: {error}") from None

    def join(self) -> None:
        """Keep the session of workers alive for as long as their controller is."""
        if self._recorder is not None:
            self._recorder.join()

    def lose(self, node: Any, error: object) -> None:
        """Remember that a worker is gone, if it did not end by itself, and what it left."""
        told = getattr(node, "workeroutput", None) or {}
        ours = told.get(KEY, {})
        self._unfinished = ours.get("unfinished") or self._unfinished
        if ours.get("trouble"):
            self._unstored[node.gateway.id] = ours["trouble"]
        if error:
            self._lost[node.gateway.id] = str(error)

    def end(self, session: JoulesSession, exit_code: int) -> str:
        left = super().end(session, exit_code) or self._unfinished
        return left or ("a worker died" if self._lost else "")

    def groups(self) -> dict[str, str]:
        """Return the tests that share a server, as the workers rehearsed them: all the same."""
        found: dict[str, str] = {}
        for path in self._told().values():
            found = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _told(self) -> dict[str, Path]:
        """Return what each worker has told so far, by its name."""
        paths = sorted(self.shared.glob("groups-*.json"))
        return {path.stem.removeprefix("groups-"): path for path in paths}

    def losses(self) -> list[str]:
        return [
            f"note: worker {name} died ({how}); what it had finished is in the table, the GPU "
            "minutes of the launch that it was in are not"
            for name, how in self._lost.items()
        ]

    def gaps(self) -> list[str]:
        """Say which workers' results are missing in all that the controller tells."""
        return [
            f"results of worker {name} are missing here and in all files: {why}"
            for name, why in self._unstored.items()
        ]

    def close(self) -> None:
        """Remove what does not stay."""
        self._kept.close()


def _temporary() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="joules-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        raise pytest.UsageError(
            f"pytest-joules: {tempfile.gettempdir()}: workers of pytest-xdist cannot meet "
            f"there: {error}. Make room, or name a folder that can be written (TMPDIR)."
        ) from None


def _require_writable(folder: Path) -> None:
    """Refuse a place for results that is none, before GPU minutes are spent on them."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise pytest.UsageError(
            f"pytest-joules: {there} cannot be written, and what workers of pytest-xdist "
            f"measure goes through {folder}. Run pytest where it may write, or without -n."
        )
