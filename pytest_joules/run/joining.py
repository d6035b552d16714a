"""Joins a fleet where ``--joules-fleet`` asks for one; loads nothing of it elsewhere."""

import pytest

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.ledger import Listener
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Plan
from pytest_joules.run.screen import Screen
from pytest_joules.session import JoulesSession
from pytest_joules.sources import Source

__tracebackhide__ = is_expected


def fleet_of(
    config: pytest.Config, chosen: Options, here: Source, *, is_parallel: bool
) -> Source | None:
    """Join the fleet of ``--joules-fleet``; its cells end with pytest, however that ends.

    Raises:
        ConfigurationError: What measures cannot be had on other machines.
        FleetError: There is no such cluster.
        MissingDependency: Ray cannot be imported.
    """
    if not chosen.fleet:
        return None
    if is_parallel:
        raise ConfigurationError(
            "--joules-fleet launches many at once by itself, from one process that has seen "
            "all of it, so it does not go with workers of pytest-xdist (-n). Leave one of them "
            "out."
        )
    if not here.launches:
        raise ConfigurationError(
            f"--joules-fleet measures on other machines, but the source is {here.name}, which "
            "launches nothing. Leave one of them out."
        )
    from pytest_joules.fleet.choice import joined  # noqa: PLC0415  Ray is 250 MB

    source = joined(chosen, here, maker=_maker(config, chosen))
    config.add_cleanup(source.close)
    return source


def _maker(config: pytest.Config, chosen: Options) -> str:
    """Return the module of the plugin whose source is used; empty where the options choose.

    Raises:
        ConfigurationError: It is a conftest, which no other machine can import.
    """
    hooks = config.hook.pytest_joules_source.get_hookimpls() if chosen.source == "live" else []
    for hook in reversed(hooks):
        if hook.function(options=chosen) is not None:
            name = getattr(hook.plugin, "__name__", "")
            if not name or name.endswith("conftest"):
                raise ConfigurationError(
                    "--joules-fleet: the source comes from a conftest, which the nodes cannot "
                    "import; move pytest_joules_source to a module that is installed there, "
                    "and name it with -p."
                )
            return str(name)
    return ""


def session_of(
    chosen: Options,
    source: Source,
    *,
    screen: Screen,
    listener: Listener | None,
) -> JoulesSession:
    """Return the session that measures with a source: on a fleet, many launches at once."""
    if not chosen.fleet:
        return JoulesSession(chosen, source, listener=listener)
    from pytest_joules.fleet.session import FleetSession  # noqa: PLC0415  see fleet_of
    from pytest_joules.fleet.source import FleetSource  # noqa: PLC0415

    assert isinstance(source, FleetSource)
    source.say = screen.hear_from
    return FleetSession(
        chosen, source, listener=listener, report=lambda text: screen.write(f"joules: {text}")
    )


def makespan(made: Plan, source: Source) -> list[str]:
    """Tell how long a fleet would take; nothing without one.

    Raises:
        FleetError: No node can measure what was asked.
    """
    from pytest_joules.fleet.source import FleetSource  # noqa: PLC0415  see fleet_of
    from pytest_joules.report.fleet_plan import makespan_on  # noqa: PLC0415

    return [makespan_on(made, source)] if isinstance(source, FleetSource) else []
