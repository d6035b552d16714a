"""The answer to one comparison: decided once, here and in ``gate``, where nothing prints."""

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pytest_joules.point import Point

EXIT_UNDECIDED = 6
"""Exit code of runs and commands: nothing red, but something inconclusive or invalid."""


class Verdict(StrEnum):
    """Five answers; only the first two let a test pass."""

    UNCHANGED = "unchanged"
    IMPROVEMENT = "improvement"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"

    @property
    def fails(self) -> bool:
        """Tell whether a test with this verdict must not pass."""
        match self:
            case Verdict.REGRESSION | Verdict.INCONCLUSIVE | Verdict.INVALID:
                return True
            case Verdict.UNCHANGED | Verdict.IMPROVEMENT:
                return False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A verdict with the evidence it rests on.

    Changes are relative, new over reference minus one: positive is worse.
    """

    point: Point
    verdict: Verdict
    reference: str
    """What the new launches were compared with: ``baseline`` or a stack's name."""

    change: float
    low: float
    high: float
    """Bounds of the interval of the change."""

    tolerance: float
    detectable: float
    """Smallest rise that would have been found 95 times in 100."""

    energy_per_work_unit_j: float
    reference_energy_per_work_unit_j: float
    num_launches: int
    num_reference_launches: int
    explanation: str = ""
    """Why the verdict is what it is, in one sentence."""

    reference_change: float = math.nan
    """Change of the old stack against its own baseline, where one is shown: what is worse
    already and not because of the new stack."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, the point by its id; what was not estimated is NaN."""
        return {**asdict(self), "point": self.point.id}
