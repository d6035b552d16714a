"""pytest's hooks, each a few lines that translate and delegate.

Only pytest is imported here; the rest loads when a run has energy tests, so a repository
that merely has the plugin installed pays for nothing else.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_joules.options import declared

if TYPE_CHECKING:  # loaded on first use, see above
    from pytest_joules.run import Run
    from pytest_joules.run.bench import EnergyBench
    from pytest_joules.run.pending import RehearsalBench

_MARKER = (
    "joules(tolerance, may_measure_nothing): settings of one energy test; tolerance is the "
    "relative rise of energy per work unit that nobody would act on; with "
    "may_measure_nothing=True the test may pass without a measured value"
)
_FIXTURE = "energy_bench"
_run_key = pytest.StashKey["Run"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    declared.add_to(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_joules import hookspecs  # noqa: PLC0415  keeps start-up free

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    # Registered later than pytest's --last-failed, which deselects in a wrapper of its own.
    config.pluginmanager.register(_Collected(), "joules-collected")
    if declared.is_asked(config) or _is_expected(config):
        _run(config)


class _Collected:
    """Hears of the tests when all others have chosen and ordered them."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        yield
        energy_tests = [item for item in items if _FIXTURE in getattr(item, "fixturenames", ())]
        if energy_tests and not config.option.collectonly:
            _prepare(session, items, energy_tests)


def pytest_report_header(config: pytest.Config) -> list[str]:
    run = config.stash.get(_run_key, None)
    return run.header() if run else []


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    # A run whose options all stand in files is only known now.
    run = config.stash.get(_run_key, None)
    return run.header() if run else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    run = session.config.stash.get(_run_key, None)
    return run.show_plan(session) if run and run.options.plan else None


@pytest.fixture
def energy_bench(request: pytest.FixtureRequest) -> "EnergyBench | RehearsalBench":
    """Measure points and assert on their energy; see ``EnergyBench``."""
    return _run(request.config).bench(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    run = request.config.stash.get(_run_key, None)
    return (yield from run.set_up(fixturedef, request)) if run else (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    run = pyfuncitem.config.stash.get(_run_key, None)
    return (yield from run.call()) if run else (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    # Of every kind of test: of unittest and doctest as well.
    yield
    run = item.config.stash.get(_run_key, None)  # it may have begun in this very test
    if run:
        run.require_measured(item)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    # Asked of the classes: an object may have any attribute that it is asked for, as mocks do.
    asked = (getattr(type(side), "joules_explain", None) for side in (left, right))
    explain = next(filter(None, asked), None)
    return explain(op, left, right) if explain else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    run = item.config.stash.get(_run_key, None)
    report = yield
    if run and report.failed and call.excinfo is not None:
        run.mark(item, report, call.excinfo.value)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    run = terminalreporter.config.stash.get(_run_key, None)
    if run:
        run.summarize(terminalreporter)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash.get(_run_key, None)
    if run:
        session.exitstatus = run.finish(
            exitstatus, num_failed=session.testsfailed, is_cut_short=bool(session.shouldfail)
        )


def _prepare(
    session: pytest.Session, items: list[pytest.Item], tests: list[pytest.Item]
) -> None:
    try:
        _run(session.config).prepare(session, items, tests)
    except pytest.UsageError as error:
        from pytest_joules.run.collection import report_collection_error  # noqa: PLC0415  see _run
        from pytest_joules.run.workers import is_worker  # noqa: PLC0415  see _run

        if not is_worker(session.config):
            raise
        # pytest-xdist takes a usage error in a worker for a crash.
        report_collection_error(session, tests[0], error)
        items[:] = [item for item in items if item not in tests]


def _is_expected(config: pytest.Config) -> bool:
    """Tell whether workers of pytest-xdist may run energy tests: where files name a GPU."""
    if getattr(config.option, "dist", "no") == "no":  # as it is in workers
        return False
    from pytest_joules.options import frozen  # noqa: PLC0415  keeps start-up free

    return frozen.is_gpu_named(config)


def _run(config: pytest.Config) -> "Run":
    from pytest_joules.run import Run  # noqa: PLC0415  keeps start-up free

    if _run_key not in config.stash:
        config.stash[_run_key] = Run.from_pytest(config)
    return config.stash[_run_key]
