"""Asks the gate about the points of one session: baselines, tolerance, shared noise.

The chance of any false alarm is shared among all comparisons of the session, and what is
known of the noise between launches is shared as well: other points' baselines narrow the
prior, other points' launches show when the noise has grown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_joules import baseline
from pytest_joules.errors import BaselineMissing, JoulesError, is_expected
from pytest_joules.gate import judge
from pytest_joules.gate.compare import comparison, launches, noise_between
from pytest_joules.gate.design import OLD, Design, known_noise, require_tolerance
from pytest_joules.options import Options
from pytest_joules.plan import Stack, plan
from pytest_joules.point import Point
from pytest_joules.provenance import require_comparable
from pytest_joules.result import Result
from pytest_joules.sources import Source
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected

CALIBRATED_DF = 7
"""Degrees of freedom from which a baseline's noise counts as known: eight launches."""

Launched = Mapping[tuple[Point, str], list[Result]]
"""Valid results of this session by point and stack name, one for each launch."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A comparison, or the stack that must be launched to get one."""

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
        design = self._design(point)
        old = launched.get((point, self.old_stack.name), []) if self.old_stack else []
        seen = launches(
            baseline=self.baseline(point),
            old=old,
            new=launched.get((point, self.stack.name), []),
            has_old=self.old_stack is not None,
            elsewhere=noise_between(
                group for (other, _), group in launched.items() if other != point
            ),
        )
        decision = judge(seen, design)
        if decision.verdict is not None:
            reference = self.options.against or "baseline"
            return Ruling(comparison=comparison(point, decision, design, reference=reference))
        return Ruling(next_stack=self.old_stack if decision.next_stack == OLD else self.stack)

    def require_tolerance(self, point: Point) -> None:
        """Refuse a tolerance that the point's calibrated noise cannot tell from nothing.

        Raises:
            ConfigurationError: With the smallest rise that could be found.
            BaselineError: As ``baseline``.
        """
        runs = self.baseline(point)
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

    def _design(self, point: Point) -> Design:
        others = [self.known_runs(other) for other in self.tolerances if other != point]
        design = Design(tolerance=self.tolerances[point]).divided(len(self.tolerances))
        return known_noise(design, noise_between(others))

    def known_runs(self, point: Point) -> tuple[Result, ...]:
        try:
            return self.baseline(point)
        except JoulesError:
            return ()  # the point's own test says so
