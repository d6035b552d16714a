"""One session: shares launches between points, remembers results, asks for verdicts.

Points become known in the rehearsal (``note``); each launch then serves every point of its
server that is still open, so that a sweep costs one start.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from pytest_joules import baseline
from pytest_joules.errors import (
    ConfigurationError,
    Inconclusive,
    InvalidMeasurement,
    JoulesError,
    is_expected,
)
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.options import Options
from pytest_joules.plan import Launch, Plan, Stack, plan, require_runs_on, server_key
from pytest_joules.point import Point
from pytest_joules.referee import Referee
from pytest_joules.result import Result
from pytest_joules.sources import Source
from pytest_joules.steady_state import Work
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


class Wish(Enum):
    """What a test wants of a point."""

    MEASURE = auto()
    CHECK = auto()


@dataclass(kw_only=True)
class Ledger:
    """Everything a session knows; the only state that changes."""

    wishes: dict[Point, set[Wish]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    """Every result in order, valid or not."""

    of_stack: dict[tuple[Point, str], list[Result]] = field(default_factory=dict)
    """Valid results by point and stack name, one for each launch."""

    failures: dict[Point, JoulesError] = field(default_factory=dict)
    comparisons: dict[Point, Comparison] = field(default_factory=dict)
    recorded: dict[Point, int] = field(default_factory=dict)
    """Runs added to baselines."""

    num_launches: int = 0
    spent_gpu_s: float = 0.0


class JoulesSession:
    """Measures points and judges them; one for each pytest run."""

    def __init__(
        self,
        options: Options,
        source: Source,
        *,
        finished: Callable[[Result], None] = lambda result: None,  # noqa: ARG005  nobody listens
    ) -> None:
        self.options = options
        self.source = source
        self.ledger = Ledger()
        self.stack = options.stack_named(options.stack)
        self.old_stack = options.stack_named(options.against) if options.against else None
        if self.old_stack and self.old_stack.name == self.stack.name:
            raise ConfigurationError(
                f"--joules-against={self.stack.name} is the stack under test: compared with "
                "itself nothing ever changes. Name another with --joules-stack."
            )
        self._finished = finished
        self.referee = Referee(
            options=options, source=source, stack=self.stack, old_stack=self.old_stack
        )

    def note(self, point: Point, wish: Wish, tolerance: float | None = None) -> None:
        """Remember that a test will ask for a point.

        Raises:
            InvalidPoint: The point cannot run on the session's GPU.
            ConfigurationError: Another tolerance was asked of the same point.
        """
        require_runs_on(point, self.options.gpu)
        self.ledger.wishes.setdefault(point, set()).add(wish)
        if wish is Wish.CHECK and not self.options.record:  # which judges nothing
            asked = self.options.tolerance if tolerance is None else tolerance
            self._require_one_tolerance(point, asked)
            self.referee.tolerances[point] = asked

    def _require_one_tolerance(self, point: Point, asked: float) -> None:
        # A verdict is made once a session; the second test would get the first one's.
        known = self.referee.tolerances.get(point, asked)
        if known != asked:
            raise ConfigurationError(
                f"{point.id}: checked with tolerance {known:g} and with {asked:g} in one "
                "session; a point gets one verdict. Use one tolerance for it."
            )

    def plan(self) -> Plan:
        """Return the launches of all noted points, each made once."""
        return plan(tuple(self.ledger.wishes), stack=self.stack, gpu=self.options.gpu)

    def measure(self, point: Point) -> Result:
        """Return the point's result, measuring it if that has not been done.

        Raises:
            InvalidMeasurement: The validity contract was broken.
            JoulesError: The point could not be measured.
        """
        self.note(point, Wish.MEASURE)
        # Again where a launch ended with another point before it came to this one.
        while not self._of(point, self.stack):
            self._raise_failure(point)
            self._launch(self._open_points(point, self.stack), self.stack)
        return self._of(point, self.stack)[0]

    def check(self, point: Point, tolerance: float | None = None) -> Comparison:
        """Return the point's verdict, launching until it is decided.

        Raises:
            BaselineMissing: There is nothing to compare with.
            BaselineMismatch: The baseline is of other hardware.
            JoulesError: The point could not be measured.
        """
        self.note(point, Wish.CHECK, tolerance)
        while point not in self.ledger.comparisons:
            self._raise_failure(point)
            wanted = self._decide(point)
            if wanted is not None:
                self._launch(self._open_points(point, wanted), wanted)
        return self.ledger.comparisons[point]

    def record(self, point: Point) -> int:
        """Measure a point and add its runs to the baseline; return how many.

        Raises:
            JoulesError: The point could not be measured.
        """
        self.note(point, Wish.CHECK)
        while len(self._of(point, self.stack)) < self.options.launches:
            self._raise_failure(point)
            self._launch(self._open_points(point, self.stack), self.stack)
        self._raise_failure(point)
        if point not in self.ledger.recorded:
            runs = self._of(point, self.stack)
            baseline.record(self.options.baselines, runs)
            self.ledger.recorded[point] = len(runs)
        return self.ledger.recorded[point]

    def _decide(self, point: Point) -> Stack | None:
        """Ask the referee; return the stack to launch next, or ``None`` once decided."""
        ruling = self.referee.rule(point, self.ledger.of_stack)
        if ruling.comparison is not None:
            self.ledger.comparisons[point] = ruling.comparison
        return ruling.next_stack

    def _open_points(self, first: Point, stack: Stack) -> list[Point]:
        """Return the points that the launch for ``first`` can serve and that need it."""
        key = server_key(first)
        mates = [point for point in self.ledger.wishes if server_key(point) == key]
        return [point for point in mates if point == first or self._needs(point, stack)]

    def _needs(self, point: Point, stack: Stack) -> bool:
        ledger = self.ledger
        if point in ledger.failures or point in ledger.comparisons:
            return False
        done = len(self._of(point, stack))
        if Wish.CHECK not in ledger.wishes[point]:
            return stack == self.stack and done == 0
        if self.options.record:
            return done < self.options.launches
        try:
            return self._decide(point) == stack
        except JoulesError:
            return False  # its own test asks again and gets the error

    def _launch(self, points: Iterable[Point], stack: Stack) -> None:
        launch = self._launch_of(points, stack)
        self._require_budget(launch)
        open_points = list(launch.points)
        started_s = self.source.clock()
        self.ledger.num_launches += 1
        try:
            for outcome in self.source.outcomes(launch, self._frozen(launch)):
                point = outcome.point
                open_points.remove(point)
                self._keep(outcome, stack)
        except JoulesError as error:
            self.ledger.failures.update(dict.fromkeys(open_points, error))
        finally:
            elapsed_s = self.source.clock() - started_s
            self.ledger.spent_gpu_s += elapsed_s * launch.largest.num_gpus

    def _launch_of(self, points: Iterable[Point], stack: Stack) -> Launch:
        return plan(tuple(points), stack=stack, gpu=self.options.gpu).launches[0]

    def _require_budget(self, launch: Launch) -> None:
        budget, spent = self.options.budget, self.ledger.spent_gpu_s / 60
        if budget is None:
            return
        cost = Plan(launches=(launch,)).total_gpu_minutes
        if spent + cost > budget:
            raise Inconclusive(
                f"{launch.largest.id}: {spent:.1f} of {budget:g} GPU minutes are spent and the "
                f"next launch takes about {cost:.1f}; raise --joules-budget."
            )

    def _frozen(self, launch: Launch) -> dict[Point, FrozenWork]:
        known = {point: self._first_run(point) for point in launch.points}
        return {
            point: FrozenWork(
                num_requests=run.evidence.num_requests,
                work=Work(
                    start_index=run.evidence.start_index, end_index=run.evidence.end_index
                ),
            )
            for point, run in known.items()
            if run is not None and run.evidence is not None
        }

    def _first_run(self, point: Point) -> Result | None:
        """Return the run whose work all later ones of the point repeat."""
        stacks = [self.stack, self.old_stack] if self.old_stack else [self.stack]
        here = [run for stack in stacks for run in self._of(point, stack)]
        stored = () if self.options.record else self.referee.known_runs(point)
        return next(iter([*stored, *here]), None)

    def _keep(self, outcome: Outcome, stack: Stack) -> None:
        if isinstance(outcome, Failure):
            self.ledger.failures[outcome.point] = outcome.error
            return
        self.ledger.results.append(outcome)
        self._finished(outcome)
        if outcome.is_valid:
            self._of(outcome.point, stack).append(outcome)
        else:
            self.ledger.failures[outcome.point] = _invalid(outcome)

    def _of(self, point: Point, stack: Stack) -> list[Result]:
        return self.ledger.of_stack.setdefault((point, stack.name), [])

    def _raise_failure(self, point: Point) -> None:
        if point in self.ledger.failures:
            raise self.ledger.failures[point]


def _invalid(result: Result) -> InvalidMeasurement:
    reasons = "\n".join(f"  {reason.code}: {reason.text}" for reason in result.reasons)
    return InvalidMeasurement(
        f"{result.point.id}: not a valid measurement, neither passed nor recorded\n{reasons}"
    )
