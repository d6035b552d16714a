"""Runs the paper's claims on recorded data, and their live forms on a machine.

``paper_claim`` marks a test that recomputes a claim on published data, ``live_form`` one
that measures: its keywords are ``models`` (measured where ``--joules-models`` names none)
and what a named model must be to be measured: ``task``, ``architecture``, ``precision``.
"""

from typing import Any

import pytest

from pytest_joules import catalog
from pytest_joules.options import Options

_MARKERS = (
    "paper_claim: recomputes a claim of the paper on recorded data",
    "live_form(models, task, ...): measures a claim's scale-free form",
)
_NO_MODEL = "no-model"
_left_out_key = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("live_form")
    if marker is not None:
        models = _models(metafunc.config, dict(marker.kwargs)) or [_NO_MODEL]
        metafunc.parametrize("model", models, ids=lambda name: name.rsplit("/", 1)[-1])


def _models(config: pytest.Config, form: dict[str, Any]) -> list[str]:
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
    counts = config.stash.setdefault(_left_out_key, {})
    for reason in reasons.values():
        counts[reason] = counts.get(reason, 0) + 1


def _left_out(item: pytest.Item, source: str) -> str:
    if item.get_closest_marker("paper_claim") and source != "recorded":
        return f"claims about recorded data, and the source is {source}"
    if not item.get_closest_marker("live_form"):
        return ""
    if source == "recorded":
        return "live forms, and the source is recorded"
    named = getattr(item, "callspec", None)
    is_fit = named is None or named.params.get("model") != _NO_MODEL
    return "" if is_fit else "live forms that no model of --joules-models fits"


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    left_out = config.stash.get(_left_out_key, {})
    return [f"joules: left out {count} {reason}" for reason, count in left_out.items()]


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
    return ClaimChecker(dataset=Dataset.read(chosen.data))
