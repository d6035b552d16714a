"""Published rows as columns, so that one evaluation of the formulas predicts them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from pytest_joules import catalog
from pytest_joules.errors import NotMeasured
from pytest_joules.latent.architecture import (
    DiffusionArchitecture,
    LanguageArchitecture,
    architecture_of,
)
from pytest_joules.latent.rendering import Rendering, rendering
from pytest_joules.latent.serving import Serving, serving
from pytest_joules.result import Result

Column = Any  # a numpy array with one entry a row
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """The data sheets of the rows' GPUs, as columns; read like a ``catalog.Gpu``."""

    bandwidth_bytes_per_s: Column
    bf16_flop_per_s: Column
    fp8_flop_per_s: Column
    tdp_w: Column


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one kind of model."""

    results: Column
    asked: Serving | Rendering
    sheets: Sheets
    gpu: Column
    task: Column
    model: Column
    batch: Column
    energy_j: Column
    """Measured, per work unit."""

    latency_s: Column
    """Measured: median inter-token latency, or batch latency."""

    power_w: Column
    """Measured, of one GPU."""

    throughput: Column
    """Measured, work units per second."""

    def __len__(self) -> int:
        return len(self.batch)

    def where(self, chosen: Column) -> "Rows":
        """Return some of the rows."""
        return _where(self, chosen)


def _where(columns: T, chosen: Column) -> T:
    kept = {f.name: getattr(columns, f.name) for f in fields(columns)}  # type: ignore[arg-type]
    return type(columns)(
        **{
            name: value[chosen] if isinstance(value, np.ndarray) else _where(value, chosen)
            for name, value in kept.items()
        }
    )


def served(
    results: Sequence[Result], output_tokens: Callable[[Result], float] | None = None
) -> Rows:
    """Return the rows of language models.

    Args:
        results: Of any kind.
        output_tokens: Mean answer of a row; without it, the task's own.
    """
    chosen = [r for r in results if r.point.work_unit == "token"]
    length = output_tokens or _length_of_task
    asked = [
        serving(r.point, _language(r), num_gpus=r.point.num_gpus, output_tokens=length(r))
        for r in chosen
    ]
    return _rows(chosen, _stacked(asked))


def rendered(results: Sequence[Result]) -> Rows:
    """Return the rows of diffusion models."""
    chosen = [r for r in results if r.point.work_unit != "token"]
    asked = [rendering(r.point, _diffusion(r), num_gpus=r.point.num_gpus) for r in chosen]
    return _rows(chosen, _stacked(asked))


def _length_of_task(result: Result) -> float:
    lengths = result.point.spec.output_tokens
    if lengths is None:
        raise NotMeasured(f"{result.point.id}: its task has no answer length.")
    return lengths.mean


def _language(result: Result) -> LanguageArchitecture:
    shape = architecture_of(result.point.model)
    if not isinstance(shape, LanguageArchitecture):
        raise TypeError(f"{result.point.model} is no language model.")
    return shape


def _diffusion(result: Result) -> DiffusionArchitecture:
    shape = architecture_of(result.point.model)
    if not isinstance(shape, DiffusionArchitecture):
        raise TypeError(f"{result.point.model} is no diffusion model.")
    return shape


def _rows(results: Sequence[Result], asked: Serving | Rendering) -> Rows:
    return Rows(
        results=np.array(results, dtype=object),
        asked=asked,
        sheets=_sheets(results),
        gpu=np.array([r.gpu for r in results]),
        task=np.array([r.point.task for r in results]),
        model=np.array([r.point.model for r in results]),
        batch=np.array([float(r.point.batch_size) for r in results]),
        energy_j=np.array([r.energy_per_work_unit_j for r in results]),
        latency_s=np.array(
            [r.latency.batch_latency_s or r.latency.median_itl_s for r in results]
        ),
        power_w=np.array([r.power_w / r.point.num_gpus for r in results]),
        throughput=np.array([r.throughput_work_units_per_s for r in results]),
    )


def _sheets(results: Sequence[Result]) -> Sheets:
    known = [catalog.gpus()[r.gpu] for r in results]
    return Sheets(
        **{f.name: np.array([getattr(gpu, f.name) for gpu in known]) for f in fields(Sheets)}
    )


def _stacked(items: Sequence[T]) -> T:
    names = [f.name for f in fields(items[0])]  # type: ignore[arg-type]
    return type(items[0])(
        **{name: np.array([getattr(item, name) for item in items]) for name in names}
    )
