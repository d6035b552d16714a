"""The fleet of ``--joules-fleet``, by the options."""

from uuid import uuid4

from pytest_joules.fleet.driven import DrivenCluster
from pytest_joules.fleet.source import FleetSource
from pytest_joules.options.frozen import Options
from pytest_joules.result import SourceName
from pytest_joules.sources import Source


def joined(options: Options, here: Source, *, maker: str) -> FleetSource:
    """Join the cluster and let its nodes measure what ``here`` would measure on this machine.

    Args:
        options: What to measure, and where the cluster is.
        here: The source that this machine would use alone.
        maker: Module of the plugin that made it; empty where the options do.

    Raises:
        MissingDependency: Ray cannot be imported.
        FleetError: There is no cluster at the address.
    """
    name: SourceName = here.name
    cluster = DrivenCluster.connect(options.fleet, is_virtual=name != "live")
    return FleetSource(
        cluster=cluster,
        options=options,
        session=uuid4().hex[:12],
        maker=maker,
        name=name,
    )
