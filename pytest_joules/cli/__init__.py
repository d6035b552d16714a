"""The ``joules`` command; each command is as thin as a hook."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_joules.cli import baselines, fitting, predicting, pytest_runs, results
from pytest_joules.cli.telling import PASSED_ON, AsJson, strict_json, tell, told
from pytest_joules.commands.answer import Answer
from pytest_joules.version import __version__
from pytest_joules.visible import lines

app = typer.Typer(
    rich_markup_mode="markdown",  # reflows lines, and leaves brackets alone
    help="Energy per token, image and video of generative-AI inference.",
    no_args_is_help=True,
    add_completion=False,
)
imports = typer.Typer(
    rich_markup_mode="markdown",
    help="Read measurements of other tools into this one's format.",
)
app.add_typer(imports, name="import")
app.add_typer(baselines.app, name="baseline")
app.add_typer(fitting.app, name="fit")
app.command(context_settings=PASSED_ON)(pytest_runs.plan)
app.command(context_settings=PASSED_ON)(pytest_runs.calibrate)
app.command()(results.show)
app.command()(results.compare)
app.command()(results.explain)
app.command()(results.export)
app.command()(results.report)
app.command()(predicting.predict)
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def _show_version(wanted: bool) -> None:  # noqa: FBT001  typer's callback
    if wanted:
        typer.echo(f"joules {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Measure in tests (see `pytest --help`, group joules); look around with this command."""
    del version


@app.command()
def doctor(
    *,
    as_json: AsJson = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure what the sensors themselves do, instead.")
    ] = False,
    load: Annotated[
        str, typer.Option(help="With --probe: a command that keeps the GPU busy until ended.")
    ] = "",
    seconds: Annotated[
        float, typer.Option(min=5.0, help="With --probe: how long to watch, idle and loaded.")
    ] = 20.0,
    keep: Annotated[
        Path | None, typer.Option(help="With --probe: a file that gets every reading.")
    ] = None,
) -> None:
    """Say what this machine can measure and what stands in the way, each with its remedy.

    Exits with 1 where something keeps energy from being measured.

    Examples: joules doctor; joules doctor --probe --load "python burn.py"
    """
    if probe:
        _probe(load, seconds, keep=keep, as_json=as_json)
        return
    from pytest_joules.doctor import diagnose  # noqa: PLC0415  loads Zeus and NVML

    findings = diagnose()
    if as_json:
        typer.echo(strict_json([asdict(finding) for finding in findings]))
    else:
        rows = [
            (Text(f.status, style=_COLOURS[f.status]), f.subject, f.text, f.remedy)
            for f in findings
        ]
        _print_table(("", "what", "finding", "remedy"), rows)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _probe(load: str, seconds: float, *, keep: Path | None, as_json: bool) -> None:
    from pytest_joules.doctor import probe  # noqa: PLC0415  loads the meter

    words = shlex.split(load)
    sensors = told(lambda: probe.probe(seconds=seconds, load=words, keep=keep))
    if as_json:
        typer.echo(strict_json([asdict(sensor) for sensor in sensors]))
        return
    for sensor in sensors:
        _print_table(("quantity", "seen"), probe.described(sensor))


def _print_table(head: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in head:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As texts: rich would read markup in plain strings, and terminals in any.
        table.add_row(*(c if isinstance(c, Text) else Text(lines(c)) for c in row))
    Console().print(table)


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
    *,
    as_json: AsJson = False,
) -> None:
    """Import ML.ENERGY measurements; TARGET appears whole or not at all.

    Example: joules import mlenergy leaderboard/public/data recorded/
    """
    from pytest_joules.sources.importers import import_mlenergy  # noqa: PLC0415  pandas

    def job() -> Answer:
        files = import_mlenergy(origin, target, precision=precision)
        remedy = f"{target}: use it with --joules-source=recorded --joules-data={target}"
        return Answer(lines=[remedy], values={"path": str(target), "num_files": len(files)})

    tell(job, as_json=as_json)
