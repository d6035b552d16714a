"""The GPU minutes that a session may use: asked before a launch, and again between points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_joules.errors import Inconclusive, is_expected
from pytest_joules.plan import Costs, Launch, Plan
from pytest_joules.point import Point

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What ``--joules-budget`` allows; ``None`` allows everything."""

    gpu_minutes: float | None = None
    costs: Costs = field(default_factory=Costs)

    def of(self, launch: Launch) -> float:
        """Return the GPU minutes that a launch should take."""
        return Plan(launches=(launch,), costs=self.costs).total_gpu_minutes

    def require(self, launch: Launch, spent_gpu_s: float) -> None:
        """Refuse a launch that would take more than what is left.

        Raises:
            Inconclusive: What it would have told stays unknown.
        """
        if self.gpu_minutes is None:
            return
        spent, cost = spent_gpu_s / 60, self.of(launch)
        if spent + cost > self.gpu_minutes:
            raise Inconclusive(
                f"{launch.largest.id}: {spent:.1f} of {self.gpu_minutes:g} GPU minutes are "
                f"spent and the next launch takes about {cost:.1f}; raise "
                "--joules-budget."
            )

    def allows(self, points: Sequence[Point], launch: Launch, spent_gpu_s: float) -> bool:
        """Tell whether a running launch may go on to the first of the points left."""
        if self.gpu_minutes is None or not points:
            return True
        next_s = self.costs.of(points[0], launch.gpu) * launch.largest.num_gpus
        return spent_gpu_s + next_s <= 60 * self.gpu_minutes
