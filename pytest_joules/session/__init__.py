"""One session: shares launches between points, remembers results, asks for verdicts.

Points become known in the rehearsal (``note``); each launch then serves every point of its
server that is still open, so that a sweep costs one start.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from pytest_joules import baseline
from pytest_joules.budget import Budget, expected_costs
from pytest_joules.errors import (
    ConfigurationError as ConfigurationError,
)
from pytest_joules.errors import (
    Inconclusive,
    JoulesError,
    is_expected,
)
from pytest_joules.ledger import Judgement, Ledger, Listener, Taken, Wish
from pytest_joules.load.media import require_media
from pytest_joules.measure import Outcome
from pytest_joules.options.frozen import Options
from pytest_joules.plan import (
    ATTACHED,
    Boards,
    Launch,
    Plan,
    Stack,
    plan,
    require_launchable,
    require_no_secret,
    require_runs_on,
    require_stack,
    require_two,
    server_key,
)
from pytest_joules.point import Point
from pytest_joules.provenance import Context
from pytest_joules.result import Result
from pytest_joules.session.boards import boards
from pytest_joules.session.referee import Referee
from pytest_joules.session.runs import Runs
from pytest_joules.sources import Source
from pytest_joules.verdict import Comparison

__tracebackhide__ = is_expected


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
        require_two(self.stack, self.old_stack)
        costs = expected_costs(options.window)
        self._budget = Budget(gpu_minutes=options.budget, costs=costs)
        self._listener = listener or Listener()
        self.referee = Referee(
            options=options, source=source, stack=self.stack, old_stack=self.old_stack
        )
        self._runs = Runs(
            ledger=self.ledger,
            referee=self.referee,
            listener=self._listener,
            stacks=tuple(filter(None, (self.stack, self.old_stack))),
        )

    def note(self, point: Point, wish: Wish, tolerance: float | None = None) -> None:
        """Remember that a test will ask for a point.

        Raises:
            InvalidPoint: The point cannot run on the session's GPU, or shows files that are
                not there.
            MissingDependency: It shows images that cannot be made here.
            ConfigurationError: A stack cannot run it, an argument is a secret, or it is noted
                with another tolerance already.
        """
        # What is looked up only need not be known here.
        require = require_launchable if self.source.launches else require_runs_on
        require(point, self.options.gpu)
        if self.source.name == "live":
            require_media(point)
        for stack in filter(None, (self.stack, self.old_stack)):
            require_no_secret(point, stack)
            if self.source.name == "live":
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
        made = plan(tuple(self.ledger.wishes), stack=self.stack, gpu=self.options.gpu)
        return replace(made, costs=self._budget.costs)

    def take_over(self, taken: Taken) -> None:
        """Go on where an interrupted session stopped: what it knew counts as found out here."""
        self.ledger.take_over(taken)
        for result in self.ledger.kept:
            self._runs.keep_to_board(result)
        for judgement in taken.judgements:
            self._judged(judgement)

    def measure(self, point: Point) -> Result:
        """Return the point's result, measuring it if that has not been done.

        Raises:
            InvalidMeasurement: The validity contract was broken.
            JoulesError: The point could not be measured.
        """
        self.note(point, Wish.MEASURE)
        # Again where a launch ended with another point before it came to this one.
        while not self._runs.of(point, self.stack):
            self._raise_failure(point)
            self._launch(self._open_points(point, self.stack), self.stack)
        return self._runs.of(point, self.stack)[0]

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
        while len(self._runs.of(point, self.stack)) < self._launches_of(point):
            self._raise_failure(point)
            self._launch(self._open_points(point, self.stack), self.stack)
        self._raise_failure(point)
        if point not in self.ledger.recorded:
            runs = self._runs.of(point, self.stack)
            baseline.record(self.options.baselines, self._not_recorded(runs))
            self.ledger.recorded[point] = len(runs)
            if self.options.calibrate:
                uuids = runs[0].provenance.context.gpu_uuids
                calibration = self.referee.calibrate(point, uuids)
                self.ledger.calibrations[point] = calibration
                self._listener.calibrated(point, calibration)
        return self.ledger.recorded[point]

    def _not_recorded(self, runs: Sequence[Result]) -> list[Result]:
        """Leave out what an interrupted session has added to the baseline already."""
        return [run for run in runs if not self._runs.is_recorded(run)]

    def pair(self, point: Point) -> tuple[Result, Result] | None:
        """Return a new result and one of what it is compared with; ``None`` without both."""
        old = self._runs.of(point, self.old_stack) if self.old_stack else []
        stored = self.referee.known_runs(point)
        new, reference = self._runs.of(point, self.stack)[-1:], [*stored, *old][-1:]
        return (new[0], reference[0]) if new and reference else None

    def sides(self, point: Point) -> tuple[list[Result], list[Result]]:
        """Return what the point is compared with and what is compared, to be explained.

        An invalid measurement, where there is no valid one, is better explained than not.
        """
        old = self._runs.of(point, self.old_stack) if self.old_stack else []
        seen = [result for result in self.ledger.results if result.point == point]
        new = self._runs.of(point, self.stack) or [r for r in seen if not r.is_valid][-1:]
        return old or list(self.referee.known_runs(point)), new

    def _decide(self, point: Point) -> Stack | None:
        """Ask the referee; return the stack to launch next, or ``None`` once decided."""
        ruling = self.referee.rule(point, self.ledger.of_stack)
        if ruling.comparison is not None:
            judgement = Judgement(
                comparison=ruling.comparison,
                case=ruling.case,
                num_results=len(self.ledger.results),
                set_aside=tuple(self.ledger.set_aside),
            )
            self._judged(judgement)
            self._listener.judged(judgement)
        return ruling.next_stack

    def _judged(self, judgement: Judgement) -> None:
        point = judgement.comparison.point
        self.ledger.comparisons[point] = judgement.comparison
        self.ledger.alphas[point] = judgement.case.design(point).alpha

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
        done = len(self._runs.of(point, stack))
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
        try:
            with self.source.leased(launch) as placed:
                self._require_budget(placed)  # others have spent of it while this one waited
                self._run(placed, open_points)
        except JoulesError as error:
            self.ledger.failures.update(dict.fromkeys(open_points, error))

    def _run(self, launch: Launch, open_points: list[Point]) -> None:
        started_s = self.source.clock()
        self.ledger.num_launches += 1
        try:
            with closing(self.source.outcomes(launch, self._runs.frozen(launch))) as outcomes:
                for outcome in outcomes:
                    open_points.remove(outcome.point)
                    self._keep(outcome, launch.stack, self._spent_gpu_s(launch, started_s))
                    if not self._allows(open_points, launch, started_s):
                        return  # whoever asks for the others hears that it is spent
        finally:
            self.ledger.spent_gpu_s = self._spent_gpu_s(launch, started_s)
            self._listener.spent(self.ledger.num_launches, self.ledger.spent_gpu_s)

    def _spent_gpu_s(self, launch: Launch, started_s: float) -> float:
        elapsed_s = self.source.clock() - started_s
        return self.ledger.spent_gpu_s + elapsed_s * launch.largest.num_gpus

    def _allows(self, points: Sequence[Point], launch: Launch, started_s: float) -> bool:
        """Tell whether the budget of all processes of this run allows the next point."""
        spent_gpu_s = self._spent_gpu_s(launch, started_s) + self._elsewhere_gpu_s()
        return self._budget.allows(points, launch, spent_gpu_s)

    def _elsewhere_gpu_s(self) -> float:
        """Return what others have spent of the same budget, or may yet."""
        return self._listener.spent_elsewhere_gpu_s()

    def settle(self) -> None:
        """Count what launches have cost that the end of the session cuts short."""

    def _launch_of(self, points: Iterable[Point], stack: Stack) -> Launch:
        launch = plan(tuple(points), stack=stack, gpu=self.options.gpu).launches[0]
        return replace(launch, boards=self._boards(launch))

    def _boards(self, launch: Launch) -> Boards:
        """Say where the launch should run: where its server ran, or its baseline was made."""
        checked = [p for p in launch.points if Wish.CHECK in self.ledger.wishes.get(p, ())]
        stored = [run for point in checked for run in self.referee.known_runs(point)]
        return boards(
            self.ledger.boards.get(server_key(launch.largest), ()),
            stored,
            # Without an old stack there is nothing to compare with on another board.
            waits=self.old_stack is None and not self.options.records,
        )

    def _require_restarted(self, launch: Launch) -> None:
        """Launches are the independent samples: one start of a server cannot give two."""
        if launch.largest.engine == ATTACHED and self._runs.of(launch.largest, launch.stack):
            raise Inconclusive(
                f"{launch.largest.id}: one start of the server at {launch.stack.url} is one "
                "sample, and a verdict needs another; restart the server and run again. "
                "Engines that this plugin launches need no help with that."
            )

    def _require_budget(self, launch: Launch) -> None:
        try:
            self._budget.require(launch, self.ledger.spent_gpu_s + self._elsewhere_gpu_s())
        except Inconclusive:
            self.ledger.is_budget_spent = True
            raise

    def _keep(self, outcome: Outcome, stack: Stack, spent_gpu_s: float) -> None:
        self._listener.spent(self.ledger.num_launches, spent_gpu_s)
        self._runs.keep(outcome, stack, self._told_by)

    def _told_by(self, result: Result) -> Context:
        """Return what must be as in launches taken over; boards are each server's own."""
        return replace(result.provenance.context, gpu_uuids=())

    def _raise_failure(self, point: Point) -> None:
        if point in self.ledger.failures:
            # Anew for each test, or its traceback would grow by the frames of those before.
            raise self.ledger.failures[point].with_traceback(None)
