"""What a job of the ``joules`` command says, and the exit code that goes with it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pytest_joules.verdict import EXIT_UNDECIDED, Comparison, Verdict

EXIT_RED = 1
"""Something regressed, or the job failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, in two forms."""

    lines: Sequence[str]
    """For people."""

    values: Any
    """The same for machines, JSON-ready."""

    exit_code: int = 0


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Return 1 after a regression, 6 where anything is undecided, else 0."""
    told = set(verdicts)
    if Verdict.REGRESSION in told:
        return EXIT_RED
    return EXIT_UNDECIDED if any(verdict.fails for verdict in told) else 0


def comparison_values(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON-ready values; what was not estimated is ``None``."""
    values = {**asdict(comparison), "point": comparison.point.id}
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in values.items()
    }
