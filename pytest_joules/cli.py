"""The ``joules`` command; each command is as thin as a hook."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_joules.errors import JoulesError
from pytest_joules.predict_command import predict_command
from pytest_joules.version import __version__
from pytest_joules.visible import lines, visible

T = TypeVar("T")
app = typer.Typer(
    help="Energy per token, image and video of generative-AI inference.",
    no_args_is_help=True,
    add_completion=False,
)
imports = typer.Typer(help="Read measurements of other tools into this one's format.")
app.add_typer(imports, name="import")
baselines = typer.Typer(help="Look at recorded baselines, and move them for a stated reason.")
app.add_typer(baselines, name="baseline")
app.command("predict")(predict_command)
Root = Annotated[Path, typer.Option("--baselines", help="Folder of the baselines.")]
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure what the sensors themselves do, instead.")
    ] = False,
    load: Annotated[
        str, typer.Option(help="With --probe: a command that keeps the GPU busy until ended.")
    ] = "",
    seconds: Annotated[
        float, typer.Option(min=5.0, help="With --probe: how long to watch, idle and loaded.")
    ] = 20.0,
) -> None:
    """Say what this machine can measure and what stands in the way, each with its remedy.

    Exits with 1 where something keeps energy from being measured. Examples: joules doctor;
    joules doctor --probe --load "python burn.py"
    """
    if probe:
        _probe(load, seconds, as_json=as_json)
        return
    from pytest_joules.doctor import diagnose  # noqa: PLC0415  loads Zeus and NVML

    findings = diagnose()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        rows = [
            (Text(f.status, style=_COLOURS[f.status]), f.subject, f.text, f.remedy)
            for f in findings
        ]
        _print_table(("", "what", "finding", "remedy"), rows)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def _probe(load: str, seconds: float, *, as_json: bool) -> None:
    from pytest_joules import probe  # noqa: PLC0415  loads the meter

    sensors = _told(lambda: probe.probe(seconds=seconds, load=shlex.split(load)))
    if as_json:
        typer.echo(json.dumps([asdict(sensor) for sensor in sensors], indent=1))
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
) -> None:
    """Import ML.ENERGY measurements; TARGET appears whole or not at all.

    Example: joules import mlenergy leaderboard/public/data recorded/
    """
    from pytest_joules.sources.importers import import_mlenergy  # noqa: PLC0415  pandas

    _told(lambda: import_mlenergy(origin, target, precision=precision))
    typer.echo(f"{target}: use it with --joules-source=recorded --joules-data={target}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def calibrate(context: typer.Context) -> None:
    """Measure every checked point's stack against itself; arguments go to pytest.

    Adds the launches (8, or --joules-launches) to the baselines and stores noise, false
    alarms and the smallest change that can be found. Example: joules calibrate benchmarks/
    """
    command = [sys.executable, "-m", "pytest", "--joules-calibrate", *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603  no shell


@app.command()
def compare(
    session: Annotated[
        str, typer.Argument(help="Folder or name of a stored session.")
    ] = "latest",
) -> None:
    """Compute the verdicts of a stored session (.joules/sessions) again.

    Exits with 1 after a regression or where a verdict is not that of the run, with 6 where
    something was undecided. Example: joules compare latest
    """
    from pytest_joules import commands, record  # noqa: PLC0415  loads the gate

    table, replayed = _told(lambda: commands.compared(record.find(session, Path())))
    _print(table)
    verdicts = [each.comparison.verdict for each in replayed]
    if "regression" in verdicts or not all(each.is_same for each in replayed):
        raise typer.Exit(1)
    if any(verdict.fails for verdict in verdicts):
        raise typer.Exit(6)


@app.command()
def explain(
    then: Annotated[
        str,
        typer.Argument(help="Baseline file, export or session: PATH[#POINT_ID][@STACK]."),
    ],
    now: Annotated[str, typer.Argument(help="What it is compared with, likewise.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say why energy per work unit differs: ranked causes, their evidence and what to do.

    Example: joules explain baselines/h200/vllm/text-conversation/qwen-qwen3-8b.json latest
    """
    from pytest_joules import explaining  # noqa: PLC0415  loads the diagnosis

    def job() -> str:
        sides = explaining.read_side(then), explaining.read_side(now)
        if as_json:
            return json.dumps(explaining.explained_json(*sides), indent=1)
        return "\n".join(explaining.explained(*sides))

    typer.echo(lines(_told(job)))


