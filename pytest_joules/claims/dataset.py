"""Results indexed once, so that a claim's rule is a pure function over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TypeAlias

from pytest_joules import catalog
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result
from pytest_joules.sources.mlenergy import (
    Leaderboard,
    PublishedModel,
    PublishedRow,
    is_leaderboard,
    read_leaderboard,
)
from pytest_joules.sources.store import read_results

PROBLEM_SOLVING = "problem-solving"
TEXT_CONVERSATION = "text-conversation"
CODE_COMPLETION = "code-completion"
IMAGE_CHAT = "image-chat"
VIDEO_CHAT = "video-chat"
TEXT_TO_IMAGE = "text-to-image"
TEXT_TO_VIDEO = "text-to-video"
LLM_TASKS = (PROBLEM_SOLVING, TEXT_CONVERSATION, CODE_COMPLETION)
MLLM_TASKS = (IMAGE_CHAT, VIDEO_CHAT)

Names: TypeAlias = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One model on one task, GPU and number of GPUs, by rising batch size."""

    task: str
    model: str
    gpu: str
    num_gpus: int
    rows: tuple[Result, ...]

    def at(self, batch_size: int) -> Result:
        """Return the row of one batch size; the first of repeats.

        Raises:
            NotMeasured: The curve does not hold it.
        """
        for row in self.rows:
            if row.point.batch_size == batch_size:
                return row
        raise NotMeasured(f"{self.name}: no row at batch size {batch_size}.")

    def by_batch_size(self, quantity: str) -> dict[int, float]:
        """Return a quantity of ``Result`` by batch size; repeats are averaged."""
        values: dict[int, list[float]] = {}
        for row in self.rows:
            values.setdefault(row.point.batch_size, []).append(number(row, quantity))
        return {batch_size: fmean(each) for batch_size, each in values.items()}

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.model} {self.task} on {self.num_gpus} x {self.gpu}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Everything the rules may look at; nothing in it changes."""

    results: tuple[Result, ...]
    models: Mapping[str, PublishedModel] = field(default_factory=dict)
    """What is known of each model, by repository."""

    published: tuple[PublishedRow, ...] = ()
    """The rows as the leaderboard states them; empty for other sources."""

    @classmethod
    def of(cls, leaderboard: Leaderboard) -> "Dataset":
        """Index a leaderboard's folder."""
        return cls(
            results=leaderboard.results, models=leaderboard.models, published=leaderboard.rows
        )

    @classmethod
    def of_results(cls, results: tuple[Result, ...]) -> "Dataset":
        """Index results of any source; what is known of their models is the catalog's."""
        known = catalog.models()
        names = {result.point.model for result in results} & set(known)
        models = {name: _described(known[name]) for name in sorted(names)}
        return cls(results=results, models=MappingProxyType(models))

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Read a leaderboard's folder, or one of the project's own results.

        Raises:
            FormatError: A file is broken or partial.
            ConfigurationError: The folder holds no results.
        """
        if is_leaderboard(folder):
            return cls.of(read_leaderboard(folder))
        return cls.of_results(read_results(folder))

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        """All curves, in the order of their first row."""
        cells: dict[tuple[str, str, str, int], list[Result]] = {}
        for row in self.results:
            point = row.point
            key = (point.task, point.model, row.gpu, point.num_gpus)
            cells.setdefault(key, []).append(row)
        return tuple(
            Curve(task=task, model=model, gpu=gpu, num_gpus=num_gpus, rows=_sorted(rows))
            for (task, model, gpu, num_gpus), rows in cells.items()
        )

    @cached_property
    def _curves_by_task(self) -> Mapping[str, tuple[Curve, ...]]:
        tasks = dict.fromkeys(curve.task for curve in self.curves)
        return {task: tuple(c for c in self.curves if c.task == task) for task in tasks}

    def curves_of(
        self,
        task: Names,
        *,
        gpu: str | None = None,
        model: str | None = None,
        num_gpus: int | None = None,
    ) -> tuple[Curve, ...]:
        """Return the curves of one task or several that match; ``None`` matches all.

        Raises:
            NotMeasured: No curve matches.
        """
        found = tuple(
            curve
            for curve in self._of_tasks(task)
            if gpu in (None, curve.gpu)
            and model in (None, curve.model)
            and num_gpus in (None, curve.num_gpus)
        )
        if not found:
            raise NotMeasured(
                f"no row of task={task} gpu={gpu or 'any'} model={model or 'any'} "
                f"num_gpus={num_gpus or 'any'} in the data."
            )
        return found

    def curve(self, task: str, *, gpu: str, model: str, num_gpus: int) -> Curve:
        """Return one curve.

        Raises:
            NotMeasured: It is not in the data.
        """
        return self.curves_of(task, gpu=gpu, model=model, num_gpus=num_gpus)[0]

    def rows(
        self, task: Names, *, gpu: str | None = None, model: str | None = None
    ) -> tuple[Result, ...]:
        """Return the rows of all curves that match.

        Raises:
            NotMeasured: No row matches.
        """
        curves = self.curves_of(task, gpu=gpu, model=model)
        return tuple(row for curve in curves for row in curve.rows)

    def models_of(self, task: Names, *, gpu: str | None = None) -> tuple[str, ...]:
        """Return the models that have rows, in order of their first row."""
        return tuple(dict.fromkeys(curve.model for curve in self.curves_of(task, gpu=gpu)))

    def minimum(self, task: str, *, gpu: str, model: str) -> Result:
        """Return a model's minimum-energy configuration over batch sizes and GPU counts.

        Raises:
            NotMeasured: The model has no row there.

        Source:
            Where Do the Joules Go?, section 3.1, footnote 2.
        """
        return cheapest(self.rows(task, gpu=gpu, model=model))

    def minima(self, task: str, *, gpu: str) -> Mapping[str, Result]:
        """Return the minimum-energy configuration of each model, by model."""
        return {
            model: self.minimum(task, gpu=gpu, model=model)
            for model in self.models_of(task, gpu=gpu)
        }

    def _of_tasks(self, task: Names) -> Iterator[Curve]:
        for name in (task,) if isinstance(task, str) else task:
            yield from self._curves_by_task.get(name, ())


def number(row: Result, quantity: str) -> float:
    """Return a quantity of a result as a plain number.

    The properties of ``Result`` name what they belong to, for messages; over thousands of
    rows those names would take nearly all of the time.

    Raises:
        NotMeasured: The result does not hold it.
    """
    energy_j, per_s = row.energy_per_work_unit_j, row.throughput_work_units_per_s
    match quantity:
        case "power_w":
            return energy_j * per_s
        case "throughput_per_watt":
            return 1 / energy_j
        case "median_itl_s" | "batch_latency_s":
            found = getattr(row.latency, quantity)
        case _:
            found = getattr(row, quantity)
    if found is None:
        raise NotMeasured(f"{row.point.id}: {quantity} is not in this {row.source} result.")
    return float(found)


def cheapest(rows: Sequence[Result]) -> Result:
    """Return the row of least energy per work unit."""
    return min(rows, key=lambda row: row.energy_per_work_unit_j)


def _sorted(rows: Sequence[Result]) -> tuple[Result, ...]:
    return tuple(sorted(rows, key=lambda row: row.point.batch_size))


def _described(model: catalog.Model) -> PublishedModel:
    return PublishedModel(
        model_id=model.model_id,
        nickname=model.nickname,
        architecture=model.architecture,
        total_params_b=model.total_params_b,
        active_params_b=model.active_params_b,
    )
