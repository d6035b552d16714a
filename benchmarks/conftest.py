"""Runs the paper's claims on recorded data, and their live forms on a machine.

``not_simulated`` names why a live form fails on the simulated machine; it is expected to, and
red where it does not any more.

``paper_claim`` marks a test that recomputes a claim on published data, ``live_form`` one
that measures one: its keywords are ``models`` (measured where ``--joules-models`` names
none) and what a named model must be to be measured: ``task``, ``architecture``,
``precision``. What does not run with the source at hand is left out, and the header says so.

``--points=PATH`` names a TOML file with fields that every live point gets, by task, such as
another engine or dummy weights; a test's own fields win. Its table ``regression`` holds the
``batch_sizes`` of the regression suite.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_joules import Point, catalog
from pytest_joules.options.frozen import Options

_MARKERS = (
    "paper_claim: recomputes a claim of the paper on recorded data",
    "live_form(models, task, ...): measures a claim's scale-free form",
    "not_simulated(reason): fails on the simulated machine, and why",
)
_REGRESSION = {"models": ["Qwen/Qwen3-8B"], "task": "text-conversation"}
_NO_MODEL = "no-model"
_BATCH_SIZES = [16, 64, 256]
_checker_key = pytest.StashKey[Any]()
_left_out_key = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("joules").addoption(
        "--points",
        metavar="PATH",
        type=Path,
        help="TOML file with fields of every live point of benchmarks/, by task",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("live_form")
        form = marker.kwargs if marker else _REGRESSION
        models = _models(metafunc.config, form) or [_NO_MODEL]
        metafunc.parametrize("model", models, ids=lambda name: name.rsplit("/", 1)[-1])
    if "regression_batch_size" in metafunc.fixturenames:
        asked = _points(metafunc.config).get("regression", {})
        metafunc.parametrize("regression_batch_size", asked.get("batch_sizes", _BATCH_SIZES))


def _points(config: pytest.Config) -> Mapping[str, Any]:
    path = config.getoption("points")
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"--points={path}: {error}.") from None


@pytest.fixture(scope="session")
def point_of(pytestconfig: pytest.Config) -> Callable[..., Point]:
    """Build a point of a test's own fields over what --points says of its task."""
    fields = _points(pytestconfig)

    def build(*, task: str = "text-conversation", **own: Any) -> Point:
        return Point.from_json({"task": task, **fields.get(task, {}), **own})

    return build


def _models(config: pytest.Config, form: Mapping[str, Any]) -> list[str]:
    named = Options.from_pytest(config).models
    wanted = {key: form[key] for key in ("task", "architecture", "precision") if key in form}
    return [m for m in named if _fits(m, **wanted)] if named else form["models"]


def _fits(name: str, *, task: str, architecture: str = "", precision: str = "") -> bool:
    known = catalog.model(name)
    if known is None:
        return task == "text-conversation" and not architecture
    return (
        task in known.tasks
        and architecture in ("", known.architecture)
        and precision in ("", known.precision)
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    source = Options.from_pytest(config).source
    reasons = {item: reason for item in items if (reason := _left_out(item, source))}
    config.hook.pytest_deselected(items=list(reasons))
    items[:] = [item for item in items if item not in reasons]
    if source == "simulated":
        _expect_failures(items)
    counts = config.stash.setdefault(_left_out_key, {})
    for reason in reasons.values():
        counts[reason] = counts.get(reason, 0) + 1


def _expect_failures(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("not_simulated"):
            reason = f"does not emerge in the simulator: {marker.args[0]}"
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))


def _left_out(item: pytest.Item, source: str) -> str:
    if not item.path.is_relative_to(Path(__file__).parent):
        return ""
    is_claim = item.get_closest_marker("paper_claim") is not None
    if is_claim != (source == "recorded"):
        what = "that recompute the paper's claims" if is_claim else "that measure this machine"
        return f"{what}: the source is {source}"
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if params.get("model") == _NO_MODEL:
        return "that no model of --joules-models fits"
    return ""


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(_left_out_key, {})
    return [f"joules: left out {count} tests {reason}" for reason, count in left_out.items()]


@pytest.fixture(scope="session")
def paper_claims(pytestconfig: pytest.Config) -> Any:
    """Check a claim of the paper on recorded data; see ``pytest_joules.claims.checker``."""
    from pytest_joules.claims.checker import ClaimChecker  # noqa: PLC0415  only recorded runs
    from pytest_joules.claims.dataset import Dataset  # noqa: PLC0415  need them

    chosen = Options.from_pytest(pytestconfig)
    if chosen.source != "recorded" or chosen.data is None:
        raise pytest.UsageError(
            f"the paper's claims are recomputed from recorded data, but the source is "
            f"{chosen.source} and its folder {chosen.data}: run with "
            "--joules-source=recorded --joules-data=PATH."
        )
    checker = ClaimChecker(dataset=Dataset.read(chosen.data))
    pytestconfig.stash[_checker_key] = checker
    return checker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    checker = terminalreporter.config.stash.get(_checker_key, None)
    if checker is None:
        return
    from pytest_joules.claims.table import terminal_lines  # noqa: PLC0415  as above

    terminalreporter.write_sep("=", "the paper's claims on recorded data")
    for line in terminal_lines(list(checker.outcomes.values())):
        terminalreporter.write_line(line)
