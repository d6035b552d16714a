"""This process's part in a run of pytest-xdist: alone, its controller, or one of its workers.

Workers measure and write down; the controller, which runs no test, puts together what they
wrote. What a worker has finished is on disk at once, so none of it is lost with its worker.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_joules import record
from pytest_joules.digest import Digest
from pytest_joules.errors import JoulesError
from pytest_joules.gate.calibration import Calibration
from pytest_joules.ledger import Ledger, Taken
from pytest_joules.options.frozen import Options
from pytest_joules.point import Point
from pytest_joules.record import FOLDER, resume, session_name
from pytest_joules.record.costs import costs_of
from pytest_joules.record.recorder import Recorder
from pytest_joules.record.verdicts import told
from pytest_joules.run.collection import server_groups
from pytest_joules.session import JoulesSession

_INPUT = _OUTPUT = "joules"
"""Name of what the controller gives its workers, and of what they give back at their end."""

Report = pytest.TestReport | pytest.CollectReport

_THIS_MACHINE = "popen"
"""Kind of worker that shares this machine's files, and so its leases and results."""


def is_worker(config: pytest.Config) -> bool:
    """Tell whether pytest-xdist started this process."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Tell whether workers of pytest-xdist run this run's tests."""
    given = config.option
    distributes = getattr(given, "dist", "no") != "no" and bool(getattr(given, "tx", None))
    return distributes and not is_worker(config) and not given.collectonly


def resolved(config: pytest.Config, chosen: Options) -> Options:
    """Name the session to go on with, where one is asked for: to all workers the same.

    Raises:
        ConfigurationError: There is none, it ended, or it still runs.
    """
    if not is_worker(config):
        return resume.resolved(chosen, config.rootpath)
    given = config.workerinput.get(_INPUT, {})  # type: ignore[attr-defined]  # pytest-xdist's
    return replace(chosen, resume=given.get("resume", ""))


@dataclass(kw_only=True)
class Team:
    """Where the run's processes meet."""

    session: Path
    """Folder of the stored session; one for all workers."""

    is_stored: bool
    """Whether it stays: results that cost no launch are not worth keeping."""

    worker: str = ""
    """This worker's name; empty for all others."""

    is_controller: bool = False
    shared: Path | None = None
    """Private folder that lasts as long as the run; ``None`` without workers."""

    lost: dict[str, str] = field(default_factory=dict)
    """Workers that died, and how."""

    resumes: str = ""
    """Name of the interrupted session that is gone on with."""

    taken: Taken | None = None
    """What it left, once all workers have agreed that it is theirs."""

    unfinished: str = ""
    """Why a worker left something undone."""

    unstored: dict[str, str] = field(default_factory=dict)
    """Workers that could not write all down, and why."""

    _kept: ExitStack = field(default_factory=ExitStack)
    """What ends with the run."""

    _recorder: Recorder | None = None

    @classmethod
    def of(cls, config: pytest.Config, *, is_stored: bool, resumes: str = "") -> "Team":
        """Find this process's part.

        Raises:
            ConfigurationError: Another run is going on with the same session.
            pytest.UsageError: The workers could not lease this machine's GPUs, or would all
                run all tests.
        """
        name = session_name(datetime.now(UTC))
        if is_worker(config):
            return cls._of_worker(config, is_stored=is_stored)
        if not is_controller(config):
            return cls(session=config.rootpath / FOLDER / name, is_stored=is_stored)
        _require_local(config)
        kept = ExitStack()
        config.add_cleanup(kept.close)
        if resumes:  # workers read it, those as well that replace a lost one
            kept.enter_context(resume.held(config.rootpath / FOLDER / resumes))
        shared = Path(kept.enter_context(_temporary()))
        root = config.rootpath if is_stored else shared
        _require_writable(root / FOLDER)
        return cls(
            session=root / FOLDER / name,
            is_stored=is_stored,
            is_controller=True,
            shared=shared,
            resumes=resumes,
            _kept=kept,
        )

    @classmethod
    def _of_worker(cls, config: pytest.Config, *, is_stored: bool) -> "Team":
        given = config.workerinput  # type: ignore[attr-defined]  # pytest-xdist's
        if _INPUT not in given:
            raise pytest.UsageError(
                "pytest-joules: this worker of pytest-xdist has energy tests, but its "
                "controller has no GPU named. Name it for both, on the command line (--gpu) "
                "or in [tool.pytest-joules]."
            )
        return cls(
            session=Path(given[_INPUT]["session"]),
            is_stored=is_stored,
            worker=given["workerid"],
            shared=Path(given[_INPUT]["shared"]),
        )

    def recorder(self, settings: Mapping[str, object], keep: int) -> Recorder | None:
        """Return who writes results down; ``None`` where nobody would read them."""
        if not self.is_stored and self.shared is None:
            return None
        self._recorder = Recorder(
            folder=self.session, settings=settings, keep=keep, part=self.worker
        )
        return self._recorder

    def give(self, node: Any) -> None:
        """Tell a worker that is about to start where to write, and what to go on with."""
        node.workerinput[_INPUT] = {
            "session": str(self.session),
            "shared": str(self.shared),
            "resume": self.resumes,
        }

    def begin(self, session: JoulesSession, asked: Mapping[str, Sequence[Point]]) -> None:
        """Go on where an interrupted session stopped, then tell that tests may run.

        Raises:
            ConfigurationError: It was asked something else, or measured with something else.
            FormatError: It is broken, or what it left cannot be written.
        """
        if self._recorder is not None and not session.options.plan:
            resume.begin(session, self._recorder)
        self.tell_groups(asked)

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
        if self.is_controller and self._recorder is not None:
            self._recorder.join()

    def lose(self, node: Any, error: object) -> None:
        """Remember that a worker is gone, if it did not end by itself, and what it left."""
        told = getattr(node, "workeroutput", None) or {}
        ours = told.get(_OUTPUT, {})
        self.unfinished = ours.get("unfinished") or self.unfinished
        if ours.get("trouble"):
            self.unstored[node.gateway.id] = ours["trouble"]
        if error:
            self.lost[node.gateway.id] = str(error)

    def end(self, config: pytest.Config, session: JoulesSession, exit_code: int) -> str:
        """Say why something was left undone, in a worker to the controller as well."""
        left = resume.unfinished(session, exit_code) or self.unfinished
        if self.worker:
            trouble = self._recorder.trouble if self._recorder else ""
            told = {"unfinished": left, "trouble": trouble}
            config.workeroutput[_OUTPUT] = told  # type: ignore[attr-defined]  # pytest-xdist's
        return left or ("a worker died" if self.lost else "")

    def tell_groups(self, asked: Mapping[str, Sequence[Point]]) -> None:
        """Tell the controller which tests share a server, before it hands any out."""
        if self.worker and self.shared is not None:
            path = self.shared / f"groups-{self.worker}.json"
            path.write_text(json.dumps(server_groups(asked)), encoding="utf-8")

    def groups(self) -> dict[str, str]:
        """Return the tests that share a server, as the workers rehearsed them: all the same."""
        found: dict[str, str] = {}
        for path in self._told().values():
            found = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _told(self) -> dict[str, Path]:
        """Return what each worker has told so far, by its name."""
        assert self.shared is not None
        paths = sorted(self.shared.glob("groups-*.json"))
        return {path.stem.removeprefix("groups-"): path for path in paths}

    def losses(self) -> list[str]:
        """Say which workers died, and what of theirs is known."""
        return [
            f"note: worker {name} died ({how}); what it had finished is in the table, the GPU "
            "minutes of the launch that it was in are not"
            for name, how in self.lost.items()
        ]

    def gaps(self) -> list[str]:
        """Say which workers' results are missing in all that the controller tells."""
        return [
            f"results of worker {name} are missing here and in all files: {why}"
            for name, why in self.unstored.items()
        ]

    def close(self) -> None:
        """Remove what does not stay."""
        self._kept.close()


