"""Which nodes of a fleet can measure what is asked, and why the others cannot."""

from dataclasses import dataclass, field

from pytest_joules.errors import FleetError, is_expected
from pytest_joules.fleet import faults
from pytest_joules.fleet.cell import Cell
from pytest_joules.fleet.cluster import Cluster, NodeInfo

__tracebackhide__ = is_expected

TRIES = 3
"""How often a node may be lost while it is asked, or a server key lose its node, until it is
given up."""

_LOOK_S = 5.0


@dataclass(kw_only=True)
class Nodes:
    """The nodes of a cluster, as far as they have been asked what they have."""

    gpu: str
    """Model that is measured on."""

    fit: dict[str, NodeInfo] = field(default_factory=dict)
    """Nodes that can measure, by id."""

    _unfit: dict[str, str] = field(default_factory=dict)
    """Nodes that cannot, by id, and why."""

    _silences: dict[str, int] = field(default_factory=dict)
    """How often a node was lost while it was asked what it has, by id."""

    _looked_s: float = -_LOOK_S

    def are_known(self, now_s: float) -> bool:
        """Tell whether there is one that can measure, and who is there was seen just now."""
        return now_s - self._looked_s < _LOOK_S and bool(self.fit)

    def look_again(self) -> None:
        """Rest no more on what was seen just now: a node may be gone."""
        self._looked_s = -_LOOK_S

    def new_in(self, cluster: Cluster, now_s: float) -> list[NodeInfo]:
        """Forget nodes that are gone; return the new ones, to be asked what they have.

        Raises:
            FleetError: The cluster is gone.
        """
        self._looked_s = now_s
        there = {node.id: node for node in cluster.nodes()}
        self.fit = {id_: node for id_, node in self.fit.items() if id_ in there}
        new = [node for node in there.values() if node.id not in {*self.fit, *self._unfit}]
        asked = [node for node in new if node.may_have(self.gpu)]
        self._unfit |= {
            node.id: f"{node.name}: Ray says that its GPUs are {node.accelerator}"
            for node in new
            if node not in asked
        }
        return asked

    def answered(self, cell: Cell) -> None:
        """Take what a node that was asked has answered.

        Raises:
            FleetError: It cannot be of this fleet, and no other would do instead.
        """
        node = cell.held.node
        if isinstance(cell.error, FleetError):
            raise cell.error
        if cell.error is None:
            self.fit[node.id] = node
            return
        self._silences[node.id] = self._silences.get(node.id, 0) + 1
        # One that was lost may be starting or going: it is asked again.
        if not cell.is_lost or self._silences[node.id] >= TRIES:
            self._unfit[node.id] = str(cell.error)

    def rule_out(self, node: NodeInfo, text: str) -> None:
        """Measure on a node no more."""
        self._unfit[node.id] = f"{node.name}: {text}"
        self.fit.pop(node.id, None)

    def first(self) -> NodeInfo:
        """Return a node that can measure.

        Raises:
            FleetError: There is none; with the reason for each.
        """
        if not self.fit:
            raise self.none_fits()
        return next(iter(self.fit.values()))

    def none_fits(self) -> FleetError:
        """Say why no node can measure."""
        return faults.none_fits(self.gpu, self._unfit)
