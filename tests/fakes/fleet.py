"""A cluster without Ray: every node is the real ``fleet.node.Node`` on a fake machine, here."""

import json
from collections import Counter
from dataclasses import dataclass, field

from pytest_joules.fleet import lines
from pytest_joules.fleet.cluster import Heard, Held, NodeInfo
from pytest_joules.fleet.node import Node
from pytest_joules.testing import FakeMachine, source_of
from pytest_joules.version import __version__

MAKER = __name__
_present = []
"""The machine of the node that answers now."""


def pytest_joules_source(options):
    """Measure on the present node's machine; what a plugin of that machine would do."""
    return source_of(_present[-1], window_s=options.window)


def machine(name, **fields):
    """Make a machine whose boards are named after it."""
    made = FakeMachine(**fields)
    made.gpus.label = name
    return made


@dataclass(kw_only=True)
class HereCluster:
    """Nodes by name; a node may be lost when it has said so many outcomes."""

    machines: dict[str, FakeMachine]
    dies_after: dict[str, int] = field(default_factory=dict)
    version: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    """Nodes whose GPUs other work holds: a reservation is never granted."""

    accelerator: dict[str, str] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """Every line that the session said."""

    most_at_once: Counter = field(default_factory=Counter)
    closed: bool = False
    _said: dict[Held, list[str]] = field(default_factory=dict)
    _outcomes: Counter = field(default_factory=Counter)
    _dead: set[str] = field(default_factory=set)
    _nodes: dict[Held, Node] = field(default_factory=dict)

    @property
    def num_held(self):
        return len(self._said)

    def nodes(self):
        return tuple(
            NodeInfo(
                id=name,
                host=f"host-{name}",
                num_gpus=made.num_gpus,
                accelerator=self.accelerator.get(name, ""),
            )
            for name, made in self.machines.items()
            if name not in self._dead
        )

    def hold(self, node, num_gpus):
        held = Held(node=node, num_gpus=num_gpus)
        version = self.version.get(node.id, __version__)
        is_silent = num_gpus and node.id in self.silent
        self._said[held] = [] if is_silent else [lines.line({"hello": {"version": version}})]
        self.held.append(held)
        used = sum(each.num_gpus for each in self._said if each.node.id == node.id)
        assert used <= node.num_gpus, "a GPU was given away twice"
        self.most_at_once[node.id] = max(self.most_at_once[node.id], used)
        return held

    def say(self, held, line):
        self.told.append(line)
        name = held.node.id
        answers = self._said.get(held)
        if answers is None or name in self._dead:
            return
        _present.append(self.machines[name])
        node = self._nodes.setdefault(held, Node(self._tell(held)))
        try:
            node.answer(json.loads(line))
        except NodeDies:
            self._dead.add(name)
        except OSError as error:
            answers.append(lines.line({"lost": f"the disk is full ({error.strerror})"}))
        finally:
            _present.pop()

    def _tell(self, held):
        name = held.node.id

        def tell(**message):
            # Everything that goes over a wire must survive it.
            self._said[held].append(lines.line(message))
            self._outcomes[name] += "outcome" in message
            if self._outcomes[name] == self.dies_after.get(name):
                raise NodeDies

        return tell

    def hear(self, timeout_s):
        del timeout_s
        heard = {}
        for held, said in self._said.items():
            lost = "the node was lost" if held.node.id in self._dead else ""
            if said or lost:
                heard[held] = Heard(lines=tuple(said), lost=lost)
                self._said[held] = []
        return heard

    def free(self, cells):
        for held in cells:
            self._said.pop(held, None)

    def close(self):
        self.closed = True
        self.free(list(self._said))


class NodeDies(BaseException):
    """What SIGKILL does to everything on a node."""
