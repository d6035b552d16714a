"""``joules predict``: a point's fields, and a model that the catalog does not know."""

from pathlib import Path
from typing import Annotated

import typer

from pytest_joules.cli.telling import AsJson, tell

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


def predict(  # noqa: PLR0913  each is an option
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
    as_json: AsJson = False,
) -> None:
    """Predict energy, power and speed of a point; nothing is launched or measured.

    Example: joules predict --model Qwen/Qwen3-32B --gpu b200 --batch-size 128
    """
    from pytest_joules.commands import predicting  # noqa: PLC0415  loads the latent model

    described = predicting.Described(
        config=config,
        params_b=parameters,
        active_params_b=active,
        layers=layers,
        kv_heads=(kv_heads, head_size),
        experts=(experts, experts_per_token),
    )
    asked = {
        "model": model,
        "task": task,
        "batch_size": batch_size,
        "precision": precision,
        "num_gpus": num_gpus,
    }
    tell(
        lambda: predicting.predicted(asked, described, gpu, answer=output_tokens, sweep=sweep),
        as_json=as_json,
    )