@app.command("show")
def show_results(
    results: Annotated[
        str, typer.Argument(help="Stored session, or file of --joules-export=FILE.json.")
    ] = "latest",
    *,
    data: Annotated[
        Path | None, typer.Option(help="Published results to set beside them.")
    ] = None,
) -> None:
    """Show measured results, beside published ones of the same points.

    Example: joules show latest --data leaderboard/public/data
    """
    from pytest_joules import commands, record  # noqa: PLC0415  loads the gate

    def job() -> list[str]:
        is_file = results.endswith(".json")
        path = Path(results) if is_file else record.find(results, Path())
        return commands.measured(record.results_of(path), data)

    _print(_told(job))


@app.command()
def report(
    session: Annotated[
        str, typer.Argument(help="Folder or name of a stored session.")
    ] = "latest",
    *,
    out: Annotated[Path, typer.Option(help="File to write; its folder must exist.")] = Path(
        "report.html"
    ),
) -> None:
    """Write a stored session (.joules/sessions) as one HTML page, as --joules-report does.

    Example: joules report latest --out report.html
    """
    from pytest_joules import record  # noqa: PLC0415  loads the gate
    from pytest_joules.report import export, html  # noqa: PLC0415  loads the gate

    def job() -> None:
        export.require_place(out, f"--out={out}")
        html.write(out, record.digest_of(record.find(session, Path())))

    _told(job)
    typer.echo(f"{visible(str(out))}: open it in any browser")


@baselines.command("list")
def list_baselines(*, root: Root = Path("baselines")) -> None:
    """List recorded points, their energy and how many runs they rest on."""
    from pytest_joules import commands  # noqa: PLC0415  loads the gate

    _print(_told(lambda: commands.listed(root)))


@baselines.command()
def show(
    point: Annotated[str, typer.Argument(help="Id of a point.")],
    *,
    root: Root = Path("baselines"),
) -> None:
    """Show the runs, moves and calibration of one point."""
    from pytest_joules import commands  # noqa: PLC0415  loads the gate

    _print(_told(lambda: commands.shown(point, root)))


@baselines.command()
def accept(
    what: Annotated[
        str, typer.Argument(help="Id of a point, or a baseline file for all of its points.")
    ],
    *,
    reason: Annotated[str, typer.Option(help="Why the new level is right; stored with it.")],
    results: Annotated[
        str, typer.Option(help="Stored session, or file of --joules-export=FILE.json.")
    ] = "latest",
    stack: Annotated[str, typer.Option(help="Whose results, where there are several.")] = "",
    root: Root = Path("baselines"),
) -> None:
    """Move baselines to newly measured runs; nothing else ever moves one.

    Example: joules baseline accept POINT_ID --reason="new default attention backend"
    """
    from pytest_joules import commands, record  # noqa: PLC0415  loads the gate

    def job() -> list[str]:
        is_file = results.endswith(".json")
        path = Path(results) if is_file else record.find(results, Path())
        runs = commands.runs_of_stack(record.results_of(path), stack)
        return commands.accept(what, runs, root=root, reason=reason)

    _print(_told(job))


def _print(told: Sequence[str]) -> None:
    """Print lines; what others wrote in them steers no terminal."""
    typer.echo("\n".join(map(visible, told)))


def _told(job: Callable[[], T]) -> T:
    """Run a job; a JoulesError is told in one line and ends with code 1."""
    try:
        return job()
    except JoulesError as error:
        typer.echo(f"joules: {error}", err=True)
        raise typer.Exit(1) from None
