"""Results that were measured before, looked up by point and GPU.

A recorded row answers a point where all of these are equal: model, task, weights,
precision, number of GPUs, batch size and data parallelism. An FP8 point of a model whose
FP8 weights are published under their own name is answered by that checkpoint. Tensor
parallelism, ulysses and ring degree, steps, resolution, frames and fps are compared where
the point sets them, expert parallelism where the point asks for it. On one GPU, where xDiT
runs the diffusers pipeline unchanged, the two engines answer for each other. How requests
are shaped (mode, seed, lengths, number) is the recording's own and is not compared.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path

from pytest_joules import catalog
from pytest_joules.errors import ConfigurationError, NotMeasured, is_expected
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.plan import Launch
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity
from pytest_joules.result import Reason, Result, SourceName
from pytest_joules.sources.mlenergy import is_leaderboard, read_leaderboard
from pytest_joules.sources.store import read_results

__tracebackhide__ = is_expected

_COMPARED_IF_SET = (
    "tensor_parallel",
    "steps",
    "height",
    "width",
    "num_frames",
    "fps",
    "ulysses_degree",
    "ring_degree",
)
_NUM_NEAREST = 5
_Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class RecordedSource:
    """Answers points from a fixed set of results."""

    results: tuple[Result, ...]
    origin: str
    """Where they were read from, for messages."""

    name: SourceName = "recorded"
    launches: bool = False
    _index: dict[_Key, list[Result]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[_Key, list[Result]] = {}
        for result in self.results:
            index.setdefault(_key(result.point, result.gpu), []).append(result)
        object.__setattr__(self, "_index", index)

    @classmethod
    def from_options(cls, folder: Path | None) -> "RecordedSource":
        """Read the folder of ``--joules-data``.

        Raises:
            ConfigurationError: None is given, or as ``open``.
            FormatError: As ``open``.
        """
        if folder is None:
            raise ConfigurationError(
                "--joules-source=recorded needs --joules-data=PATH: a folder of the ML.ENERGY "
                "Leaderboard (index.json, tasks/) or of stored results."
            )
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "RecordedSource":
        """Read a folder of the ML.ENERGY Leaderboard or of the project's own results.

        Raises:
            ConfigurationError: There is no such folder, or it holds no results.
            FormatError: A file is broken or partial.
        """
        if not folder.is_dir():
            raise ConfigurationError(f"--joules-data={folder}: there is no such folder.")
        results = (
            read_leaderboard(folder).results if is_leaderboard(folder) else read_results(folder)
        )
        return cls(results=results, origin=str(folder))

    def leased(self, launch: Launch) -> AbstractContextManager[Launch]:
        """Hold nothing: looking up needs no GPU."""
        return nullcontext(launch)

    def clock(self) -> float:
        """Return 0: looking up costs no GPU time."""
        return 0.0

    def require_gpu(self, gpu: str) -> None:
        """Refuse a GPU of which nothing is recorded.

        Raises:
            NotMeasured: Names those that are.
        """
        known = sorted({result.gpu for result in self.results})
        if gpu not in known:
            raise NotMeasured(
                f"{self.origin} holds no results of {gpu}; it holds {', '.join(known)}."
            )

    def identity(self, launch: Launch) -> Identity:
        """Return the hardware that the launch's first point was recorded on.

        Raises:
            NotMeasured, ConfigurationError: As ``find``.
        """
        return self.find(launch.largest, gpu=launch.gpu)[0].provenance.identity

    def context(self, launch: Launch) -> Context:
        """Return what the launch's first point was recorded with; raises as ``find``."""
        return self.find(launch.largest, gpu=launch.gpu)[0].provenance.context

    def outcomes(
        self, launch: Launch, frozen: Mapping[Point, FrozenWork]
    ) -> Generator[Outcome, None, None]:
        """Yield the recorded result of each point, or why there is none."""
        del frozen  # a recording cannot repeat its work
        for point in launch.points:
            try:
                yield self.measure(point, gpu=launch.gpu)
            except (NotMeasured, ConfigurationError) as error:
                yield Failure(point=point, error=error)

    def find(self, point: Point, *, gpu: str) -> tuple[Result, ...]:
        """Return every result that answers the point; several are repeats of one point.

        Raises:
            NotMeasured: None does; names the nearest that are there.
            ConfigurationError: Rows of different configurations do; names the fields to set.
        """
        found = tuple(
            result for result in self._candidates(point, gpu) if answers(result.point, point)
        )
        if not found:
            raise NotMeasured(self._nothing(point, gpu))
        _require_one_configuration(found, point)
        return found

    def measure(self, point: Point, *, gpu: str) -> Result:
        """Return the result of a point; of repeats the first, with a note of the others.

        It carries the point that was asked; a note names the fields recorded otherwise.

        Raises:
            NotMeasured: As ``find``.
            ConfigurationError: As ``find``.
        """
        first, *others = self.find(point, gpu=gpu)
        notes = (*first.notes, *_recorded_as(first.point, point), *_repeated(others))
        return first.but(point=point, notes=notes)

    def _candidates(self, point: Point, gpu: str) -> list[Result]:
        return [
            result
            for model in checkpoints(point)
            for result in self._index.get((model, point.task, gpu), [])
        ]

    def _nothing(self, point: Point, gpu: str) -> str:
        near = nearest(self.results, point, gpu=gpu)
        shown = "; ".join(describe(result) for result in near)
        return (
            f"{point.id} on {gpu}: not recorded in {self.origin}. Nearest there: {shown}. "
            "Change the point, or measure it with --joules-source=live."
        )


