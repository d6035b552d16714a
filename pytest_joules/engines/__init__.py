"""Engines: serving stacks that the plugin can launch and load.

An engine starts one server (or worker) for a launch; the server is then driven through the
points of that launch, one after the other. Both record traces and derive nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.trace import Load


class Server(Protocol):
    """One running engine, ready for load."""

    @property
    def packages(self) -> dict[str, str]:
        """Versions of the software under test, by distribution."""
        ...

    @property
    def model_revision(self) -> str | None:
        """Commit of the served snapshot; ``None`` where the stack cannot tell."""
        ...

    @property
    def process_ids(self) -> frozenset[int]:
        """Every process of the engine, so that others on the GPU can be told apart."""
        ...

    def drive(self, point: Point, *, min_window_s: float, deadline_s: float) -> Load:
        """Offer the point's load and record it: a closed loop, or batches.

        Args:
            point: What to offer; ``batch_size`` requests are kept in flight, or made at once.
            min_window_s: Where ``point.num_requests`` is ``None``: go on until the window
                is that long (``steady_state.is_long_enough``).
            deadline_s: Seconds after which the load is given up.

        Raises:
            ServerDied: The engine ended; the message holds the end of its log.
            LoadError: The deadline passed, or the server broke its protocol.
        """
        ...


@runtime_checkable
class AttachedServer(Server, Protocol):
    """A server that runs already and is not ended."""

    @property
    def launch_id(self) -> str:
        """Identifies its start, which is not ours: all that it serves is one launch."""
        ...


class Engine(Protocol):
    """Starts servers."""

    @property
    def attaches(self) -> bool:
        """Whether its servers run already, on GPUs that they have chosen themselves."""
        ...

    @property
    def name(self) -> str:
        """What points call it."""
        ...

    def versions(self, stack: Stack) -> Mapping[str, str]:
        """Return what ``packages`` of a server of this stack will say, without starting one.

        Raises:
            MissingDependency: The stack's interpreter cannot be run.
            LaunchError: It does not answer.
        """
        ...

    def started(
        self, launch: Launch, *, gpu_uuids: Sequence[str]
    ) -> AbstractContextManager[Server]:
        """Start the engine on these GPUs and wait until it answers; end it on leaving.

        Raises:
            LaunchError: It did not become ready; the message holds the end of its log.
        """
        ...
