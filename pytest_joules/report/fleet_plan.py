"""How long a plan would take on a fleet, by the same rule that places it."""

from collections.abc import Iterable

from pytest_joules.fleet.cluster import NodeInfo
from pytest_joules.fleet.schedule import Job, Schedule, schedule
from pytest_joules.fleet.source import FleetSource
from pytest_joules.plan import Plan
from pytest_joules.report.waiting import clock
from pytest_joules.units import counted


def jobs_of(made: Plan) -> tuple[Job, ...]:
    """Return one job for each launch of a plan."""
    return tuple(
        Job(
            name=f"{number:05}",
            gpu=launch.gpu,
            num_gpus=launch.largest.num_gpus,
            duration_s=made.costs.duration_s(launch),
        )
        for number, launch in enumerate(made.launches)
    )


def makespan_on(made: Plan, source: FleetSource) -> str:
    """Say how long each launch made once takes on the nodes that are there.

    Raises:
        FleetError: No node can measure what was asked.
    """
    nodes = source.look()
    widest = max(node.num_gpus for node in nodes)
    wide = [each for each in made.launches if each.largest.num_gpus > widest]
    if wide:
        point = wide[0].largest
        return (
            f"fleet: {point.id} takes {counted(point.num_gpus, 'GPU')} on one node; the "
            f"largest has {widest}"
        )
    placed = schedule(jobs_of(made), _capacity(nodes, source.options.gpu))
    return describe(placed, nodes, source.options.gpu)


def describe(placed: Schedule, nodes: Iterable[NodeInfo], gpu: str) -> str:
    """Put a schedule into a line."""
    listed = list(nodes)
    num_gpus = sum(node.num_gpus for node in listed)
    return (
        f"fleet of {counted(len(listed), 'node')} with {num_gpus} x {gpu}: about "
        f"{clock(placed.makespan_s)}, at the least {clock(placed.bound_s)}"
    )


def _capacity(nodes: Iterable[NodeInfo], gpu: str) -> dict[str, tuple[str, int]]:
    return {node.id: (gpu, node.num_gpus) for node in nodes}
