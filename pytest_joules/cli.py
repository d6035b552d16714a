"""The ``joules`` command; each command is as thin as a hook."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Energy per token, image and video of generative-AI inference.",
    no_args_is_help=True,
    add_completion=False,
)
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
