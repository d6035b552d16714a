"""``joules fit``: parameters of the models, from one's own stored measurements."""

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


@app.command()
def noise(
    places: Places,
    *,
    stack: Annotated[str, typer.Option(help="Whose launches; nothing changed among them.")] = (
        "default"
    ),
    as_json: AsJson = False,
) -> None:
    """Fit what launches, sessions and sub-windows vary by, with confidence intervals.

    Example: joules fit noise . --json
    """
    from pytest_joules.commands import fitting  # noqa: PLC0415  loads the gate

    tell(lambda: fitting.noise(places, stack=stack), as_json=as_json)
