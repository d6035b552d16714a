"""What a job of the ``joules`` command says, and the exit code that goes with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_joules.verdict import EXIT_UNDECIDED, Verdict

EXIT_RED = 1
"""Something regressed, or the job failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, in two forms."""

    lines: Sequence[str]
    """For people."""

    values: Any
    """The same for machines; NaN is printed as ``null``."""

    exit_code: int = 0


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """Return 1 after a regression, 6 where anything is undecided, else 0."""
    told = set(verdicts)
    if Verdict.REGRESSION in told:
        return EXIT_RED
    return EXIT_UNDECIDED if any(verdict.fails for verdict in told) else 0
