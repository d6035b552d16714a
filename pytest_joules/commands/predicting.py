"""``joules predict``: what a point should cost, from the latent model; nothing is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_joules import catalog
from pytest_joules.commands.answer import Answer
from pytest_joules.errors import ConfigurationError, is_expected
from pytest_joules.latent import Architecture, Prediction, machine, predict
from pytest_joules.latent.describe import from_config, from_numbers
from pytest_joules.latent.prediction import MEASURED_GPU_COUNTS
from pytest_joules.point import Point
from pytest_joules.report import expected
from pytest_joules.tasks import Lengths

__tracebackhide__ = is_expected

_AXES = ("batch_size", "num_gpus")


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model that the catalog does not know, as the command line describes it."""

    config: Path | None = None
    params_b: float | None = None
    active_params_b: float | None = None
    layers: int | None = None
    kv_heads: tuple[int, int] = (8, 128)
    """Their number and the values of one."""

    experts: tuple[int, int] = (0, 0)
    """Experts of a layer and those that a token visits."""

    def architecture(self) -> Architecture | None:
        """Return its shape; ``None`` where nothing was described.

        Raises:
            ConfigurationError: Only one of ``--parameters`` and ``--layers`` was given.
            JoulesError: The description fits no model.
        """
        if self.config:
            return from_config(self.config)
        if self.params_b is None and self.layers is None:
            return None
        if self.params_b is None or self.layers is None:
            raise ConfigurationError(
                "describe a model by both --parameters and --layers, or by --config."
            )
        active = self.active_params_b
        return from_numbers(
            params=1e9 * self.params_b,
            active_params=None if active is None else 1e9 * active,
            layers=self.layers,
            kv_heads=self.kv_heads[0],
            head_size=self.kv_heads[1],
            experts=self.experts,
        )


def predicted(
    asked: Mapping[str, Any],
    described: Described,
    gpu: str,
    *,
    answer: float | None = None,
    sweep: str = "",
) -> Answer:
    """Predict a point, or a sweep over one of its fields.

    Args:
        asked: Fields of the point.
        described: The model, where the catalog does not know it.
        gpu: Slug.
        answer: Mean tokens of one; ``None`` means the task's.
        sweep: ``batch-size`` or ``num-gpus``; empty for the one point.

    Raises:
        ConfigurationError: The sweep is over something else, or the description incomplete.
        InvalidPoint: The point contradicts itself, or does not fit in memory.
        JoulesError: The model or the GPU is not known well enough.
    """
    lengths = None if answer is None else Lengths(mean=answer)
    is_spread = _has_experts(asked["model"], described.experts[0]) and asked["num_gpus"] > 1
    point = Point(**asked, expert_parallel=is_spread, output_tokens=lengths)
    shape = described.architecture()
    if not sweep:
        one = predict(point, gpu, architecture=shape)
        return Answer(lines=expected.lines(one), values=expected.as_json(one))
    axis = sweep.replace("-", "_")
    many = _swept(point, gpu, shape=shape, axis=axis)
    return Answer(
        lines=expected.sweep(many, axis), values=[expected.as_json(each) for each in many]
    )


def _has_experts(model: str, experts: int) -> bool:
    known = catalog.model(model)
    return experts > 0 or (known is not None and known.architecture == "moe")


def _swept(
    point: Point, gpu: str, *, shape: Architecture | None, axis: str
) -> list[Prediction]:
    if axis not in _AXES:
        known = " or ".join(name.replace("_", "-") for name in _AXES)
        raise ConfigurationError(f"--sweep={axis.replace('_', '-')}: sweep over {known}.")
    values: Any
    if axis == "num_gpus":
        values = MEASURED_GPU_COUNTS
    else:
        largest = machine(point, gpu, architecture=shape).max_batch_size()
        powers = [2**power for power in range(13) if 2**power < largest]
        values = [*powers, max(1, min(largest, 2**12))]
    points = [point.but(**{axis: value}) for value in values]
    fitting = [
        each for each in points if machine(each, gpu, architecture=shape).max_batch_size() > 0
    ]
    if not fitting:
        return [predict(point, gpu, architecture=shape)]
    return [predict(each, gpu, architecture=shape) for each in fitting]
