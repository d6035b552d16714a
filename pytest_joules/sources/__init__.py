"""Where results come from: measured live, looked up in recorded data, simulated."""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from pytest_joules.measure import FrozenWork, Outcome
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity
from pytest_joules.result import SourceName


class Source(Protocol):
    """Gives results for points; every result names the source it came from."""

    @property
    def name(self) -> SourceName:
        """What every line of output says of the results."""
        ...

    @property
    def launches(self) -> bool:
        """Whether results cost launches, so that points are gathered and grouped first."""
        ...

    def require_gpu(self, gpu: str) -> None:
        """Make sure that points can be measured on a GPU of this name at all.

        Raises:
            JoulesError: There is none, or none that can be read; with the remedy.
        """
        ...

    def identity(self, launch: Launch) -> Identity:
        """Return the hardware that the launch would be measured on.

        Raises:
            JoulesError: It is not there.
        """
        ...

    def leased(self, launch: Launch) -> AbstractContextManager[Launch]:
        """Hold what the launch runs on inside the block; give the launch that says what.

        Raises:
            JoulesError: It is not there, or others keep it.
        """
        ...

    def context(self, launch: Launch) -> Context:
        """Return the software and the boards that the launch would be measured with.

        Only what can be known before launching; the rest keeps its defaults.

        Raises:
            JoulesError: They are not there.
        """
        ...

    def clock(self) -> float:
        """Return the time in seconds by which launches are charged."""
        ...

    def outcomes(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[Outcome, None, None]:
        """Yield a result or a failure for each point of the launch, as soon as it is known.

        Closing it ends the launch.

        Args:
            launch: What to start, and its points.
            frozen: Work to repeat exactly, for points with a baseline.

        Raises:
            JoulesError: None of the points not yet yielded can be had.
        """
        ...
