"""What a point should cost in steady state, and what binds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_joules.errors import InvalidPoint, is_expected
from pytest_joules.latent.architecture import Architecture
from pytest_joules.latent.fitted import KnownError, basis_of, known_error
from pytest_joules.latent.machine import (
    DiffusionMachine,
    LanguageMachine,
    Machine,
    Step,
    machine,
)
from pytest_joules.latent.parameters import Parameters
from pytest_joules.point import Point

__tracebackhide__ = is_expected

_BINDS: Mapping[str, str] = {
    "weights": "bandwidth",
    "experts": "bandwidth",
    "kv": "bandwidth",
    "states": "bandwidth",
    "activations": "bandwidth",
    "arithmetic": "arithmetic",
    "attention": "arithmetic",
    "prefill": "arithmetic",
    "collectives": "collectives",
}
MEASURED_GPU_COUNTS = (1, 2, 4, 8)
"""GPUs of one launch that the fit has seen: nobody knows how wrong it is for others."""

_STARVED = 0.9
_CAPPED = 0.95


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Steady state of one point, as the model expects it."""

    point: Point
    gpu: str
    energy_per_work_unit_j: float
    power_w: float
    """Of all GPUs of the launch."""

    throughput_work_units_per_s: float
    mean_batch_size: float
    max_batch_size: int
    """Largest that fits in memory."""

    binds: str
    """``memory`` where the asked batch does not fit, ``input`` where the host cannot feed it,
    ``power cap`` where power would exceed the limit; else what most of a step's time goes to:
    ``bandwidth``, ``arithmetic``, ``collectives`` or ``overhead``."""

    terms_s: Mapping[str, float]
    """Seconds of one step (of one batch, for diffusion) by cause."""

    terms_j: Mapping[str, float]
    """Joules of one step by cause, all GPUs together."""

    median_itl_s: float | None = None
    batch_latency_s: float | None = None

    @property
    def known_error(self) -> KnownError | None:
        """Of the energy, on unseen models; ``None`` for a GPU or a number not measured."""
        is_known = self.point.num_gpus in MEASURED_GPU_COUNTS
        return known_error(self.gpu, self.point.task) if is_known else None

    @property
    def basis(self) -> str:
        """The GPU whose measurements the parameters come from."""
        return basis_of(self.gpu)


def predict(
    point: Point,
    gpu: str,
    *,
    parameters: Parameters | None = None,
    architecture: Architecture | None = None,
) -> Prediction:
    """Predict energy, power and speed of a point in steady state.

    Raises:
        InvalidPoint: The model's shape or the GPU is unknown, or it does not fit in memory.
    """
    return predicted(machine(point, gpu, parameters=parameters, architecture=architecture))


def predicted(made: Machine) -> Prediction:
    """Predict the steady state of a machine, changed causes included.

    Raises:
        InvalidPoint: The weights or a single sequence do not fit in memory.
    """
    fits = made.max_batch_size()
    if fits < 1:
        raise InvalidPoint(
            f"{made.point.id}: does not fit in the memory of {made.num_gpus} x "
            f"{made.parameters.gpu.slug}; use more GPUs or a lower precision."
        )
    batch = float(min(made.point.batch_size, fits))
    if isinstance(made, DiffusionMachine):
        step = made.batch(batch)
        return Prediction(
            batch_latency_s=step.duration_s, **_common(made, step, fits=fits, batch=batch)
        )
    return _language(made, batch, fits)


def _language(made: LanguageMachine, asked: float, fits: int) -> Prediction:
    batch = made.running_batch(asked)
    context = made.mean_context_tokens
    prefill = batch * made.prompt_tokens / made.output_tokens
    step = made.step(batch, context, prefill)
    return Prediction(
        median_itl_s=made.step(batch, context).duration_s,
        **_common(made, step, fits=fits, batch=batch),
    )


def _common(made: Machine, step: Step, *, fits: int, batch: float) -> dict[str, Any]:
    return {
        "point": made.point,
        "gpu": made.parameters.gpu.slug,
        "energy_per_work_unit_j": step.energy_j / batch,
        "power_w": step.power_w,
        "throughput_work_units_per_s": batch / step.duration_s,
        "mean_batch_size": batch,
        "max_batch_size": fits,
        "binds": _binds(made, step, fits=fits, batch=batch),
        "terms_s": step.terms_s,
        "terms_j": step.terms_j,
    }


def _binds(made: Machine, step: Step, *, fits: int, batch: float) -> str:
    if made.point.batch_size > fits:
        return "memory"
    if batch < _STARVED * made.point.batch_size:
        return "input"
    if step.uncapped_power_w > _CAPPED * made.power_limit_w:
        return "power cap"
    shares: dict[str, float] = {}
    for cause, seconds in step.terms_s.items():
        name = _BINDS.get(cause, "overhead")
        shares[name] = shares.get(name, 0.0) + seconds
    return max(shares, key=lambda name: shares[name])
