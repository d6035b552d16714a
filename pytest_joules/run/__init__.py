"""What one pytest run does with energy tests: rehearse, reorder, bench, tell, exit code.

With ``plugin`` and ``options`` this room is all that knows pytest.
"""

import itertools
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, replace

import pytest

from pytest_joules.digest import Digest, Failed, rows_of
from pytest_joules.errors import (
    ConfigurationError,
    JoulesError,
    is_expected,
)
from pytest_joules.options.declared import is_asked
from pytest_joules.options.frozen import Options
from pytest_joules.options.marker import MarkerOptions
from pytest_joules.point import Point
from pytest_joules.record import resume
from pytest_joules.report import terminal, text
from pytest_joules.run import joining
from pytest_joules.run.bench import EnergyBench
from pytest_joules.run.collection import FAILED, failed, grouped, report_collection_error
from pytest_joules.run.controller import Controller
from pytest_joules.run.gathering import gathered
from pytest_joules.run.outputs import Outputs, settings_of
from pytest_joules.run.parallel import hooks_of, part_of, resolved
from pytest_joules.run.pending import RehearsalBench
from pytest_joules.run.refusals import NO_GPU, require_gpu, require_possible
from pytest_joules.run.rehearsal import Rehearsal
from pytest_joules.run.screen import Screen
from pytest_joules.run.workers import is_controller, is_worker, stay_alone
from pytest_joules.sources import Source
from pytest_joules.sources.choice import chosen_source, reference
from pytest_joules.sources.live import LiveSource
from pytest_joules.units import percent
from pytest_joules.verdict import EXIT_UNDECIDED
from pytest_joules.visible import visible

__tracebackhide__ = is_expected

_CUT_SHORT = "stopped by -x or --maxfail; leave that out"
_marker_key = pytest.StashKey[MarkerOptions]()
_bench_key = pytest.StashKey[EnergyBench]()