def gathered(folder: Path, taken: Taken | None = None) -> tuple[Digest, Ledger]:
    """Put together what all workers of a run have found out, the lost ones included.

    Args:
        folder: Where they wrote it down.
        taken: What they had taken over before, which stands there as well.

    Raises:
        FormatError: What they wrote cannot be read.
    """
    ledger = Ledger(taken=taken)
    if not record.is_session(folder):
        return Digest(), ledger
    ledger.results = record.results_of(folder)
    for *_, judgements in told(folder):
        for each in judgements:
            point = each.comparison.point
            ledger.comparisons[point] = each.comparison
            ledger.alphas[point] = each.case.design(point).alpha
    for cost in costs_of(folder):
        ledger.num_launches += cost["num_launches"]
        ledger.spent_gpu_s += cost["spent_gpu_s"] or 0.0
        for point, values in cost.get("calibrations", ()):
            ledger.calibrations[Point.from_json(point)] = Calibration.from_json(values)
    digest = replace(
        record.digest_of(folder),
        num_launches=ledger.num_launches,
        spent_gpu_s=ledger.spent_gpu_s,
    )
    return digest, ledger


class Hooks:
    """Hooks of pytest and pytest-xdist that a run with energy tests needs."""

    def __init__(
        self, team: Team, session: JoulesSession, hear: Callable[[Report], None]
    ) -> None:
        self._team = team
        self._session = session
        self._hear = hear
        self._collected: dict[str, tuple[str, ...]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._hear(report)
        self._team.join()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._hear(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        self._team.give(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        self._team.lose(node, error)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> object:
        from pytest_joules.run.scheduling import ServerScheduling  # noqa: PLC0415  needs xdist

        return ServerScheduling(config, log, self._team.groups)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        from xdist.workermanage import parse_tx_spec_config  # noqa: PLC0415  optional

        self._collected[node.gateway.id] = tuple(ids)
        is_last = len(self._collected) == len(parse_tx_spec_config(node.config))
        if is_last and len({*self._collected.values()}) == 1:  # else xdist runs no test
            self._team.ready(self._session, list(self._collected))


def stay_alone(config: pytest.Config) -> None:
    """Start no workers of pytest-xdist, where there is nothing for them to do."""
    if is_controller(config):
        config.option.dist, config.option.tx = "no", []


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


def _is_local(spec: str) -> bool:
    """Tell whether a worker shares this machine's files.

    >>> [_is_local(each) for each in ("2*popen//python=python3.12", "ssh=popen", "socket=x:1")]
    [True, False, False]
    """
    parts = spec.rpartition("*")[2].split("//")
    elsewhere = ("ssh=", "socket=", "vagrant_ssh=", "via=")
    return _THIS_MACHINE in parts and not any(part.startswith(elsewhere) for part in parts)


def _require_local(config: pytest.Config) -> None:
    if config.option.dist == "each":
        raise pytest.UsageError(
            "pytest-joules: with --dist=each every worker would measure every test. Use "
            "another --dist, or leave it out: tests of one server stay together by themselves."
        )
    others = [spec for spec in config.option.tx if not _is_local(spec)]
    if others:
        raise pytest.UsageError(
            f"pytest-joules: --tx={others[0]} may be another machine, whose GPUs cannot be "
            "leased from here. Use workers of this machine (-n, --tx=popen)."
        )
