"""What a launch tells while it runs, so that people who wait know what for."""

from collections.abc import Callable
from dataclasses import dataclass

from pytest_joules.errors import JoulesError
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.result import Result


@dataclass(frozen=True, kw_only=True)
class LeaseWaits:
    """Other tests or runs hold the GPUs that a launch needs."""

    launch: Launch
    text: str
    """What is waited for, and who holds it; told again when it changes."""

    at_s: float


@dataclass(frozen=True, kw_only=True)
class LeaseEnds:
    """The waiting is over: the launch has its GPUs, or has given up."""

    at_s: float


@dataclass(frozen=True, kw_only=True)
class LaunchBegins:
    """An engine is about to be started."""

    launch: Launch
    at_s: float
    """On the rig's clock, as in every event."""


@dataclass(frozen=True, kw_only=True)
class LoadBegins:
    """The engine answers, and the load of one point starts."""

    point: Point
    min_window_s: float
    energy_j: Callable[[], float | None]
    """Asked again and again: what the GPUs have drawn since; ``None`` where unknown."""

    at_s: float


@dataclass(frozen=True, kw_only=True)
class PointEnds:
    """A point has a result, valid or not, or the reason why it has none."""

    point: Point
    outcome: Result | JoulesError
    at_s: float


@dataclass(frozen=True, kw_only=True)
class LaunchEnds:
    """The engine is gone, whatever came of it."""

    at_s: float


Event = LeaseWaits | LeaseEnds | LaunchBegins | LoadBegins | PointEnds | LaunchEnds
Say = Callable[[Event], None]
"""Takes events as they happen; must neither take long nor raise."""
