"""Why a fleet cannot measure something, in words: value, reason, remedy."""

from collections.abc import Mapping

from pytest_joules.errors import FleetError
from pytest_joules.fleet.cluster import NodeInfo
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.version import __version__


def none_fits(gpu: str, unfit: Mapping[str, str]) -> FleetError:
    """No node has the GPU; ``unfit`` tells why, by node."""
    seen = "".join(f"\n  {reason}" for reason in unfit.values())
    return FleetError(
        f"no node of the fleet can measure on {gpu}"
        f"{':' + seen if seen else ': none has a GPU, or all were lost.'}\n  Name a GPU that "
        "is there (--gpu), or start nodes that have it (`ray start --num-gpus=...`)."
    )


def too_wide(point: Point, fit: Mapping[str, NodeInfo], gpu: str) -> FleetError:
    """No node has enough GPUs."""
    widest = max(fit.values(), key=lambda node: node.num_gpus)
    return FleetError(
        f"{point.id} needs {point.num_gpus} x {gpu} on one node, but the largest of the fleet, "
        f"{widest.name}, has {widest.num_gpus}. Start a node that has as many, or leave the "
        "point out."
    )


def wrong_version(node: NodeInfo, version: str) -> FleetError:
    """A node has another version of this package."""
    return FleetError(
        f"{node.name} has pytest-joules {version}, this session {__version__}: install the "
        f"same on every node (`pip install pytest-joules=={__version__}`), or their results "
        "would not be judged alike."
    )


def missing(node: NodeInfo, said: str) -> FleetError:
    """A node has no such package."""
    return FleetError(
        f"{node.name} cannot run pytest-joules ({said.splitlines()[-1]}): install it in the "
        "environment that runs Ray there "
        f"(`pip install 'pytest-joules[fleet]=={__version__}'`)."
    )


def unlike(one: str, other: str) -> FleetError:
    """Two nodes differ in what energies must share to be compared."""
    return FleetError(
        f"{one}, but {other}. Nodes of one fleet must be alike, or their energies cannot be "
        "compared: set them alike (`nvidia-smi -pl WATTS`, `-mig`), or take one out of the "
        "fleet."
    )


def given_up(point: Point, num_losses: int, text: str) -> FleetError:
    """A point's launch was lost too often."""
    return FleetError(
        f"{point.id}: given up after {num_losses} losses, the last on {text}. If it is always "
        "the same launch that is lost, run it alone on one node, without --joules-fleet."
    )


def boards_gone(launch: Launch, seen: str) -> FleetError:
    """No node has the boards that a measurement to be taken over ran on."""
    boards = ", ".join(launch.boards.fixed)
    return FleetError(
        f"{launch.largest.id} was measured on {boards}, which no node of the fleet has any "
        f"more, and {seen}: nobody can tell whether the rest would be measured alike. Bring "
        "the node back, make the nodes alike, or measure all anew without --joules-resume."
    )
