"""Hooks that other plugins and conftest files may implement."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # heavy, and only needed for the annotations
    from pytest_joules.options.frozen import Options
    from pytest_joules.plan import Plan
    from pytest_joules.sources import Source


@pytest.hookspec(firstresult=True)
def pytest_joules_source(options: "Options") -> "Source | None":
    """Return what measures in place of this machine; ``None`` leaves it to this machine.

    Only asked where ``--joules-source`` is ``live``, as it is by default.
    ``pytest -p pytest_joules.testing`` implements it with a machine that does not exist.
    """


@pytest.hookspec
def pytest_joules_planned(plan: "Plan", num_launches: int | None) -> None:
    """Hear what ``--joules-plan`` found out.

    Args:
        plan: The launches, each once.
        num_launches: How often each is made when recording; ``None`` for a check, which
            decides as it goes.
    """
