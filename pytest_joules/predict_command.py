"""``joules predict``: what a point should cost, from the latent model; nothing is measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pytest_joules import catalog
from pytest_joules.errors import ConfigurationError, JoulesError, is_expected
from pytest_joules.latent import Architecture, Prediction, machine, predict
from pytest_joules.latent.describe import from_config, from_numbers
from pytest_joules.point import Point
from pytest_joules.report import expected
from pytest_joules.tasks import Lengths

__tracebackhide__ = is_expected

_AXES = ("batch_size", "num_gpus")
_LARGEST_GPU_COUNT = 8


@dataclass(frozen=True, kw_only=True)
class Described:
    """A model that the catalog does not know, as the command line describes it."""

    config: Path | None = None
    params_b: float | None = None
    active_params_b: float | None = None
    layers: int | None = None
    kv_heads: int = 8
    head_size: int = 128
    experts: int = 0
    experts_per_token: int = 0

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
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            experts=(self.experts, self.experts_per_token),
        )


Model = Annotated[str, typer.Option(help="Hugging Face repository, or any name.")]
Gpu = Annotated[str, typer.Option(help="GPU by its slug, such as b200.")]
Task = Annotated[str, typer.Option(help="One of the paper's seven.")]
BatchSize = Annotated[int, typer.Option(help="Requests in flight.")]
Precision = Annotated[str, typer.Option(help="Of the weights; the catalog's if not given.")]
NumGpus = Annotated[int, typer.Option(help="GPUs of one launch.")]
Answer = Annotated[float | None, typer.Option(help="Mean answer; the task's if not given.")]
Config = Annotated[Path | None, typer.Option(help="Unknown model: its config.json.")]
Params = Annotated[float | None, typer.Option(help="Unknown model: billions of parameters.")]
Active = Annotated[float | None, typer.Option(help="Unknown model: billions a token meets.")]
Layers = Annotated[int | None, typer.Option(help="Unknown model: layers.")]
KvHeads = Annotated[int, typer.Option(help="Unknown model: KV heads.")]
HeadSize = Annotated[int, typer.Option(help="Unknown model: values of a head.")]
Experts = Annotated[int, typer.Option(help="Unknown model: experts of a layer.")]
Visited = Annotated[int, typer.Option(help="Unknown model: experts a token visits.")]
Sweep = Annotated[str, typer.Option(help="Plot over batch-size or num-gpus.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def predict_command(  # noqa: PLR0913  each is an option
    *,
    model: Model,
    gpu: Gpu,
    task: Task = "text-conversation",
    batch_size: BatchSize = 1,
    precision: Precision = "",
    num_gpus: NumGpus = 1,
    output_tokens: Answer = None,
    config: Config = None,
    parameters: Params = None,
    active: Active = None,
    layers: Layers = None,
    kv_heads: KvHeads = 8,
    head_size: HeadSize = 128,
    experts: Experts = 0,
    experts_per_token: Visited = 0,
    sweep: Sweep = "",
    as_json: Json = False,
) -> None:
    """Predict energy, power and speed of a point; nothing is launched or measured.

    Example: joules predict --model Qwen/Qwen3-32B --gpu b200 --batch-size 128
    """
    described = Described(
        config=config,
        params_b=parameters,
        active_params_b=active,
        layers=layers,
        kv_heads=kv_heads,
        head_size=head_size,
        experts=experts,
        experts_per_token=experts_per_token,
    )
    asked = {
        "model": model,
        "task": task,
        "batch_size": batch_size,
        "precision": precision,
        "num_gpus": num_gpus,
        "expert_parallel": _has_experts(model, experts) and num_gpus > 1,
    }
    _print(asked, described, gpu=gpu, output_tokens=output_tokens, how=(sweep, as_json))


def _print(
    asked: dict[str, Any],
    described: Described,
    *,
    gpu: str,
    output_tokens: float | None,
    how: tuple[str, bool],
) -> None:
    sweep, as_json = how
    try:
        lengths = None if output_tokens is None else Lengths(mean=output_tokens)
        point = Point(**asked, output_tokens=lengths)
        told = _told(point, gpu, shape=described.architecture(), sweep=sweep, as_json=as_json)
    except JoulesError as error:
        typer.echo(f"joules: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo("\n".join(told))


def _has_experts(model: str, experts: int) -> bool:
    known = catalog.model(model)
    return experts > 0 or (known is not None and known.architecture == "moe")


def _told(
    point: Point, gpu: str, *, shape: Architecture | None, sweep: str, as_json: bool
) -> list[str]:
    if not sweep:
        one = predict(point, gpu, architecture=shape)
        return [json.dumps(expected.as_json(one), indent=1)] if as_json else expected.lines(one)
    axis = sweep.replace("-", "_")
    many = _swept(point, gpu, shape=shape, axis=axis)
    if as_json:
        return [json.dumps([expected.as_json(each) for each in many], indent=1)]
    return expected.sweep(many, axis)


def _swept(
    point: Point, gpu: str, *, shape: Architecture | None, axis: str
) -> list[Prediction]:
    if axis not in _AXES:
        known = " or ".join(name.replace("_", "-") for name in _AXES)
        raise ConfigurationError(f"--sweep={axis.replace('_', '-')}: sweep over {known}.")
    values: Any
    if axis == "num_gpus":
        values = [2**power for power in range(4) if 2**power <= _LARGEST_GPU_COUNT]
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
