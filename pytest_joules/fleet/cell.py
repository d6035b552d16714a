"""A server key on whole GPUs of one node, and what happens to it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_joules.errors import JoulesError
from pytest_joules.fleet.cluster import Held
from pytest_joules.measure import Outcome
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.provenance import Identity

Key = Point
"""What ``plan.server_key`` returns."""

Tell = Callable[[], None]
"""Announces an event, once the session has got to it."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A key's cell waits for a launch."""

    key: Key


@dataclass(frozen=True, kw_only=True)
class Went:
    """A key's launch has got to something that only people want to know."""

    tell: Tell


@dataclass(frozen=True, kw_only=True)
class Came:
    """An outcome of a key's launch, which may wait to hear whether it may go on."""

    key: Key
    outcome: Outcome
    elapsed_s: float
    """What the launch has taken so far, by the node's clock."""

    tell: Tell
    """Called once the outcome is stored: nothing is announced that a kill could lose."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A key's launch is over and its cell waits for another."""

    key: Key
    elapsed_s: float
    error: JoulesError | None
    """Why the points that have no outcome will not get one; ``None`` after a normal end."""

    tell: Tell


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A key's cell is gone, and its launch with it."""

    key: Key
    text: str
    elapsed_s: float
    tell: Tell


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A key cannot be measured on this fleet."""

    key: Key
    error: JoulesError


Event = Ready | Went | Came | Ended | Lost | Refused


@dataclass(kw_only=True)
class Drawn:
    """What the GPUs have drawn in one load, as far as its node has told."""

    energy_j: float | None = None


@dataclass(kw_only=True, eq=False)
class Cell:
    """A conversation with a process on a node: a key's, or a survey's without one."""

    held: Held
    launch: Launch | None
    """The running one; before the cell is ready, the first of its key."""

    key: Key | None = None
    since_s: float = 0.0
    """Start of what it does now, on this machine's clock."""

    is_up: bool = False
    is_ready: bool = False
    runs: bool = False
    is_lost: bool = False
    waits: bool = False
    """Whether others on the node hold the GPUs of its launch."""

    drawn: Drawn = field(default_factory=Drawn)
    identity: Identity | None = None
    error: JoulesError | None = None

    def taken_s(self, now_s: float) -> float:
        """Return what its running launch has taken so far; waiting for others costs nothing."""
        return now_s - self.since_s if self.runs and not self.waits else 0.0


def hardware_of(launch: Launch) -> object:
    """Return what of a launch decides its identity."""
    point = launch.largest
    return (launch.gpu, point.num_gpus, launch.stack.gpus, point.media)
