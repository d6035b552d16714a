"""``joules fit``: parameters of the models, from one's own stored measurements."""

from pathlib import Path
from typing import Annotated

import typer

from pytest_joules.cli.telling import AsJson, tell

app = typer.Typer(help="Fit the noise and latent models to stored measurements.")
Places = Annotated[
    list[str],
    typer.Argument(
        help="Stored sessions, exports, baselines, or folders of a project with its sessions."
    ),
]

Stack = Annotated[str, typer.Option(help="Whose launches; nothing changed among them.")]


@app.command()
def noise(
    places: Places,
    *,
    stack: Stack = "default",
    as_json: AsJson = False,
) -> None:
    """Fit what launches, sessions and sub-windows vary by, with confidence intervals.

    Example: joules fit noise . --json
    """
    from pytest_joules.commands import fitting  # noqa: PLC0415  loads the gate

    tell(lambda: fitting.noise(places, stack=stack), as_json=as_json)


@app.command()
def latent(
    places: Places,
    *,
    gpu: Annotated[str, typer.Option(help="GPU by its slug, such as h200.")],
    stack: Stack = "default",
    predict: Annotated[
        Path | None, typer.Option(help="Write predictions of --points here, once.")
    ] = None,
    points: Annotated[
        Path | None, typer.Option(help="JSON list of points that were not measured yet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the latent model's parameters of a GPU to results of one's own.

    Example: joules fit latent . --gpu h200 --json
    """
    from pytest_joules.commands import fitting  # noqa: PLC0415  loads the latent model

    tell(
        lambda: fitting.latent(places, gpu=gpu, stack=stack, predict_to=predict, points=points),
        as_json=as_json,
    )


@app.command()
def held(
    predictions: Annotated[
        Path, typer.Argument(help="What joules fit latent --predict wrote.")
    ],
    places: Places,
    *,
    stack: Stack = "default",
    as_json: AsJson = False,
) -> None:
    """Set written predictions beside what was measured afterwards.

    Example: joules fit held predicted.json .
    """
    from pytest_joules.commands import fitting  # noqa: PLC0415  loads the latent model

    tell(lambda: fitting.held(predictions, places, stack=stack), as_json=as_json)
