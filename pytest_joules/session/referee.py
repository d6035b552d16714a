"""Asks the gate about the points of one session: baselines, tolerance, shared noise.

The chance of any false alarm is shared among all comparisons of the session, and what is
known of the noise between launches is shared as well: other points' baselines narrow the
prior, other points' launches show when the noise has grown.
"""

from contextlib import suppress
from dataclasses import dataclass, field

from pytest_joules import baseline
from pytest_joules.errors import (
    BaselineMissing,
    ConfigurationError,
    JoulesError,
    is_expected,
)
from pytest_joules.gate.calibration import Calibration, calibrate
from pytest_joules.gate.compare import noise_between
from pytest_joules.gate.design import OLD, Design, known_noise, require_tolerance
from pytest_joules.gate.launch_value import launch_value
from pytest_joules.gate.ruling import Case, Launched, rule
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.provenance import require_comparable
from pytest_joules.result import Result
from pytest_joules.sources import Source
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected

CALIBRATED_DF = 7
"""Degrees of freedom from which a baseline's noise counts as known: eight launches."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A comparison, or the stack that must be launched to get one."""

    case: Case
    """What it rests on, to be stored with it."""

    comparison: Comparison | None = None
    next_stack: Stack | None = None


@dataclass(kw_only=True)
class Referee:
    """Judges points against baselines or an old stack."""

    options: Options
    source: Source
    stack: Stack
    old_stack: Stack | None
    tolerances: dict[Point, float] = field(default_factory=dict)
    """Every point that this session compares."""

    _baselines: dict[Point, tuple[Result, ...]] = field(default_factory=dict)

    def rule(self, point: Point, launched: Launched) -> Ruling:
        """Decide about a point, or say what to launch next.

        Raises:
            BaselineMissing: There is nothing to compare with.
            BaselineMismatch: The baseline is of other hardware.
        """
        self.baseline(point)
        case = self.case()
        decision = rule(point, launched, case)
        if decision.verdict is not None:
            return Ruling(case=case, comparison=case.compared(point, decision))
        stack = self.old_stack if decision.next_stack == OLD else self.stack
        return Ruling(case=case, next_stack=stack)

    def case(self) -> Case:
        """Return what verdicts rest on now: later points and their baselines add to it."""
        known = {point: self.known_runs(point) for point in self.tolerances}
        return Case(
            stack=self.stack.name,
            against=self.old_stack.name if self.old_stack else "",
            tolerances=dict(self.tolerances),
            baselines={point: runs for point, runs in known.items() if runs},
        )

    def set_tolerance(self, point: Point, tolerance: float) -> None:
        """Remember the tolerance of a point; a session judges each point once.

        Raises:
            ConfigurationError: Another test asks for the same point with another one.
        """
        known = self.tolerances.setdefault(point, tolerance)
        if known != tolerance:
            raise ConfigurationError(
                f"{point.id} is checked with tolerances {known:.1%} and {tolerance:.1%}; a "
                "session judges each point once, so let its tests agree on one."
            )

    def require_tolerance(self, point: Point) -> None:
        """Refuse a tolerance that the point's calibrated noise cannot tell from nothing.

        Raises:
            ConfigurationError: With the smallest rise that could be found.
        """
        try:
            runs = self.baseline(point)
        except JoulesError:
            return  # the point's own test says so
        noise = noise_between([runs])
        if noise.df < CALIBRATED_DF:
            return
        design = known_noise(Design(tolerance=self.tolerances[point]), noise)
        require_tolerance(
            design,
            num_baseline=len(runs),
            has_old=self.old_stack is not None,
            launch_sd=design.prior_sd,
            df=design.prior_df,
        )

    def calibrate(self, point: Point, boards: tuple[str, ...]) -> Calibration:
        """Judge the point's recorded runs against each other and store what that says.

        Raises:
            ConfigurationError: There are too few of them on these boards.
            BaselineError: They cannot be read or written.
        """
        root, gpu = self.options.baselines, self.options.gpu
        runs = baseline.runs_for(root, point, gpu, source=self.source.name)
        values = [launch_value(run) for run in runs]
        made = calibrate(
            [value for value in values if value.gpu_uuids == boards],
            Design(tolerance=self.tolerances[point]),
        )
        path = baseline.path_for(root, point, gpu, source=self.source.name)
        baseline.store_calibration(path, point, made.as_json())
        return made

    def baseline(self, point: Point) -> tuple[Result, ...]:
        """Return the point's recorded runs; none are needed where an old stack can run.

        Raises:
            BaselineMissing: Nothing is recorded and no old stack is named.
            BaselineMismatch: They are of other hardware.
        """
        if point not in self._baselines:
            self._baselines[point] = self._loaded(point)
        return self._baselines[point]

    def _loaded(self, point: Point) -> tuple[Result, ...]:
        root, gpu = self.options.baselines, self.options.gpu
        try:
            runs = baseline.runs_for(root, point, gpu, source=self.source.name)
        except BaselineMissing:
            if self.old_stack is None:
                raise
            return ()
        launch = plan([point], stack=self.stack, gpu=gpu).launches[0]
        ours = self.source.identity(launch)
        for run in runs:
            require_comparable(ours, run.provenance.identity, point.id)
        return runs

    def require_recordable(self, point: Point) -> None:
        """Refuse a baseline that nothing can be added to, before a launch is spent on it.

        Raises:
            BaselineMismatch: It is of other hardware.
            FormatError: Its file is broken.
        """
        with suppress(BaselineMissing):
            self.baseline(point)

    def known_runs(self, point: Point) -> tuple[Result, ...]:
        """Return the point's recorded runs; none where its own test will say why."""
        try:
            return self.baseline(point)
        except JoulesError:
            return ()  # the point's own test says so
