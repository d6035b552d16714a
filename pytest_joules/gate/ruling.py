"""Everything a verdict depends on besides what was launched, as one value.

The live session and ``joules compare`` go through ``rule``, so stored results give the
verdict of the run bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_joules.gate import Decision
from pytest_joules.gate.attribution import attributed
from pytest_joules.gate.compare import comparison, launches, noise_between
from pytest_joules.gate.design import Design, known_noise
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.verdict import Comparison

Launched = Mapping[tuple[Point, str], Sequence[Result]]
"""Valid results of a session by point and stack name, one for each launch."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a session's verdicts rest on."""

    stack: str
    against: str = ""
    """The old stack's name; empty for a comparison with baselines alone."""

    tolerances: Mapping[Point, float]
    """Of every point that the session compares: they share the chance of a false alarm."""

    baselines: Mapping[Point, tuple[Result, ...]]
    """The stored runs of those points that have any."""

    def design(self, point: Point) -> Design:
        """Return what the point's comparison promises."""
        others = [runs for other, runs in self.baselines.items() if other != point]
        design = Design(tolerance=self.tolerances[point]).divided(len(self.tolerances))
        return known_noise(design, noise_between(others))

    def compared(self, point: Point, decision: Decision) -> Comparison:
        """Put a decision about the point into words and numbers."""
        reference = self.against or "baseline"
        return comparison(point, decision, self.design(point), reference=reference)


def rule(point: Point, launched: Launched, case: Case) -> Decision:
    """Decide about a point, or say which stack to launch next."""
    elsewhere = [group for (other, _), group in launched.items() if other != point]
    seen = launches(
        baseline=case.baselines.get(point, ()),
        old=launched.get((point, case.against), ()) if case.against else (),
        new=launched.get((point, case.stack), ()),
        has_old=bool(case.against),
        elsewhere=noise_between(elsewhere),
    )
    return attributed(seen, case.design(point))
