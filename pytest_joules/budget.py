"""The GPU minutes that a session may use: asked before a launch, and again between points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_joules.errors import Inconclusive, is_expected
from pytest_joules.plan import Costs, Launch, Pace
from pytest_joules.point import Point
from pytest_joules.units import counted

__tracebackhide__ = is_expected


def expected_costs(window_s: float) -> Costs:
    """Return what launches should cost with windows of a length, by the latent model."""
    return Costs(min_window_s=window_s, pace=_pace)


def _pace(point: Point, gpu: str) -> Pace | None:
    from pytest_joules.latent.pace import pace  # noqa: PLC0415  loads scipy

    return pace(point, gpu)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What ``--joules-budget`` allows; ``None`` allows everything."""

    gpu_minutes: float | None = None
    costs: Costs = field(default_factory=Costs)

    def points_gpu_s(self, points: Sequence[Point], launch: Launch) -> float:
        """Return the GPU seconds that some points of a running launch should take."""
        points_s = sum(self.costs.of(point, launch.gpu) for point in points)
        return points_s * launch.largest.num_gpus

    def require(self, launch: Launch, spent_gpu_s: float) -> None:
        """Refuse a launch that would take more than what is left.

        Raises:
            Inconclusive: What it would have told stays unknown.
        """
        if not self.affords(launch, spent_gpu_s):
            others = len(launch.points) - 1
            more = f" and {counted(others, 'more point')}" if others else ""
            takes = self.costs.gpu_minutes(launch)
            raise Inconclusive(
                f"{spent_gpu_s / 60:.1f} of {self.gpu_minutes:g} GPU minutes are spent and the "
                f"next launch ({launch.largest.id}{more}) takes about {takes:.1f}; "
                "raise --joules-budget."
            )

    def affords(self, launch: Launch, spent_gpu_s: float) -> bool:
        """Tell whether what is left covers a launch."""
        left = self.gpu_minutes
        return left is None or spent_gpu_s / 60 + self.costs.gpu_minutes(launch) <= left

    def allows(self, points: Sequence[Point], launch: Launch, spent_gpu_s: float) -> bool:
        """Tell whether a running launch may go on to the first of the points left."""
        if self.gpu_minutes is None or not points:
            return True
        next_gpu_s = self.points_gpu_s(points[:1], launch)
        return spent_gpu_s + next_gpu_s <= 60 * self.gpu_minutes
