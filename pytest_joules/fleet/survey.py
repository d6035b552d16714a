"""Asks the nodes what they are, where a session goes on with what another one has measured.

A measurement counts if the node that has its boards is what it was: hardware, driver and
packages. Nodes come and go, and a fleet keeps what a lost one had measured; so where nobody has
the boards any more, all nodes must be what that one was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_joules.errors import JoulesError, MeterError, is_expected
from pytest_joules.fleet import faults, lines, wire
from pytest_joules.fleet.cluster import Cluster, Held, NodeInfo
from pytest_joules.plan import Boards, Launch
from pytest_joules.provenance import Context, Identity

__tracebackhide__ = is_expected

_HEAR_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a launch would be measured with."""

    identity: Identity
    context: Context
    """Without boards where the launch's own are in the fleet no more."""

    node: NodeInfo


class Survey:
    """A conversation with one process on each node; what it asks reserves nothing."""

    def __init__(self, cluster: Cluster, *, is_open: bool) -> None:
        """Begin it, or leave it closed where nobody will ask."""
        self._cluster = cluster
        self._is_open = is_open
        self._cells: list[Held] = []
        self._homes: dict[tuple[str, ...], Held] = {}

    def takes(self, held: Held) -> bool:
        """Take a process that has been told what is measured, if the survey is open."""
        self._cells += [held] if self._is_open else []
        return self._is_open

    def leave(self, held: Held) -> None:
        """Ask a process no more: it is lost."""
        if held in self._cells:
            self._cells.remove(held)
            self._cluster.free([held])

    def home(self, boards: Boards) -> str:
        """Return the id of the node that has the preferred boards, where it was found."""
        known = (self._homes.get(each) for each in boards.preferred)
        return next((held.node.id for held in known if held), "")

    def close(self) -> None:
        """End it; what was found is kept."""
        self._cluster.free(self._cells)
        self._cells, self._is_open = [], False

    def find(self, launch: Launch) -> Found:
        """Return what a launch with fixed boards would be measured with.

        Raises:
            FleetError: Nobody has its boards, and the nodes are not all alike or have too few.
            JoulesError: A node cannot tell.
        """
        boards = launch.boards.fixed
        known = self._homes.get(boards)
        there = self._asked([known] if known in self._cells else self._cells, launch)
        if there:
            held, found = next(iter(there.items()))
            self._homes[boards] = held
            return found
        anywhere = self._asked(self._cells, replace(launch, boards=Boards()))
        if not anywhere:
            raise faults.boards_gone(launch, "no node has as many GPUs of the model")
        first, *others = map(_without_boards, anywhere.values())
        for other in others:
            if (other.identity, other.context) != (first.identity, first.context):
                seen = f"{first.node.name} and {other.node.name} differ in hardware or software"
                raise faults.boards_gone(launch, seen)
        return first

    def _asked(self, cells: Sequence[Held], launch: Launch) -> dict[Held, Found]:
        """Ask these nodes about a launch; those that lack its boards are left out."""
        order = lines.line({"survey": wire.launch_json(launch)})
        cells = list(cells)
        for held in cells:
            self._cluster.say(held, order)
        found: dict[Held, Found] = {}
        for held, told in self._answers(cells).items():
            if isinstance(told, JoulesError):
                if not isinstance(told, MeterError):
                    raise told
            else:
                identity, context = wire.surveyed_from(told["surveyed"])
                found[held] = Found(identity=identity, context=context, node=held.node)
        return found

    def _answers(self, cells: Sequence[Held]) -> Mapping[Held, lines.Message | JoulesError]:
        """Wait for an answer of each; one that is lost gives none, now and later."""
        answers: dict[Held, lines.Message | JoulesError] = {}
        while any(held in self._cells and held not in answers for held in cells):
            for held, heard in self._cluster.hear(_HEAR_S).items():
                told = [lines.message(text) for text in heard.lines]
                for each in told:
                    if "surveyed" in each:
                        answers[held] = each
                    elif "error" in each:
                        answers[held] = lines.error_from(each["error"], held.node.name)
                if heard.lost or any({"lost", "died"} & each.keys() for each in told):
                    self.leave(held)
        return answers


def _without_boards(found: Found) -> Found:
    return replace(found, context=replace(found.context, gpu_uuids=()))
