"""One session: shares launches between points, remembers results, asks for verdicts.

Points become known in the rehearsal (``note``); each launch then serves every point of its
server that is still open, so that a sweep costs one start.
"""

from collections.abc import Iterable
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
from pytest_joules.gate.calibration import Calibration
from pytest_joules.gate.ruling import Case
from pytest_joules.load.media import require_media
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.options import Options
from pytest_joules.plan import (
    ATTACHED,
    Launch,
    Plan,
    Stack,
    plan,
    require_launchable,
    require_runs_on,
    require_stack,
    server_key,
)
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
    alphas: dict[Point, float] = field(default_factory=dict)
    """Each comparison's bound on the chance of a false alarm."""

    recorded: dict[Point, int] = field(default_factory=dict)
    """Runs added to baselines."""

    calibrations: dict[Point, Calibration] = field(default_factory=dict)

    num_launches: int = 0
    spent_gpu_s: float = 0.0
    set_aside: list[int] = field(default_factory=list)
    """Positions in ``results`` of valid ones that no verdict may rest on any more."""

    incidents: list[str] = field(default_factory=list)
    """What a fleet lost on the way, for people."""

    @property
    def kept(self) -> list[Result]:
        """The results without those that were set aside."""
        return [each for i, each in enumerate(self.results) if i not in self.set_aside]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with everything that it rests on."""

    comparison: Comparison
    case: Case
    num_results: int
    """Results of the session when it was made; later ones had no part in it."""

    set_aside: tuple[int, ...] = ()
    """Positions of those among them that had no part in it either."""


class Listener:
    """Hears of everything that a session finds out, at once."""

    def finished(self, result: Result) -> None:
        """Take a result, valid or not."""

    def judged(self, judgement: Judgement) -> None:
        """Take a verdict."""


class JoulesSession:
    """Measures points and judges them; one for each pytest run."""

    def __init__(
        self, options: Options, source: Source, *, listener: Listener | None = None
    ) -> None:
        self.options = options
        self.source = source
        self.ledger = Ledger()
        self.stack = options.stack_named(options.stack)
        self.old_stack = options.stack_named(options.against) if options.against else None
        _require_two(self.stack, self.old_stack)
        self._listener = listener or Listener()
        self.referee = Referee(
            options=options, source=source, stack=self.stack, old_stack=self.old_stack
        )

    def note(self, point: Point, wish: Wish, tolerance: float | None = None) -> None:
        """Remember that a test will ask for a point.

        Raises:
            InvalidPoint: The point cannot run on the session's GPU, or shows files that are
                not there.
            MissingDependency: It shows images that cannot be made here.
            ConfigurationError: A stack cannot run it, or it is noted with another tolerance
                already.
        """
        # What is looked up only need not be known here.
        require = require_launchable if self.source.launches else require_runs_on
        require(point, self.options.gpu)
        if self.source.name == "live":
            require_media(point)
            for stack in filter(None, (self.stack, self.old_stack)):
                require_stack(point, stack)
        self.ledger.wishes.setdefault(point, set()).add(wish)
        if wish is Wish.CHECK:
            asked = self.options.tolerance if tolerance is None else tolerance
            self.referee.set_tolerance(point, asked)

    def require_tolerance(self, point: Point) -> None:
        """Refuse a tolerance below what a point's calibrated noise can tell apart.

        Raises:
            ConfigurationError: With the smallest rise that could be found.
        """
        if point in self.referee.tolerances and not self.options.records:
            self.referee.require_tolerance(point)

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
        self.note(point, Wish.CHECK, self.referee.tolerances.get(point))
        self.referee.require_recordable(point)
        while len(self._of(point, self.stack)) < self._launches_of(point):
            self._raise_failure(point)
            self._launch(self._open_points(point, self.stack), self.stack)
        self._raise_failure(point)
        if point not in self.ledger.recorded:
            runs = self._of(point, self.stack)
            baseline.record(self.options.baselines, runs)
            self.ledger.recorded[point] = len(runs)
            if self.options.calibrate:
                boards = runs[0].provenance.context.gpu_uuids
                self.ledger.calibrations[point] = self.referee.calibrate(point, boards)
        return self.ledger.recorded[point]

    def pair(self, point: Point) -> tuple[Result, Result] | None:
        """Return a new result and one of what it is compared with; ``None`` without both."""
        old = self._of(point, self.old_stack) if self.old_stack else []
        stored = self.referee.known_runs(point)
        new, reference = self._of(point, self.stack)[-1:], [*stored, *old][-1:]
        return (new[0], reference[0]) if new and reference else None

    def sides(self, point: Point) -> tuple[list[Result], list[Result]]:
        """Return what the point is compared with and what is compared, to be explained.

        An invalid measurement, where there is no valid one, is better explained than not.
        """
        old = self._of(point, self.old_stack) if self.old_stack else []
        seen = [result for result in self.ledger.results if result.point == point]
        new = self._of(point, self.stack) or [r for r in seen if not r.is_valid][-1:]
        return old or list(self.referee.known_runs(point)), new

    def _decide(self, point: Point) -> Stack | None:
        """Ask the referee; return the stack to launch next, or ``None`` once decided."""
        ruling = self.referee.rule(point, self.ledger.of_stack)
        if ruling.comparison is not None:
            self.ledger.comparisons[point] = ruling.comparison
            self.ledger.alphas[point] = ruling.case.design(point).alpha
            judgement = Judgement(
                comparison=ruling.comparison,
                case=ruling.case,
                num_results=len(self.ledger.results),
                set_aside=tuple(self.ledger.set_aside),
            )
            self._listener.judged(judgement)
        return ruling.next_stack

    def _launches_of(self, point: Point) -> int:
        """Return how many launches to record; a server that we do not start gives one."""
        return 1 if point.engine == ATTACHED else self.options.num_launches

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
        if self.options.records:
            return done < self._launches_of(point)
        try:
            return self._decide(point) == stack
        except JoulesError:
            return False  # its own test asks again and gets the error

    def _launch(self, points: Iterable[Point], stack: Stack) -> None:
        launch = self._launch_of(points, stack)
        self._require_budget(launch)
        self._require_restarted(launch)
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

    def _require_restarted(self, launch: Launch) -> None:
        """Launches are the independent samples: one start of a server cannot give two."""
        if launch.largest.engine == ATTACHED and self._of(launch.largest, launch.stack):
            raise Inconclusive(
                f"{launch.largest.id}: one start of the server at {launch.stack.url} is one "
                "sample, and a verdict needs another; restart the server and run again. "
                "Engines that this plugin launches need no help with that."
            )

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
        # Batches are all the same work: each run takes those after its own warming up.
        tokens = [point for point in launch.points if point.work_unit == "token"]
        known = {point: self._first_run(point) for point in tokens}
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
        return next(iter([*self.referee.known_runs(point), *here]), None)

    def _keep(self, outcome: Outcome, stack: Stack) -> None:
        if isinstance(outcome, Failure):
            self.ledger.failures[outcome.point] = outcome.error
            return
        self.ledger.results.append(outcome)
        self._listener.finished(outcome)
        if self._is_of_the_baseline(outcome):
            self.ledger.failures[outcome.point] = _not_restarted(outcome)
        elif outcome.is_valid:
            self._of(outcome.point, stack).append(outcome)
        else:
            self.ledger.failures[outcome.point] = _invalid(outcome)

    def _is_of_the_baseline(self, result: Result) -> bool:
        """Tell whether a baseline was recorded with the very server start measured now."""
        point = result.point
        if point.engine != ATTACHED or Wish.CHECK not in self.ledger.wishes[point]:
            return False
        stored = self.referee.known_runs(point)
        known = {run.evidence.launch_id for run in stored if run.evidence}
        return result.evidence is not None and result.evidence.launch_id in known

    def _of(self, point: Point, stack: Stack) -> list[Result]:
        return self.ledger.of_stack.setdefault((point, stack.name), [])

    def _raise_failure(self, point: Point) -> None:
        if point in self.ledger.failures:
            # Anew for each test, or its traceback would grow by the frames of those before.
            raise self.ledger.failures[point].with_traceback(None)


def _not_restarted(result: Result) -> Inconclusive:
    return Inconclusive(
        f"{result.point.id}: the baseline holds a run of this very start of the server, which "
        "cannot be compared with itself nor count twice; restart the server and run again."
    )


def _invalid(result: Result) -> InvalidMeasurement:
    reasons = "\n".join(f"  {reason.code}: {reason.text}" for reason in result.reasons)
    return InvalidMeasurement(
        f"{result.point.id}: not a valid measurement, neither passed nor recorded\n{reasons}"
    )


def _require_two(stack: Stack, old_stack: Stack | None) -> None:
    if old_stack is not None and old_stack.name == stack.name:
        raise ConfigurationError(
            f"--joules-against={old_stack.name}: that is the stack under test itself. Name "
            "another one, or let `joules calibrate` compare a stack with itself."
        )