class Run:
    """The energy side of one pytest run."""

    def __init__(self, config: pytest.Config, chosen: Options, source: Source) -> None:
        self.options = chosen
        screen = Screen(config)
        if isinstance(source, LiveSource) and source.name == "live":
            source = source.saying(screen.hear)  # others are over in a moment
        self._settings = settings_of(chosen, source.name)
        self.part = part_of(config, is_stored=source.launches, resumes=chosen.resume)
        self._recorder = self.part.recorder(self._settings, chosen.keep)
        self.session = joining.session_of(
            chosen, source, screen=screen, listener=self._recorder
        )
        screen.watch(self.session)
        self._config = config
        self._published = reference(chosen)
        # Workers know their own results only.
        self._outputs = Outputs() if self.part.worker else Outputs.chosen(chosen, os.environ)
        self._failed: list[Failed] = []
        self._recorded: set[str] = set()
        self._digested: Digest | None = None
        self._not_written: list[str] = []
        self._unfinished = ""
        self._is_green = False
        self._rehearsal = Rehearsal()
        self._has_header = False

    @classmethod
    def from_pytest(cls, config: pytest.Config) -> "Run":
        """Read the options and choose the source.

        Raises:
            pytest.UsageError: An option is wrong or missing.
        """
        try:
            chosen = resolved(config, Options.from_pytest(config))
            if chosen.plan:
                stay_alone(config)
            source = _hooked(config, chosen) or chosen_source(chosen)
            is_parallel = is_worker(config) or is_controller(config)
            fleet = joining.fleet_of(config, chosen, source, is_parallel=is_parallel)
            run = cls(config, chosen, fleet or source)
            resume.require_possible(run.session)
        except (JoulesError, PermissionError) as error:  # the latter: a place that options name
            raise pytest.UsageError(f"pytest-joules: {error}") from None
        require_possible(chosen, run.session.source, is_asked=is_asked(config))
        hooks = hooks_of(run.part, run.session, run.hear)
        config.pluginmanager.register(hooks, "joules-hooks")
        return run

    def prepare(
        self, session: pytest.Session, items: list[pytest.Item], tests: Sequence[pytest.Item]
    ) -> None:
        """Rehearse the energy tests, so that all points are known, and put servers together."""
        broken: dict[pytest.Item, BaseException] = {
            item: error for item in tests if (error := _marker_error(item))
        }
        asked: dict[pytest.Item, Sequence[Point]] = {}
        if self.session.source.launches and self.options.gpu:
            whole = [item for item in tests if item not in broken]
            for item, following in itertools.zip_longest(whole, whole[1:]):
                found = self._rehearsal.of(item, following)
                if found.refused:
                    broken[item] = found.refused
                if found.points:
                    asked[item] = found.points
        if asked and is_asked(self._config) and not self.options.plan:
            require_gpu(self.options, self.session.source)
        broken.update(self._too_narrow(asked))
        for item, reason in broken.items():
            report_collection_error(session, item, reason)
        try:
            self.part.begin(self.session, {item.nodeid: each for item, each in asked.items()})
        except (JoulesError, OSError) as error:
            raise pytest.UsageError(f"pytest-joules: {error}") from None
        points = {item: each[0] for item, each in asked.items()}
        items[:] = grouped([item for item in items if item not in broken], points)

    def _too_narrow(
        self, asked: Mapping[pytest.Item, Sequence[Point]]
    ) -> dict[pytest.Item, JoulesError]:
        """Find tolerances below the noise; only now is it known how many share the alarms."""
        found: dict[pytest.Item, JoulesError] = {}
        for item, points in asked.items():
            try:
                for point in points:
                    self.session.require_tolerance(point)
            except ConfigurationError as error:
                found[item] = error
        return found

    def call(self) -> Generator[None, object, object]:
        """Let a test's body run; in the rehearsal nothing that it raises gets out."""
        return (yield from self._rehearsal.call()) if self._rehearsal.is_on else (yield)

    def require_measured(self, item: pytest.Item) -> None:
        """Refuse a test that passed with ``energy_bench``, but without a value.

        Raises:
            pytest.fail.Exception: It did.
        """
        if not self._rehearsal.is_on:
            _require_measured(item)

    def set_up(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Let a fixture be set up, in the rehearsal perhaps another."""
        return self._rehearsal.set_up(fixturedef, request)

    def bench(self, item: pytest.Item) -> EnergyBench | RehearsalBench:
        """Return the fixture's value for one test.

        Raises:
            ConfigurationError: No GPU is named, or the test's marker is wrong.
        """
        if not self.options.gpu:
            raise ConfigurationError(NO_GPU)
        if _marker_key not in item.stash:  # not seen at collection: ``getfixturevalue``
            item.stash[_marker_key] = MarkerOptions.from_item(item)
        tolerance = item.stash[_marker_key].tolerance
        if self._rehearsal.is_on:
            hear = self._rehearsal.hear
            return RehearsalBench(self.session, tolerance=tolerance, hear=hear)
        item.stash[_bench_key] = EnergyBench(
            self.session,
            tolerance=tolerance,
            tell=lambda name, value: item.user_properties.append((name, value)),
        )
        return item.stash[_bench_key]

    def header(self) -> list[str]:
        """Return the lines under pytest's own header; nothing the second time."""
        if self._has_header:
            return []
        self._has_header = True
        chosen, source = self.options, self.session.source.name
        stack = self.session.stack.name
        against = f", against {chosen.against}" if chosen.against else ""
        where = f", fleet {chosen.fleet}" if chosen.fleet else ""
        warning = text.UNREAL.get(source, "")
        if chosen.plant:
            planted = ", ".join(chosen.plant)
            warning += f"; planted in stack {stack}: {planted}"
        return [
            (
                f"joules: gpu {chosen.gpu}, source {source}{where}, stack {stack}{against}, "
                f"tolerance {percent(chosen.tolerance).lstrip('+')}{warning}"
            )
        ]

    def show_plan(self, session: pytest.Session) -> bool | None:
        """Print the plan instead of running tests; ``None`` after a collection error."""
        if session.testsfailed:
            return None
        made = self.session.plan()
        most = self.options.num_launches if self.options.records else None
        session.config.hook.pytest_joules_planned(plan=made, num_launches=most)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_sep("=", "energy plan: nothing is launched")
            for line in text.describe_plan(made, num_launches=most):
                reporter.write_line(line)
            for line in joining.makespan(made, self.session.source):
                reporter.write_line(line)
        return True

    def mark(self, item: pytest.Item, report: pytest.TestReport, error: BaseException) -> None:
        """Let a failed test's report carry what outputs tell of it."""
        if self._rehearsal.is_on:
            self._rehearsal.stopped_by(error)
        if bench := item.stash.get(_bench_key, None):
            bench.has_failed = True
        if _marker_key in item.stash or isinstance(error, JoulesError):
            setattr(report, FAILED, asdict(failed(item, error)))

    def hear(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Keep what made a test fail, for the exit code and the outputs."""
        told = getattr(report, FAILED, None)
        if told is not None:
            self._failed.append(Failed(**told))
        self._recorded |= terminal.recorded_in(getattr(report, "user_properties", ()))

    def summarize(self, reporter: pytest.TerminalReporter) -> None:
        """Write the energy section."""
        writer = self._config.get_terminal_writer()
        table = terminal.summary(
            self.session.ledger,
            width=writer.fullwidth if reporter.isatty else None,
            paint=lambda text, verdict: writer.markup(text, **terminal.COLOURS[verdict]),
        )
        incidents = [f"fleet: {visible(each)}" for each in self.session.ledger.incidents]
        if self.options.records and not self.options.plan:
            table += terminal.recorded(self._recorded, self._config.rootpath)
        if self._is_green and not self.options.plan:
            table += terminal.without_result(self.session.ledger)
        lines = [*table, *incidents, *self.part.losses(), *self._not_written]
        if self._unfinished and self.session.ledger.kept:
            lines.append(
                f"note: unfinished ({self._unfinished}); the same command with --joules-resume "
                "goes on with what is measured."
            )
        if lines:
            warning = text.UNREAL.get(self.session.source.name, "")
            reporter.write_sep("=", f"energy{warning}")
            for line in [*lines, *map(visible, self._references())]:
                reporter.write_line(line)
        for line in self._outputs.annotations(self._digest(), self._config.rootpath):
            reporter.write_line(line)

    def _references(self) -> list[str]:
        """Set results beside published ones where ``--joules-data`` names some."""
        if self._published is None:
            return []
        from pytest_joules.sources.reference import reference_lines  # noqa: PLC0415  rarely

        return reference_lines(self.session.ledger.results, self._published)

    def finish(self, exitstatus: int, *, num_failed: int, is_cut_short: bool = False) -> int:
        """Write all outputs; return the exit code.

        Args:
            exitstatus: What pytest would exit with.
            num_failed: Failed tests and collections, also those without an exception.
            is_cut_short: Whether pytest stopped at a failure, as it was told to.
        """
        self.session.settle()
        digest = self._found_out()
        self._unfinished = self.part.end(self.session, exitstatus)
        if is_cut_short and self.session.ledger.open_points:
            self._unfinished = self._unfinished or _CUT_SHORT
        if self._recorder is not None:
            self._recorder.ended(digest, unfinished=self._unfinished)
        self._not_written += [visible(line) for line in self._outputs.write(digest)]
        self._is_green = exitstatus == pytest.ExitCode.OK
        undecided = [each for each in self._failed if each.is_undecided]
        if exitstatus == pytest.ExitCode.TESTS_FAILED and len(undecided) == num_failed:
            return EXIT_UNDECIDED
        if exitstatus == pytest.ExitCode.OK and self._not_written:
            return pytest.ExitCode.TESTS_FAILED
        return exitstatus

    def _found_out(self) -> Digest:
        """Put together what this process has found out, or all workers."""
        part = self.part
        if not isinstance(part, Controller):
            return self._digest()
        try:
            self._digested, self.session.ledger = gathered(part.session, part.taken)
        except JoulesError as error:
            self._not_written.append(f"results of the workers cannot be read: {error}")
        self._not_written += part.gaps()
        part.close()
        return self._digest()

    def _digest(self) -> Digest:
        if self._digested is not None:
            return replace(self._digested, settings=self._settings, failed=tuple(self._failed))
        ledger, known = self.session.ledger, self.session.referee.known_runs
        baselines = {point: known(point) for point in ledger.comparisons}
        return Digest(
            settings=self._settings,
            rows=rows_of(ledger.kept, ledger.comparisons, baselines),
            failed=tuple(self._failed),
            num_launches=ledger.num_launches,
            spent_gpu_s=ledger.spent_gpu_s,
        )


def _hooked(config: pytest.Config, chosen: Options) -> Source | None:
    """Let a plugin measure in this machine's stead; who names another source gets that."""
    if chosen.source != "live":
        return None
    made: Source | None = config.hook.pytest_joules_source(options=chosen)
    return made


def _require_measured(item: pytest.Item) -> None:
    bench = item.stash.get(_bench_key, None)
    if bench is None or bench.has_measured or bench.has_failed:
        return
    if item.stash[_marker_key].may_measure_nothing:
        return
    pytest.fail(
        "this test used energy_bench but measured nothing, so its pass would mean nothing. "
        "Measure a point in it, skip it where there is none to measure, or mark it "
        "@pytest.mark.joules(may_measure_nothing=True).",
        pytrace=False,
    )


def _marker_error(item: pytest.Item) -> JoulesError | None:
    try:
        item.stash[_marker_key] = MarkerOptions.from_item(item)
    except ConfigurationError as error:
        return error
    return None
