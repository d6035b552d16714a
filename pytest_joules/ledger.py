"""What a session knows and tells: wishes, results, verdicts, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from pytest_joules.errors import JoulesError
from pytest_joules.gate.calibration import Calibration
from pytest_joules.gate.ruling import Case
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.verdict import Comparison


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
    boards: dict[Point, tuple[str, ...]] = field(default_factory=dict)
    """GPUs of each server's first launch, where all later ones of both stacks run."""

    num_launches: int = 0
    spent_gpu_s: float = 0.0
    """Of launches that are over."""

    set_aside: list[int] = field(default_factory=list)
    """Positions in ``results`` of valid ones that no verdict may rest on any more."""

    incidents: list[str] = field(default_factory=list)
    """What a fleet lost on the way, for people."""

    is_budget_spent: bool = False
    """Whether something was left undone because ``--joules-budget`` was spent."""

    taken: "Taken | None" = None
    """What was taken over from an interrupted session; part of all of the above."""

    @property
    def kept(self) -> list[Result]:
        """The results without those that were set aside."""
        return [each for i, each in enumerate(self.results) if i not in self.set_aside]

    @property
    def open_points(self) -> list[Point]:
        """Points that were asked for and of which nothing has come, not even an error."""
        done = {*self.failures, *self.comparisons, *self.recorded}
        measured = {point for (point, _), runs in self.of_stack.items() if runs}
        return [
            point
            for point, wishes in self.wishes.items()
            if point not in done and (Wish.CHECK in wishes or point not in measured)
        ]

    def take_over(self, taken: "Taken") -> None:
        """Count what an interrupted session had measured, before anything else is measured."""
        self.taken = taken
        self.results += taken.results
        self.set_aside += taken.set_aside
        for result in self.kept:
            key = (result.point, result.provenance.context.stack)
            self.of_stack.setdefault(key, []).append(result)
        self.num_launches += taken.num_launches
        self.spent_gpu_s += taken.spent_gpu_s


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with everything that it rests on."""

    comparison: Comparison
    case: Case
    num_results: int
    """Results of the session when it was made; later ones had no part in it."""

    set_aside: tuple[int, ...] = ()
    """Positions of those among them that had no part in it either."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What an interrupted session leaves to the one that goes on with it."""

    session: str
    """Name of the interrupted session."""

    results: Sequence[Result]
    """Its finished, valid measurements, in order."""

    judgements: Sequence[Judgement]
    """Its verdicts, each counting ``results`` only."""

    num_launches: int
    spent_gpu_s: float
    set_aside: Sequence[int] = ()
    """Positions of results that no new verdict may rest on."""


class Listener:
    """Hears of everything that a session finds out, at once."""

    def spent(self, num_launches: int, gpu_s: float) -> None:
        """Take what the session has cost so far; told ahead of each result."""

    def spent_elsewhere_gpu_s(self) -> float:
        """Return what other processes of the same run have spent of its budget."""
        return 0.0

    def calibrated(self, point: Point, calibration: Calibration) -> None:
        """Take what a calibration found."""

    def set_aside(self, positions: Sequence[int]) -> None:
        """Take which results, by position, no verdict may rest on any more."""

    def finished(self, result: Result) -> None:
        """Take a result, valid or not."""

    def judged(self, judgement: Judgement) -> None:
        """Take a verdict."""
