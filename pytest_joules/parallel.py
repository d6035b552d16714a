"""This process's part in a run of pytest-xdist: alone, its controller, or one of its workers.

Workers measure and write down; the controller, which runs no test, puts together what they
wrote. What a worker has finished is on disk at once, so none of it is lost with its worker.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_joules import record
from pytest_joules.collection import server_groups
from pytest_joules.digest import Digest
from pytest_joules.gate.calibration import Calibration
from pytest_joules.ledger import Ledger
from pytest_joules.parts import parts
from pytest_joules.point import Point
from pytest_joules.record import FOLDER, session_name
from pytest_joules.recorder import Recorder

_INPUT = "joules"
"""Name of what the controller gives its workers."""

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

    _made: "tempfile.TemporaryDirectory[str] | None" = None

    @classmethod
    def of(cls, config: pytest.Config, *, is_stored: bool) -> "Team":
        """Find this process's part.

        Raises:
            pytest.UsageError: The workers could not lease this machine's GPUs, or would all
                run all tests.
        """
        name = session_name(datetime.now(UTC))
        if is_worker(config):
            return cls._of_worker(config, is_stored=is_stored)
        if not is_controller(config):
            return cls(session=config.rootpath / FOLDER / name, is_stored=is_stored)
        _require_local(config)
        made = tempfile.TemporaryDirectory(prefix="joules-workers-", ignore_cleanup_errors=True)
        shared = Path(made.name)
        root = config.rootpath if is_stored else shared
        return cls(
            session=root / FOLDER / name,
            is_stored=is_stored,
            is_controller=True,
            shared=shared,
            _made=made,
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
        return Recorder(folder=self.session, settings=settings, keep=keep, part=self.worker)

    def give(self, node: Any) -> None:
        """Tell a worker that is about to start where to write."""
        node.workerinput[_INPUT] = {"session": str(self.session), "shared": str(self.shared)}

    def lose(self, node: Any, error: object) -> None:
        """Remember that a worker is gone, if it did not end by itself."""
        if error:
            self.lost[node.gateway.id] = str(error)

    def tell_groups(self, asked: Mapping[str, Sequence[Point]]) -> None:
        """Tell the controller which tests share a server, before it hands any out."""
        if self.worker and self.shared is not None:
            path = self.shared / f"groups-{self.worker}.json"
            path.write_text(json.dumps(server_groups(asked)), encoding="utf-8")

    def groups(self) -> dict[str, str]:
        """Return the tests that share a server, as the workers rehearsed them: all the same."""
        assert self.shared is not None
        found: dict[str, str] = {}
        for path in sorted(self.shared.glob("groups-*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
        return found

    def losses(self) -> list[str]:
        """Say which workers died, and what of theirs is known."""
        return [
            f"note: worker {name} died ({how}); what it had finished is in the table, the GPU "
            "minutes of the launch that it was in are not"
            for name, how in self.lost.items()
        ]

    def close(self) -> None:
        """Remove what does not stay."""
        if self._made is not None:
            self._made.cleanup()


def gathered(folder: Path) -> tuple[Digest, Ledger]:
    """Put together what all workers of a run have found out, the lost ones included.

    Raises:
        FormatError: What they wrote cannot be read.
    """
    ledger = Ledger()
    if not record.is_session(folder):
        return Digest(), ledger
    ledger.results = record.results_of(folder)
    for part, (results, _, judgements) in zip(parts(folder), record.told(folder), strict=True):
        for each in judgements:
            point = each.comparison.point
            ledger.comparisons[point] = each.comparison
            ledger.alphas[point] = each.case.design(point).alpha
        cost = record.cost_of(folder, part)
        ledger.num_launches += cost.get("num_launches", record.num_launches(results))
        ledger.spent_gpu_s += cost.get("spent_gpu_s", 0.0)
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

    def __init__(self, team: Team, hear: Callable[[Report], None]) -> None:
        self._team = team
        self._hear = hear

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._hear(report)

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
        from pytest_joules.scheduling import ServerScheduling  # noqa: PLC0415  needs xdist

        return ServerScheduling(config, log, self._team.groups)


def stay_alone(config: pytest.Config) -> None:
    """Start no workers of pytest-xdist, where there is nothing for them to do."""
    if is_controller(config):
        config.option.dist, config.option.tx = "no", []


def _require_local(config: pytest.Config) -> None:
    if config.option.dist == "each":
        raise pytest.UsageError(
            "pytest-joules: with --dist=each every worker would measure every test. Use "
            "another --dist, or leave it out: tests of one server stay together by themselves."
        )
    others = [spec for spec in config.option.tx if _THIS_MACHINE not in spec]
    if others:
        raise pytest.UsageError(
            f"pytest-joules: --tx={others[0]} may be another machine, whose GPUs cannot be "
            "leased from here. Use workers of this machine (-n, --tx=popen)."
        )
