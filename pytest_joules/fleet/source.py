"""Places cells on nodes, follows what they say, and replaces those that are lost.

One cell at a time holds a server key: whole GPUs of one node, from its first launch to its
last, so that all launches of a comparison run on the same boards.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from pytest_joules import progress
from pytest_joules.errors import FleetError, JoulesError, is_expected
from pytest_joules.fleet import faults, lines, wire
from pytest_joules.fleet.cell import (
    Cell,
    Event,
    Key,
    Lost,
    Ready,
    Refused,
    Tell,
    hardware_of,
)
from pytest_joules.fleet.cluster import Cluster, Held, NodeInfo
from pytest_joules.fleet.following import followed
from pytest_joules.fleet.nodes import TRIES, Nodes
from pytest_joules.fleet.placing import Placing
from pytest_joules.fleet.survey import Found, Survey
from pytest_joules.measure import FrozenWork, Outcome
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity
from pytest_joules.result import SourceName
from pytest_joules.version import __version__

__tracebackhide__ = is_expected

PATIENCE_S = 120.0
"""Seconds that reserving GPUs may take before another node is tried."""

_HEAR_S = 2.0

Say = Callable[[str, Key, progress.Event], None]
"""Takes a node's name, the key of a cell there, and what happened in it."""


@dataclass(kw_only=True)
class FleetSource:
    """Measures on the nodes of a cluster."""

    cluster: Cluster
    options: Options
    session: str
    maker: str = ""
    """Module of the plugin that makes the source on a node; empty: the options do."""

    name: SourceName = "live"
    launches: bool = True
    say: Say = lambda node, key, event: None  # noqa: ARG005  silence is the default listener
    clock: Callable[[], float] = time.monotonic
    survey: Survey = field(init=False)
    """Of what another session has measured, which this one goes on with."""

    _nodes: Nodes = field(init=False)
    _placing: Placing = field(init=False)
    _cells: dict[Held, Cell] = field(default_factory=dict)
    _of_key: dict[Key, Cell] = field(default_factory=dict)
    _waiting: dict[Key, Launch] = field(default_factory=dict)
    _known: dict[object, tuple[Identity, str]] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.survey = Survey(self.cluster, is_open=bool(self.options.resume))
        self._nodes = Nodes(gpu=self.options.gpu)
        self._placing = Placing(
            nodes=self._nodes, survey=self.survey, window_s=self.options.window
        )

    def require_gpu(self, gpu: str) -> None:
        del gpu  # the nodes are asked for that of the options
        self.look()

    def identity(self, launch: Launch) -> Identity:
        if launch.boards.fixed:
            return self._found(launch).identity
        hardware = hardware_of(launch)
        if hardware not in self._known:
            self._look()
            node = self._nodes.first()
            asked = self._cell_on(node, launch)
            while asked.identity is None and asked.error is None:
                self._pump()
            self._free(asked)
            if asked.error is not None:
                raise asked.error
            assert asked.identity is not None
            self._known[hardware] = (asked.identity, node.name)
        return self._known[hardware][0]

    def leased(self, launch: Launch) -> AbstractContextManager[Launch]:
        """Lease nothing here: a cell holds whole GPUs, and its node leases them."""
        return nullcontext(launch)

    def context(self, launch: Launch) -> Context:
        """Return what is known of a launch on boards that are known; of others nothing is."""
        return self._found(launch).context if launch.boards.fixed else Context()

    def _found(self, launch: Launch) -> Found:
        self.look()
        return self.survey.find(launch)

    def outcomes(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[Outcome, None, None]:
        """Refuse: a fleet runs many launches at once, see ``FleetSession``."""
        del frozen
        raise FleetError(f"{launch.largest.id}: a fleet runs no launch alone.")

    def want(self, key: Key, launch: Launch) -> None:
        """Ask for a cell; ``Ready`` or ``Refused`` will answer."""
        if key not in self._of_key:
            self._waiting[key] = launch

    def launch(self, key: Key, launch: Launch, frozen: Mapping[Point, FrozenWork]) -> None:
        """Start a launch on a key's cell."""
        cell = self._of_key[key]
        cell.launch, cell.runs, cell.since_s = launch, True, self.clock()
        self._tell(cell, progress.LaunchBegins(launch=launch, at_s=cell.since_s))
        told = {
            "launch": wire.launch_json(launch),
            "frozen": wire.frozen_json(frozen),
            "asks": self.options.budget is not None,
        }
        self.cluster.say(cell.held, lines.line(told))

    def go_on(self, key: Key, *, allowed: bool) -> None:
        """Let a key's launch measure its next point, or end; one that is lost does neither."""
        if key in self._of_key:
            self.cluster.say(self._of_key[key].held, lines.line({"go_on": allowed}))

    def elapsed_s(self, key: Key) -> float:
        """Return what a key's running launch has taken so far, by this machine's clock."""
        cell = self._of_key.get(key)
        return cell.taken_s(self.clock()) if cell is not None else 0.0

    def release(self, key: Key) -> None:
        """Give a key's GPUs back."""
        self._waiting.pop(key, None)
        cell = self._of_key.pop(key, None)
        if cell is not None:
            self._free(cell)

    def wait(self) -> list[Event]:
        """Return what happened since; wait a little where nothing did."""
        if not self._events:
            self._place()
            if not self._events:
                self._pump()
        events, self._events = self._events, []
        return events

    def look(self) -> tuple[NodeInfo, ...]:
        """Return the nodes that can measure what was asked.

        Raises:
            FleetError: There is none; with the reason for each.
        """
        for _ in range(TRIES):
            self._look()
            if self._nodes.fit:
                break
        self._nodes.first()
        return tuple(self._nodes.fit.values())

    def close(self) -> None:
        """End all cells and leave the cluster."""
        self.cluster.close()

    def _place(self) -> None:
        self._move_on()
        if not self._waiting:
            return
        self._look()
        if not self._nodes.fit:
            for key in list(self._waiting):
                self._refuse(key, self._nodes.none_fits())
            return
        used = Counter[str]()
        for cell in self._cells.values():
            used[cell.held.node.id] += cell.held.num_gpus
        for key, node in self._placing.chosen(self._waiting, used, self.clock()):
            self._hold(key, node)
        fit = self._nodes.fit
        for key, launch in list(self._waiting.items()):
            if all(launch.largest.num_gpus > node.num_gpus for node in fit.values()):
                self._refuse(key, faults.too_wide(launch.largest, fit, self.options.gpu))

    def _hold(self, key: Key, node: NodeInfo) -> None:
        launch = self._waiting.pop(key)
        held = self.cluster.hold(node, launch.largest.num_gpus)
        cell = Cell(held=held, key=key, launch=launch, since_s=self.clock())
        self._cells[held] = self._of_key[key] = cell

    def _move_on(self) -> None:
        """Give up reservations that other work of the cluster keeps from being granted."""
        for cell in list(self._cells.values()):
            late_s = self.clock() - cell.since_s
            if cell.key is None or cell.is_up or late_s < PATIENCE_S:
                continue
            self._placing.leave_alone(cell.held.node, until_s=self.clock() + PATIENCE_S)
            assert cell.launch is not None
            self._waiting[cell.key] = cell.launch
            del self._of_key[cell.key]
            self._free(cell)

    def _refuse(self, key: Key, error: JoulesError) -> None:
        self.release(key)
        self._events.append(Refused(key=key, error=error))

    def _look(self) -> None:
        """Ask nodes that are new what they have; forget those that are gone."""
        now_s = self.clock()
        if self._nodes.are_known(now_s):
            return
        new = self._nodes.new_in(self.cluster, now_s)
        asked = [self._cell_on(node, None) for node in new]
        while any(not each.is_ready and each.error is None for each in asked):
            self._pump()
        for each in asked:
            if each.error is None and self.survey.takes(each.held):
                del self._cells[each.held]
            self._free(each)
            self._nodes.answered(each)

    def _cell_on(self, node: NodeInfo, launch: Launch | None) -> Cell:
        held = self.cluster.hold(node, 0)
        cell = Cell(held=held, launch=launch, since_s=self.clock())
        self._cells[held] = cell
        return cell

    def _pump(self) -> None:
        for held, heard in self.cluster.hear(_HEAR_S).items():
            cell = self._cells.get(held)
            for text in heard.lines:
                if cell is not None and held in self._cells:
                    self._take(cell, lines.message(text))
            if heard.lost and held in self._cells and cell is not None:
                self._lose(cell, heard.lost)
            elif heard.lost:
                self.survey.leave(held)

    def _take(self, cell: Cell, told: lines.Message) -> None:
        match told:
            case {"hello": {"version": version}}:
                self._greeted(cell, version)
            case {"ready": _}:
                cell.is_ready = True
                if cell.launch is not None:
                    asked = {"identify": wire.launch_json(cell.launch)}
                    self.cluster.say(cell.held, lines.line(asked))
            case {"identity": values}:
                self._identified(cell, Identity(**values))
            case {"error": values}:
                self._fail(cell, lines.error_from(values, cell.held.node.name))
            case {"lost": text}:
                self._nodes.rule_out(cell.held.node, text)
                self._lose(cell, text)
            case {"died": {"status": status, "said": said}}:
                self._died(cell, status, said)
            case _:
                announce = partial(self._tell, cell)
                event = followed(cell, told, at_s=self.clock(), announce=announce)
                self._events += [event] if event is not None else []

    def _greeted(self, cell: Cell, version: str) -> None:
        cell.is_up = True
        if version != __version__:
            self._fail(cell, faults.wrong_version(cell.held.node, version))
            return
        setup = {"options": wire.options_json(self.options), "maker": self.maker}
        self.cluster.say(cell.held, lines.line({"setup": {**setup, "session": self.session}}))

    def _identified(self, cell: Cell, identity: Identity) -> None:
        """Let a cell begin if its node is like the others."""
        cell.identity = identity
        if cell.key is None or cell.launch is None:
            return
        name = cell.held.node.name
        first, of = self._known.setdefault(hardware_of(cell.launch), (identity, name))
        if first != identity:
            self._fail(cell, faults.unlike(f"{name}: {identity}", f"{of}: {first}"))
            return
        self._events.append(Ready(key=cell.key))

    def _died(self, cell: Cell, status: int, said: str) -> None:
        if not cell.is_up and "No module named" in said and "pytest_joules" in said:
            self._fail(cell, faults.missing(cell.held.node, said))
        else:
            last = said.splitlines()[-1] if said else "it said nothing"
            self._lose(cell, f"its process ended with status {status} ({last})")

    def _fail(self, cell: Cell, error: JoulesError) -> None:
        cell.error = error
        if cell.key is not None:
            self._refuse(cell.key, error)

    def _lose(self, cell: Cell, text: str) -> None:
        name, key = cell.held.node.name, cell.key
        self._free(cell)
        if key is None:
            cell.error, cell.is_lost = JoulesError(f"{name}: {text}"), True
            return
        over = progress.LaunchEnds(at_s=self.clock())
        tell: Tell = partial(self._tell, cell, over) if cell.runs else lambda: None
        elapsed_s = cell.taken_s(self.clock())
        del self._of_key[key]
        lost = Lost(key=key, text=f"{name}: {text}", elapsed_s=elapsed_s, tell=tell)
        self._events.append(lost)
        self._nodes.look_again()
        if self._placing.lost(key, cell.held.node) >= TRIES:
            point = cell.launch.largest if cell.launch else key
            self._refuse(key, faults.given_up(point, TRIES, f"{name}: {text}"))

    def _free(self, cell: Cell) -> None:
        if self._cells.pop(cell.held, None) is not None:
            self.cluster.free([cell.held])

    def _tell(self, cell: Cell, event: progress.Event) -> None:
        assert cell.key is not None
        self.say(cell.held.node.name, cell.key, event)
