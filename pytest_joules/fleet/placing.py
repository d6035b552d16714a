"""On which node a waiting key gets its cell: one with room, that did not lose it before."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_joules.budget import expected_costs
from pytest_joules.fleet.cell import Key
from pytest_joules.fleet.cluster import NodeInfo
from pytest_joules.fleet.nodes import Nodes
from pytest_joules.fleet.schedule import Job, Room, starts
from pytest_joules.fleet.survey import Survey
from pytest_joules.plan import Launch


@dataclass(kw_only=True)
class Placing:
    """What decides where cells go."""

    nodes: Nodes
    survey: Survey
    window_s: float

    _avoided: dict[Key, set[str]] = field(default_factory=dict)
    """Nodes that have lost a key's cell, by id."""

    _losses: dict[Key, int] = field(default_factory=dict)
    _held_up: dict[str, float] = field(default_factory=dict)
    """Nodes whose GPUs other work holds, until when they are left alone."""

    def chosen(
        self, waiting: Mapping[Key, Launch], used: Mapping[str, int], now_s: float
    ) -> list[tuple[Key, NodeInfo]]:
        """Choose which of the waiting keys get a cell now, and on which node.

        Args:
            waiting: The first launch of each.
            used: GPUs that cells hold, by the node's id.
            now_s: The time.
        """
        rooms = [
            self._room(node, used.get(node.id, 0), now_s) for node in self.nodes.fit.values()
        ]
        by_name = {str(number): key for number, key in enumerate(waiting)}
        costs = expected_costs(self.window_s)
        jobs = [
            Job(
                name=name,
                gpu=self.nodes.gpu,
                num_gpus=waiting[key].largest.num_gpus,
                duration_s=costs.duration_s(waiting[key]),
                only=self._only(key, waiting[key], now_s),
            )
            for name, key in by_name.items()
        ]
        return [(by_name[job.name], self.nodes.fit[node]) for job, node in starts(jobs, rooms)]

    def leave_alone(self, node: NodeInfo, *, until_s: float) -> None:
        """Start nothing on a node whose GPUs other work of the cluster holds."""
        self._held_up[node.id] = until_s

    def lost(self, key: Key, node: NodeInfo) -> int:
        """Prefer other nodes than one that has lost a key's cell; return how often any has."""
        self._avoided.setdefault(key, set()).add(node.id)
        self._losses[key] = self._losses.get(key, 0) + 1
        return self._losses[key]

    def _room(self, node: NodeInfo, used: int, now_s: float) -> Room:
        free = 0 if self._is_held_up(node.id, now_s) else max(0, node.num_gpus - used)
        return Room(node=node.id, gpu=self.nodes.gpu, num_gpus=node.num_gpus, free=free)

    def _is_held_up(self, node_id: str, now_s: float) -> bool:
        return self._held_up.get(node_id, 0.0) > now_s

    def _only(self, key: Key, launch: Launch, now_s: float) -> frozenset[str] | None:
        """Return the nodes where a key's cell should go, by id; ``None``: any."""
        fit = self.nodes.fit
        others = frozenset(fit) - self._avoided.get(key, set())
        home = self.survey.home(launch.boards)
        if home in others and not self._is_held_up(home, now_s):
            others = frozenset({home})
        num_gpus = launch.largest.num_gpus
        return others if any(fit[each].num_gpus >= num_gpus for each in others) else None
