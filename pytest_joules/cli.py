"""The ``joules`` command; each command is as thin as a hook."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pytest_joules.errors import JoulesError

app = typer.Typer(
    help="Energy per token, image and video of generative-AI inference.",
    no_args_is_help=True,
    add_completion=False,
)
imports = typer.Typer(help="Read measurements of other tools into this one's format.")
app.add_typer(imports, name="import")
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@app.callback()
def main() -> None:
    """Measure in tests (see `pytest --help`, group joules); look around with this command."""


@app.command()
def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
) -> None:
    """Say what this machine can measure and what stands in the way, each with its remedy.

    Exits with 1 where something keeps energy from being measured. Example: joules doctor
    """
    from pytest_joules.doctor import diagnose  # noqa: PLC0415  loads Zeus and NVML

    findings = diagnose()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("", "what", "finding", "remedy"):
            table.add_column(column, overflow="fold")
        for finding in findings:
            colour = _COLOURS[finding.status]
            mark = f"[{colour}]{finding.status}[/{colour}]"
            table.add_row(mark, finding.subject, finding.text, finding.remedy)
        Console().print(table)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


@imports.command()
def mlenergy(
    origin: Annotated[
        str,
        typer.Argument(
            help="The leaderboard's folder of JSON files, a folder of the ML.ENERGY "
            "benchmark's raw results, or 'hf' for the Hugging Face data set."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Folder to make; it must not exist yet.")],
    precision: Annotated[
        str, typer.Option(help="Weight precision, for raw results of unknown models.")
    ] = "",
) -> None:
    """Import ML.ENERGY measurements; TARGET appears whole or not at all.

    Example: joules import mlenergy leaderboard/public/data recorded/
    """
    from pytest_joules.sources.importers import import_mlenergy  # noqa: PLC0415  pandas

    _told(lambda: import_mlenergy(origin, target, precision=precision))
    typer.echo(f"{target}: use it with --joules-source=recorded --joules-data={target}")


def _told(job: Callable[[], object]) -> None:
    """Run a job; a JoulesError is told in one line and ends with code 1."""
    try:
        job()
    except JoulesError as error:
        typer.echo(f"joules: {error}", err=True)
        raise typer.Exit(1) from None
