"""The ``energy_bench`` fixture's value: what a test can ask for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Final

from pytest_joules import baseline
from pytest_joules.diagnose import diagnose
from pytest_joules.errors import (
    EnergyRegression,
    Inconclusive,
    InvalidMeasurement,
    InvalidPoint,
    is_expected,
)
from pytest_joules.options.marker import share
from pytest_joules.point import Point
from pytest_joules.report.causes import causes
from pytest_joules.report.text import explain, software_changes
from pytest_joules.result import Result
from pytest_joules.session import JoulesSession
from pytest_joules.verdict import Comparison, Verdict

__tracebackhide__ = is_expected

_EXPLAINED = (Verdict.REGRESSION, Verdict.INVALID)
"""Verdicts that are told with causes; what is undecided may be no change at all."""

Tell = Callable[[str, object], None]
"""Takes one name and value about the running test, for its report."""


_ONE_AT_A_TIME: Final = RLock()
"""Held while a point is measured or judged: threads of a test share the machine, too."""


class EnergyBench:
    """Measure points and assert on their energy."""

    def __init__(self, session: JoulesSession, *, tolerance: float | None, tell: Tell) -> None:
        self._session = session
        self._tolerance = tolerance
        self._tell = tell
        self.has_measured = False
        """Whether any call came to a measured value; a test without one proves nothing."""

        self.has_failed = False
        """Whether the test is known to have failed already, as in one of its subtests."""

    def __call__(self, **fields: Any) -> Result:
        """Measure the point with these fields; see ``Point``.

        Raises:
            JoulesError: The fields contradict each other, or measuring failed.
        """
        return self.measure(point_of(fields))

    def measure(self, point: Point) -> Result:
        """Measure a point; equal points are measured once in a session.

        Raises:
            JoulesError: Measuring failed, or broke the validity contract.
        """
        require_point(point)
        with _ONE_AT_A_TIME:
            result = self._session.measure(point)
        self.has_measured = True
        self._tell_result(result)
        return result

    def sweep(self, point: Point, **axes: Any) -> tuple[Result, ...]:
        """Measure the point for every combination of the listed values.

        Such as ``energy_bench.sweep(point, batch_size=[16, 64], precision="fp8")``.

        Raises:
            JoulesError: As ``measure``.
        """
        require_point(point)
        return tuple(self.measure(each) for each in point.sweep(**axes))

    def check(self, point: Point, *, tolerance: float | None = None) -> Comparison | None:
        """Compare a point with its baseline, or with the stack of ``--joules-against``.

        With ``--joules-record`` or ``--joules-calibrate`` the point's runs are added to its
        baseline instead, and nothing is judged or returned.

        Raises:
            EnergyRegression: Energy per work unit rose by more than the tolerance.
            Inconclusive: The launches allowed were not enough to tell.
            ConfigurationError: The tolerance is no share, or not the only one of this point.
            JoulesError: There is no usable baseline, or measuring failed.
        """
        require_point(point)
        with _ONE_AT_A_TIME:
            return self._checked(point, tolerance)

    def _checked(self, point: Point, tolerance: float | None) -> Comparison | None:
        if self._session.options.records:
            self._tell("joules_recorded_runs", self._session.record(point))
            self._tell("joules_baseline", str(self._baseline_file(point)))
            self.has_measured = True
            return None
        asked = asked_share(tolerance, self._tolerance)
        try:
            comparison = self._session.check(point, asked)
        except InvalidMeasurement as error:
            why = self._why(point)
            if not why:
                raise
            raise InvalidMeasurement("\n  ".join([str(error), *why])) from None
        self.has_measured = True
        self._tell_comparison(comparison)
        why = self._why(point) if comparison.verdict in _EXPLAINED else []
        new = self._session.sides(point)[1]
        source = new[-1].source if new else self._session.source.name
        _raise_verdict(comparison, self._software_changes(point), why, source=source)
        return comparison

    def _baseline_file(self, point: Point) -> Path:
        asked, source = self._session.options, self._session.source.name
        return baseline.path_for(asked.baselines, point, asked.gpu, source=source)

    def _why(self, point: Point) -> list[str]:
        """Return the ranked causes of a change; none without something to compare with."""
        then, now = self._session.sides(point)
        return causes(diagnose(then, now)) if then and now else []

    def _software_changes(self, point: Point) -> list[str]:
        pair = self._session.pair(point)
        return software_changes(*pair) if pair else []

    def _tell_result(self, result: Result) -> None:
        name = f"joules_energy_per_{result.point.work_unit}_j[{result.point.id}]"
        self._tell(name, float(result.energy_per_work_unit_j))
        self._tell(f"joules_power_w[{result.point.id}]", float(result.power_w))
        self._tell("joules_source", result.source)

    def _tell_comparison(self, comparison: Comparison) -> None:
        unit = comparison.point.work_unit
        self._tell("joules_point", comparison.point.id)
        self._tell("joules_source", self._session.source.name)
        self._tell("joules_verdict", str(comparison.verdict))
        self._tell("joules_change", comparison.change)
        self._tell("joules_change_low", comparison.low)
        self._tell("joules_change_high", comparison.high)
        self._tell("joules_tolerance", comparison.tolerance)
        self._tell(f"joules_energy_per_{unit}_j", comparison.energy_per_work_unit_j)
        self._tell(
            f"joules_reference_energy_per_{unit}_j", comparison.reference_energy_per_work_unit_j
        )


def asked_share(given: float | None, marked: float | None) -> float | None:
    """Return the tolerance of a call, or else the marker's.

    Raises:
        ConfigurationError: It is no share.
    """
    return marked if given is None else share(given, "check(tolerance=...)")


def _raise_verdict(
    comparison: Comparison, software: Sequence[str], why: Sequence[str], *, source: str
) -> None:
    match comparison.verdict:
        case Verdict.REGRESSION:
            raise EnergyRegression(explain(comparison, software, why, source=source))
        case Verdict.INCONCLUSIVE:
            raise Inconclusive(explain(comparison, software, source=source))
        case Verdict.INVALID:
            raise InvalidMeasurement(explain(comparison, software, why, source=source))
        case Verdict.UNCHANGED | Verdict.IMPROVEMENT:
            return


def point_of(fields: dict[str, Any]) -> Point:
    """Return the point that a call names by its fields.

    Raises:
        InvalidPoint: They are no point's.
    """
    if "model" not in fields:
        raise InvalidPoint(
            "no model is named; give model=, a Hugging Face repository or folder."
        )
    return Point.from_json(fields)


def require_point(point: object) -> None:
    """Refuse what is no point.

    Raises:
        InvalidPoint: It is none.
    """
    if not isinstance(point, Point):
        raise InvalidPoint(f"{point!r} is no Point; make one with Point(model=..., ...).")