def _recorded_as(recorded: Point, asked: Point) -> Iterator[Reason]:
    differing = [
        f"{each.name}={getattr(recorded, each.name)!r}"
        for each in fields(Point)
        if getattr(recorded, each.name) != getattr(asked, each.name)
    ]
    if differing:
        yield Reason(code="recorded-as", text=f"recorded with {', '.join(differing)}.")


def _repeated(others: Sequence[Result]) -> Iterator[Reason]:
    if others:
        energies = ", ".join(f"{each.energy_per_work_unit_j:.4g}" for each in others)
        text = f"recorded {1 + len(others)} times; the others: {energies} J per work unit."
        yield Reason(code="recorded-repeatedly", text=text)


def _key(point: Point, gpu: str) -> _Key:
    return (point.model, point.task, gpu)


def checkpoints(point: Point) -> tuple[str, ...]:
    """Return the repositories whose rows may answer a point: its own, and its FP8 twin."""
    known = catalog.model(point.model)
    if point.precision == "fp8" and known is not None and known.fp8_model_id:
        return (point.model, known.fp8_model_id)
    return (point.model,)


def answers(recorded: Point, asked: Point) -> bool:
    """Tell whether a row recorded for one point is the answer to another."""
    return (
        recorded.model in checkpoints(asked)
        and _same(recorded, asked, "task", "precision", "num_gpus", "batch_size")
        and _same(recorded, asked, "weights", "data_parallel")
        and _same(recorded, asked, *_set_by(asked))
        and (recorded.expert_parallel or not asked.expert_parallel)
        and _same_engine(recorded, asked)
    )


def _same(one: Point, other: Point, *names: str) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _set_by(point: Point) -> list[str]:
    return [name for name in _COMPARED_IF_SET if getattr(point, name) is not None]


def _same_engine(recorded: Point, asked: Point) -> bool:
    if asked.num_gpus == 1 and {recorded.engine, asked.engine} == {"diffusers", "xdit"}:
        return True
    return recorded.engine == asked.engine


def _require_one_configuration(found: Sequence[Result], asked: Point) -> None:
    names = (*_COMPARED_IF_SET, "model", "engine", "expert_parallel")
    differing = {
        name: sorted({str(getattr(result.point, name)) for result in found}) for name in names
    }
    choices = [
        f"{name} one of {', '.join(values)}"
        for name, values in differing.items()
        if len(values) > 1
    ]
    if choices:
        raise ConfigurationError(
            f"{asked.id}: {len(found)} recorded rows answer it; set {' and '.join(choices)}."
        )


def nearest(
    results: Iterable[Result], asked: Point, *, gpu: str, num_shown: int = _NUM_NEAREST
) -> list[Result]:
    """Return the results nearest to a point: same model first, then task, GPU and the rest."""
    return sorted(results, key=lambda result: _distance(result, asked, gpu))[:num_shown]


def _distance(result: Result, asked: Point, gpu: str) -> tuple[float, ...]:
    point = result.point
    return (
        point.model not in checkpoints(asked),
        point.task != asked.task,
        result.gpu != gpu,
        point.precision != asked.precision,
        abs(point.num_gpus - asked.num_gpus),
        abs(point.batch_size - asked.batch_size),
        point.data_parallel != asked.data_parallel,
    )


def describe(result: Result) -> str:
    """Name a recorded configuration by what a point would have to say to get it."""
    point = result.point
    parallel = f", data_parallel={point.data_parallel}" if point.data_parallel > 1 else ""
    degrees = (
        f", ulysses_degree={point.ulysses_degree}, ring_degree={point.ring_degree}"
        if point.ulysses_degree and point.num_gpus > 1
        else ""
    )
    return (
        f"{point.model} {point.task} {point.precision} on {point.num_gpus} x {result.gpu}, "
        f"batch_size={point.batch_size}{parallel}{degrees}"
    )
