"""What a session keeps of its launches: results, failures, boards, and the work to repeat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_joules.errors import (
    ConfigurationError,
    Inconclusive,
    InvalidMeasurement,
    is_expected,
)
from pytest_joules.ledger import Ledger, Listener, Wish
from pytest_joules.measure import Failure, FrozenWork, Outcome, frozen_work
from pytest_joules.plan import ATTACHED, Launch, Stack, server_key
from pytest_joules.point import Point
from pytest_joules.provenance import Context, require_same_context
from pytest_joules.result import Result
from pytest_joules.session.referee import Referee

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Writes what launches gave into a session's ledger, and finds it there."""

    ledger: Ledger
    referee: Referee
    listener: Listener
    stacks: Sequence[Stack]
    """What is launched: the stack under test, and the old one where there is one."""

    def of(self, point: Point, stack: Stack) -> list[Result]:
        """Return a point's valid results with a stack, one for each launch."""
        return self.ledger.of_stack.setdefault((point, stack.name), [])

    def frozen(self, launch: Launch) -> dict[Point, FrozenWork]:
        """Return the work that a launch must repeat, by point; points without it are free."""
        # Batches are all the same work: each run takes those after its own warming up.
        tokens = [point for point in launch.points if point.work_unit == "token"]
        known = {point: self._first_run(point) for point in tokens}
        return {
            point: frozen_work(run.evidence)
            for point, run in known.items()
            if run is not None and run.evidence is not None
        }

    def _first_run(self, point: Point) -> Result | None:
        """Return the run whose work all later ones of the point repeat."""
        here = [run for stack in self.stacks for run in self.of(point, stack)]
        return next(iter([*self.referee.known_runs(point), *here]), None)

    def keep(
        self, outcome: Outcome, stack: Stack, told_by: Callable[[Result], Context]
    ) -> None:
        """Keep a launch's outcome, and tell of it.

        Args:
            outcome: What came of a point.
            stack: What the launch ran.
            told_by: What a result tells that must be as in launches taken over.
        """
        if isinstance(outcome, Failure):
            self.ledger.failures[outcome.point] = outcome.error
            return
        self.ledger.results.append(outcome)
        self.keep_to_board(outcome)
        self.listener.finished(outcome)
        if self._is_of_the_baseline(outcome):
            self.ledger.failures[outcome.point] = _not_restarted(outcome)
        elif not outcome.is_valid:
            self.ledger.failures[outcome.point] = _invalid(outcome)
        elif error := self._other_software(outcome, told_by):
            self.ledger.failures[outcome.point] = error
        else:
            self.of(outcome.point, stack).append(outcome)

    def keep_to_board(self, result: Result) -> None:
        """Let all later launches of the result's server run where this one ran."""
        if board := result.provenance.context.gpu_uuids:
            self.ledger.boards.setdefault(server_key(result.point), board)

    def is_recorded(self, result: Result) -> bool:
        """Tell whether the baseline holds a result of the same launch."""
        stored = self.referee.known_runs(result.point)
        known = {run.evidence.launch_id for run in stored if run.evidence}
        return result.evidence is not None and result.evidence.launch_id in known

    def _other_software(
        self, result: Result, told_by: Callable[[Result], Context]
    ) -> ConfigurationError | None:
        """Find what only a launch shows to differ from the runs that were taken over."""
        taken, shared = self.ledger.taken, _launch_alike(result)
        known = taken.results if taken else ()
        alike = next((each for each in known if _launch_alike(each) == shared), None)
        if taken is None or alike is None:
            return None
        try:
            ours, theirs = told_by(result), alike.provenance.context
            require_same_context(ours, theirs, f"{alike.point.id}: session {taken.session}")
        except ConfigurationError as error:
            return error
        return None

    def _is_of_the_baseline(self, result: Result) -> bool:
        """Tell whether a baseline was recorded with the very server start measured now."""
        point = result.point
        if point.engine != ATTACHED or Wish.CHECK not in self.ledger.wishes[point]:
            return False
        return self.is_recorded(result)


def _launch_alike(result: Result) -> tuple[object, ...]:
    """Return what launches share that must tell the same software and model."""
    point = result.point
    return (result.provenance.context.stack, point.engine, point.model, point.num_gpus)


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
