"""A session on a fleet: whatever is open is launched at once, tests take what has come.

The rehearsal has told every point. Each server key has a cell of its own, in which its
launches follow one another as in any session: the next one only while a point is undecided.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pytest_joules.errors import ConfigurationError, FleetError, is_expected
from pytest_joules.fleet.cell import Came, Ended, Event, Key, Lost, Ready, Refused, Went
from pytest_joules.fleet.source import FleetSource
from pytest_joules.ledger import Listener, Taken, Wish
from pytest_joules.measure import Outcome
from pytest_joules.options.frozen import Options
from pytest_joules.plan import ATTACHED, Boards, Launch, Stack, server_key
from pytest_joules.point import Point
from pytest_joules.provenance import Context
from pytest_joules.result import Result
from pytest_joules.session import JoulesSession

__tracebackhide__ = is_expected

Asked = tuple[list[Point], Stack]


@dataclass(kw_only=True)
class _Running:
    """What a key does in its cell."""

    asked: Asked | None = None
    """What to launch next, where a test or a lost cell asked for it."""

    launch: Launch | None = None
    open_points: list[Point] = field(default_factory=list)
    spent_gpu_s: float = 0.0
    """What the launch has cost, as far as its node has told."""

    kept_gpu_s: float = 0.0
    """What it should yet cost: kept for it, so that no other launch spends it."""


class FleetSession(JoulesSession):
    """Measures points on many machines and judges them."""

    def __init__(
        self,
        options: Options,
        source: FleetSource,
        *,
        listener: Listener | None = None,
        report: Callable[[str], None] = lambda text: None,  # noqa: ARG005  silence
    ) -> None:
        super().__init__(options, source, listener=listener)
        self.fleet = source
        self._report = report
        self._running: dict[Key, _Running] = {}
        self._settled: set[Key] = set()
        """Keys that wanted nothing more when they were last looked at."""

    def note(self, point: Point, wish: Wish, tolerance: float | None = None) -> None:
        if point.engine == ATTACHED:
            raise ConfigurationError(
                f"{point.id}: engine={ATTACHED!r} measures a server of this machine, which no "
                "fleet can place; run it without --joules-fleet."
            )
        super().note(point, wish, tolerance)

    def _launch(self, points: Iterable[Point], stack: Stack) -> None:
        """See that these points are launched, and take what has come of any.

        Callers ask again until they have what they want, so a turn at a time is enough.
        """
        listed = list(points)
        key = server_key(listed[0])
        if key not in self._running:
            self._ask(key, listed, stack)
        for other in dict.fromkeys(map(server_key, self.ledger.wishes)):
            if other not in self._running and other not in self._settled:
                self._want(other, None)
        events: list[Event] = []
        with self._left_undone(listed):
            events = self.fleet.wait()
        for event in events:  # also after one that found the fleet gone: a result stays one
            with self._left_undone(listed):
                self._take(event)

    @contextmanager
    def _left_undone(self, points: Iterable[Point]) -> Iterator[None]:
        """Let points fail where the fleet does; a session that goes on may measure them."""
        try:
            yield
        except FleetError as error:
            self.ledger.failures.update(dict.fromkeys(points, error))

    def _ask(self, key: Key, points: list[Point], stack: Stack) -> None:
        launch = self._launch_of(points, stack)
        if self._running and not self._affords(launch):
            return  # what runs is counted as planned and may cost less
        self._require_budget(launch)
        self._want(key, (points, stack))

    def _want(self, key: Key, asked: Asked | None) -> None:
        mates = asked[0] if asked else self._unfinished(key)
        if not mates:
            self._settled.add(key)
            return
        self._running[key] = _Running(asked=asked)
        self.fleet.want(key, self._launch_of(mates, self.stack))

    def _unfinished(self, key: Key) -> list[Point]:
        """Return the points that may need a launch, without asking the gate yet."""
        ledger = self.ledger
        return [
            point
            for point in ledger.wishes
            if server_key(point) == key
            and point not in ledger.failures
            and point not in ledger.comparisons
            and (Wish.CHECK in ledger.wishes[point] or not self._runs.of(point, self.stack))
        ]

    def _take(self, event: Event) -> None:
        match event:
            case Ready():
                self._go_on(event.key)
            case Went():
                event.tell()
            case Came():
                self._came(event)
                event.tell()
                self._let_go_on(event.key)
            case Ended():
                event.tell()
                self._ended(event)
            case Lost():
                event.tell()
                self._lost(event)
            case Refused():
                self._charge(event.key, self._running[event.key].spent_gpu_s)
                del self._running[event.key]
                self.fleet.release(event.key)
                left = self._unfinished(event.key)
                self.ledger.failures.update(dict.fromkeys(left, event.error))

    def _go_on(self, key: Key) -> None:
        """Start what the key wants next, or give its GPUs back."""
        running = self._running[key]
        asked, running.asked = running.asked or self._next(key), None
        launch = self._launch_of(*asked) if asked else None
        # A test that needs more than the budget has asks again, and is told.
        if launch is None or not self._affords(launch):
            del self._running[key]
            self._settled.add(key)
            self.fleet.release(key)
            return
        running.launch, running.open_points = launch, list(launch.points)
        running.spent_gpu_s = 0.0
        running.kept_gpu_s = 60 * self._budget.costs.gpu_minutes(launch)
        self.ledger.num_launches += 1
        self.fleet.launch(key, launch, self._runs.frozen(launch))

    def _affords(self, launch: Launch) -> bool:
        spent_gpu_s = self.ledger.spent_gpu_s + self._elsewhere_gpu_s()
        return self._budget.affords(launch, spent_gpu_s)

    def _next(self, key: Key) -> Asked | None:
        """Return what to launch next: points that share a server and a stack."""
        for point in self._unfinished(key):
            for stack in self._stacks:
                if self._needs(point, stack):
                    return self._open_points(point, stack), stack
        return None

    @property
    def _stacks(self) -> list[Stack]:
        is_alone = self.old_stack is None or self.options.records
        return [self.stack] if is_alone else [self.stack, self.old_stack]  # type: ignore[list-item]

    def _elsewhere_gpu_s(self) -> float:
        """Count what running launches have cost, and what is kept for them."""
        known = [each.spent_gpu_s + each.kept_gpu_s for each in self._running.values()]
        return super()._elsewhere_gpu_s() + sum(known)

    def _came(self, event: Came) -> None:
        running, outcome = self._running[event.key], event.outcome
        launch = running.launch
        assert launch is not None
        running.open_points.remove(outcome.point)
        running.spent_gpu_s = event.elapsed_s * launch.largest.num_gpus
        running.kept_gpu_s = self._budget.points_gpu_s(running.open_points, launch)
        told_gpu_s = sum(each.spent_gpu_s for each in self._running.values())
        self._keep(outcome, launch.stack, self.ledger.spent_gpu_s + told_gpu_s)

    def _let_go_on(self, key: Key) -> None:
        """Let a launch measure its next point if the budget has it, or end the launch."""
        running = self._running[key]
        if self.options.budget is None or not running.open_points:
            return
        assert running.launch is not None
        spent_gpu_s = self.ledger.spent_gpu_s + self._elsewhere_gpu_s() - running.kept_gpu_s
        is_allowed = self._budget.allows(running.open_points, running.launch, spent_gpu_s)
        if not is_allowed:
            running.kept_gpu_s = 0.0
        self.fleet.go_on(key, allowed=is_allowed)

    def take_over(self, taken: Taken) -> None:
        super().take_over(taken)
        self.fleet.survey.close()
        used = Counter(map(_boards, self.ledger.kept))
        for boards in sorted(filter(None, used)):
            if not self.fleet.survey.home(Boards(preferred=(boards,))):
                self._tell(
                    f"{used[boards]} measurement(s) on {', '.join(boards)} are taken over from "
                    "a node that is not there any more; those that are there are what it was"
                )

    def _told_by(self, result: Result) -> Context:
        """Keep what only a launch tells: nodes of a fleet may differ in driver and packages."""
        return Context(model_revision=result.provenance.context.model_revision)

    def _boards(self, launch: Launch) -> Boards:
        """Leave the boards to the cell, which keeps them from its first launch to its last.

        A server of which something was taken over is best measured where that was.
        """
        used = self.ledger.boards.get(server_key(launch.largest), ())
        return Boards(preferred=(used,) if used else ())

    def _keep(self, outcome: Outcome, stack: Stack, spent_gpu_s: float) -> None:
        if isinstance(outcome, Result):
            self._keep_to_one_board(outcome)
        super()._keep(outcome, stack, spent_gpu_s)

    def _keep_to_one_board(self, new: Result) -> None:
        """Set aside what was measured on other boards: a comparison begins again on these."""
        point, ledger = new.point, self.ledger
        compares = not self.options.record or self.options.calibrate
        is_open = Wish.CHECK in ledger.wishes[point] and point not in ledger.comparisons
        if not (new.is_valid and compares and is_open):
            return
        boards = _boards(new)
        for stack in self._stacks:
            results = self._runs.of(point, stack)
            old = [result for result in results if _boards(result) != boards]
            if old:
                results[:] = [result for result in results if _boards(result) == boards]
                ledger.set_aside += [_index(ledger.results, result) for result in old]
                self._listener.set_aside(ledger.set_aside)
                self._tell(
                    f"{point.id}: {len(old)} finished launch(es) of stack {stack.name} on "
                    f"{', '.join(_boards(old[0]))} are set aside; the comparison begins again "
                    f"on {', '.join(boards)}"
                )

    def _ended(self, event: Ended) -> None:
        running = self._running[event.key]
        assert running.launch is not None
        self._charge(event.key, event.elapsed_s * running.launch.largest.num_gpus)
        if event.error is not None:
            failures = dict.fromkeys(running.open_points, event.error)
            self.ledger.failures.update(failures)
        running.launch, running.open_points = None, []
        self._go_on(event.key)

    def _lost(self, event: Lost) -> None:
        """Ask for another cell; what came of the launch before it was lost stays."""
        running = self._running[event.key]
        launch, asked = running.launch, running.asked
        if launch is not None:
            gpu_s = event.elapsed_s * launch.largest.num_gpus
            self._charge(event.key, max(gpu_s, running.spent_gpu_s))
            asked = (running.open_points, launch.stack) if running.open_points else None
        left = f"; {len(asked[0])} point(s) are measured again" if asked else ""
        self._tell(f"{event.text}{left}")
        del self._running[event.key]
        self._want(event.key, asked)

    def settle(self) -> None:
        for key, running in self._running.items():
            if running.launch is not None:
                elapsed_s = self.fleet.elapsed_s(key)
                gpu_s = elapsed_s * running.launch.largest.num_gpus
                self._charge(key, max(gpu_s, running.spent_gpu_s))

    def _charge(self, key: Key, gpu_s: float) -> None:
        """Count what a launch that is over has cost."""
        running = self._running[key]
        self.ledger.spent_gpu_s += gpu_s
        running.spent_gpu_s = running.kept_gpu_s = 0.0
        self._listener.spent(self.ledger.num_launches, self.ledger.spent_gpu_s)

    def _tell(self, text: str) -> None:
        self.ledger.incidents.append(text)
        self._report(text)


def _boards(result: Result) -> tuple[str, ...]:
    return result.provenance.context.gpu_uuids


def _index(results: list[Result], wanted: Result) -> int:
    return next(i for i, result in enumerate(results) if result is wanted)
