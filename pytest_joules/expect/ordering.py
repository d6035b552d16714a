"""Whether results stand in an expected order: trials, how they count, how they read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from pytest_joules.expect.quantity import written
from pytest_joules.units import percent

_MOST_ROWS = 12


class Outcome(StrEnum):
    """What became of one trial, or of all of them together."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "within noise"
    EXCEPTION = "exception"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Two values, what was expected of them, and what came out."""

    key: str
    """What the two have in common: a batch size, a model and a batch size, ..."""

    group: str
    """Trials of one group stand or fall together and count once."""

    quantity: str
    a: float
    b: float
    work_units: tuple[str, str]
    outcome: Outcome
    half_width: float = 0.0
    """How far the logarithm of the ratio may be off; 0 where noise is unknown."""

    @property
    def change(self) -> float:
        """Return a over b minus one."""
        return self.a / self.b - 1

    @property
    def row(self) -> tuple[str, ...]:
        """Write it for the table."""
        noise = f"+/- {100 * math.expm1(self.half_width):.1f} %" if self.half_width else ""
        return (
            self.key,
            written(self.a, self.quantity, self.work_units[0]),
            written(self.b, self.quantity, self.work_units[1]),
            percent(self.change),
            noise,
            self.outcome.value,
        )


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """An expectation, every trial of it, and how many had to hold."""

    claim: str
    """What was expected, in words."""

    by: str
    """What the trials' keys are."""

    labels: tuple[str, str]
    """Names of the two sides."""

    trials: tuple[Trial, ...]
    required: int
    """How many groups of trials must hold."""

    source: str = "live"
    """Of all results: an ordering never mixes them."""

    @property
    def wins(self) -> int:
        """Groups in which every trial holds."""
        return self._count(Outcome.HOLDS)

    @property
    def losses(self) -> int:
        """Groups in which a trial fails."""
        return self._count(Outcome.FAILS)

    @property
    def undecided(self) -> int:
        """Groups in which noise hides the answer."""
        return self._count(Outcome.UNDECIDED)

    @property
    def num(self) -> int:
        """Groups that count: all but the named exceptions."""
        return self.wins + self.losses + self.undecided

    @property
    def outcome(self) -> Outcome:
        """Tell whether enough groups hold, or could not, or cannot be told."""
        if self.wins >= self.required:
            return Outcome.HOLDS
        if self.num - self.losses < self.required:
            return Outcome.FAILS
        return Outcome.UNDECIDED

    @property
    def exceptions(self) -> tuple[Trial, ...]:
        """The trials that were named as exceptions."""
        return tuple(t for t in self.trials if t.outcome is Outcome.EXCEPTION)

    def _count(self, outcome: Outcome) -> int:
        return sum(one is outcome for one in self._groups().values())

    def _groups(self) -> dict[str, Outcome]:
        found: dict[str, set[Outcome]] = {}
        for trial in self.trials:
            found.setdefault(trial.group, set()).add(trial.outcome)
        return {group: _together(outcomes) for group, outcomes in found.items()}

    def describe(self) -> str:
        """Write the claim, the count, and a table of the trials that do not hold."""
        mark = f" [{self.source}]" if self.source in ("fake", "simulated") else ""
        lines = [
            f"{self.claim}{mark}: {self.wins} of {self.num} hold, {self.required} needed"
            + (f", {self.undecided} within noise" if self.undecided else "")
            + (f", {len(self.exceptions)} excepted" if self.exceptions else "")
            + "."
        ]
        offending = [t for t in self.trials if t.outcome in (Outcome.FAILS, Outcome.UNDECIDED)]
        offending.sort(key=lambda trial: trial.outcome is not Outcome.FAILS)
        if not offending:
            return lines[0]
        lines += _table(
            [(self.by, *self.labels, "change", "noise", ""), *_rows(offending)],
        )
        if len(offending) > _MOST_ROWS:
            lines.append(f"  ... and {len(offending) - _MOST_ROWS} more")
        return "\n".join(lines)


def _together(outcomes: set[Outcome]) -> Outcome:
    for worst in (Outcome.FAILS, Outcome.UNDECIDED, Outcome.HOLDS):
        if worst in outcomes:
            return worst
    return Outcome.EXCEPTION


def _rows(trials: Sequence[Trial]) -> Sequence[tuple[str, ...]]:
    return [trial.row for trial in islice(trials, _MOST_ROWS)]


def _table(rows: Sequence[tuple[str, ...]]) -> Sequence[str]:
    """Align columns, the first to the left, and leave out those without content."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    first, *others = widths
    return [
        "  "
        + "  ".join(
            (
                row[0].ljust(first),
                *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True)),
            )
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
