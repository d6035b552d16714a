"""What a session found out, put together for people: one row a point and stack."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from pytest_joules.diagnose import Diagnosis, diagnose
from pytest_joules.point import Point
from pytest_joules.provenance import differences
from pytest_joules.result import Reason, Result
from pytest_joules.verdict import Comparison, Verdict


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A test that failed, and why."""

    test: str
    file: str
    """Path from pytest's root."""

    line: int
    """Where the test begins, from 1 on."""

    kind: str
    """Name of the exception."""

    text: str
    is_undecided: bool = False
    """Whether it is inconclusive or invalid rather than red."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One point measured with one stack, and what it was compared with."""

    point: Point
    stack: str
    results: tuple[Result, ...]
    """Every launch, valid or not, in order."""

    comparison: Comparison | None = None
    references: tuple[Result, ...] = ()
    """The valid launches compared with: those of the old stack, or else the stored runs."""

    @cached_property
    def id(self) -> str:
        """The point's; kept, because a point works it out anew each time."""
        return self.point.id

    @cached_property
    def judged(self) -> tuple[Result, ...]:
        """The valid launches, or all where none is valid."""
        return tuple(result for result in self.results if result.is_valid) or self.results

    @property
    def is_valid(self) -> bool:
        return any(result.is_valid for result in self.results)

    @property
    def verdict(self) -> str:
        """One of the five answers; empty where nothing was compared."""
        if self.comparison is not None:
            return str(self.comparison.verdict)
        return "" if self.is_valid else "invalid"

    @property
    def energy_per_work_unit_j(self) -> float:
        return fmean(result.energy_per_work_unit_j for result in self.judged)

    @property
    def power_w(self) -> float:
        return fmean(
            result.energy_per_work_unit_j * result.throughput_work_units_per_s
            for result in self.judged
        )

    @property
    def throughput_work_units_per_s(self) -> float:
        return fmean(result.throughput_work_units_per_s for result in self.judged)

    @property
    def mean_batch_size(self) -> float | None:
        return mean(result.mean_batch_size for result in self.judged)

    @property
    def source(self) -> str:
        return self.results[0].source

    @property
    def gpu(self) -> str:
        return self.results[0].gpu

    @property
    def notes(self) -> tuple[Reason, ...]:
        """Each note once, though every launch words it with other numbers."""
        return tuple({note.code: note for r in self.results for note in r.notes}.values())

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Each broken rule once."""
        return tuple({why.code: why for r in self.results for why in r.reasons}.values())

    @cached_property
    def diagnosis(self) -> Diagnosis | None:
        """Why the energy changed; ``None`` where it did not, or nothing was compared."""
        changed = self.verdict not in ("", Verdict.UNCHANGED)
        if not (changed and self.references and self.results):
            return None
        return diagnose(self.references, self.judged)

    @property
    def software(self) -> Mapping[str, tuple[str, str]]:
        """What differs in software from the reference: ``{name: (old, new)}``."""
        if not self.references or not self.results:
            return {}
        ours, theirs = self.results[-1].provenance, self.references[-1].provenance
        return differences(ours.context, theirs.context)


@dataclass(frozen=True, kw_only=True)
class Digest:
    """A whole session, running or stored."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    failed: tuple[Failed, ...] = ()
    num_launches: int = 0
    spent_gpu_s: float | None = None
    """``None`` where the session did not live to say."""

    has_ended: bool = True
    """Whether the session, if it is over, lived to write its own end."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the results come from; where there are none, where they would have."""
        planned = self.settings.get("source")
        return tuple(
            sorted({row.source for row in self.rows} or ({planned} if planned else ()))
        )


def rows_of(
    results: Sequence[Result],
    comparisons: Mapping[Point, Comparison],
    baselines: Mapping[Point, Sequence[Result]] | None = None,
) -> tuple[Row, ...]:
    """Put results together by point and stack, in order of their first launch."""
    groups: dict[tuple[Point, str], list[Result]] = {}
    for result in results:
        stack = result.provenance.context.stack
        groups.setdefault((result.point, stack), []).append(result)
    return tuple(_rows(groups, comparisons, baselines or {}))


def _rows(
    groups: Mapping[tuple[Point, str], Sequence[Result]],
    comparisons: Mapping[Point, Comparison],
    baselines: Mapping[Point, Sequence[Result]],
) -> Iterator[Row]:
    for (point, stack), results in groups.items():
        comparison = comparisons.get(point)
        if comparison is None or comparison.reference == stack:
            yield Row(point=point, stack=stack, results=tuple(results))
            continue
        old = [r for r in groups.get((point, comparison.reference), ()) if r.is_valid]
        yield Row(
            point=point,
            stack=stack,
            results=tuple(results),
            comparison=comparison,
            references=tuple(old or baselines.get(point, ())),
        )


def mean(values: Iterator[float | None]) -> float | None:
    """Return the mean of the values that were measured; ``None`` for none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
