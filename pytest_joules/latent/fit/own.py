"""Parameters of one GPU from a few measurements of one's own, near those of its relative.

With a handful of rows most parameters stay where the published measurements of a related GPU
put them, as shares of the data sheet; what was measured moves those that it speaks of. What
depends on the machine around the GPU is free, as in the fit to published rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.latent.architecture import architectures
from pytest_joules.latent.fit.errors import Predicted, held_out
from pytest_joules.latent.fit.rows import Rows, rendered, served
from pytest_joules.latent.fit.solve import Values, fitted_near
from pytest_joules.result import Latency, Result

__tracebackhide__ = is_expected


@dataclass(frozen=True, kw_only=True)
class OwnFit:
    """Parameters of one GPU, and what each kind of rows says of their error."""

    gpu: str
    values: Values
    num_rows: int
    unseen: tuple[Predicted, ...]
    """Each model's rows, predicted from a fit to all others; empty with one model only."""


def fit_own(results: Sequence[Result], *, gpu: str, near: Values) -> OwnFit:
    """Fit a GPU's parameters to its own results.

    Args:
        results: Valid ones, of any launches; those of a point are averaged.
        gpu: Slug; results of other GPUs are left out.
        near: The relative's parameters, by flat names.

    Raises:
        ConfigurationError: None is of this GPU and of a model whose shape is known.
    """
    rows = _averaged([r for r in results if r.gpu == gpu and r.is_valid])
    if not rows:
        raise ConfigurationError(
            f"none of {len(results)} results is a valid one on {gpu} of a model whose shape "
            "is known; measure some first."
        )
    kinds = [kind for kind in (_served(rows), rendered_or_none(rows)) if kind is not None]
    values = dict(near)
    for kind in kinds:
        values |= fitted_near(kind, gpu, near)
    return OwnFit(
        gpu=gpu,
        values=values,
        num_rows=len(rows),
        unseen=tuple(_unseen(kind, gpu, near) for kind in kinds if len(set(kind.model)) > 1),
    )


def rendered_or_none(rows: Sequence[Result]) -> Rows | None:
    """Return the rows of diffusion models; ``None`` without any."""
    return rendered(rows) if any(r.point.work_unit != "token" for r in rows) else None


def _served(rows: Sequence[Result]) -> Rows | None:
    if not any(r.point.work_unit == "token" for r in rows):
        return None
    return served(rows, output_tokens=_answer)


def _answer(result: Result) -> float:
    """Return the mean answer, as it was measured or else asked."""
    lengths = result.point.output_tokens or result.point.spec.output_tokens
    if lengths is None:
        raise TypeError(f"{result.point.id} gives no answers.")
    return result.mean_output_tokens or lengths.mean


def _averaged(results: Sequence[Result]) -> list[Result]:
    """Make one row of each point: the launches' means."""
    points = dict.fromkeys(r.point for r in results if r.point.model in architectures())
    return [_mean([r for r in results if r.point == point]) for point in points]


def _mean(runs: Sequence[Result]) -> Result:
    def over(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    return runs[0].but(
        energy_per_work_unit_j=fmean(r.energy_per_work_unit_j for r in runs),
        throughput_work_units_per_s=fmean(r.throughput_work_units_per_s for r in runs),
        latency=Latency(
            median_itl_s=over([r.latency.median_itl_s for r in runs]),
            batch_latency_s=over([r.latency.batch_latency_s for r in runs]),
        ),
    )


def _unseen(rows: Rows, gpu: str, near: Values) -> Predicted:
    def fit(others: Rows) -> Mapping[str, Values]:
        return {gpu: {**near, **fitted_near(others, gpu, near)}}

    return held_out(rows, rows.model, fit)
