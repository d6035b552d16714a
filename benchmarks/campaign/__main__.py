"""Measure a new GPU, step by step: ``python -m benchmarks.campaign run FOLDER --gpu=h200``.

``docs/howto/new-gpu.md`` tells what each step yields.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.campaign import bundle as carrying
from benchmarks.campaign import running, telling
from benchmarks.campaign.steps import told

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Out = Annotated[
    Path, typer.Argument(help="Folder of the campaign; made where it is not there.")
]
Gpu = Annotated[str, typer.Option(help="As pytest's --gpu.")]
Steps = Annotated[Path, typer.Option(help="Another list of steps.")]
Points = Annotated[Path, typer.Option(help="Other fields of the points.")]
Project = Annotated[Path, typer.Option(help="Another project to begin with.")]
_STEPS, _POINTS = running.HERE / "steps.toml", running.HERE / "points.toml"
_PROJECT = running.HERE / "project.toml"


@app.command()
def plan(out: Out, *, steps: Steps = _STEPS) -> None:
    """Print the steps with their minutes, and which are done; run nothing."""
    campaign = running.Campaign(out=out.resolve(), gpu="", steps_file=steps)
    typer.echo("\n".join(told(campaign.steps(), campaign.done())))


@app.command()
def run(  # noqa: PLR0913  options
    out: Out,
    *,
    gpu: Gpu,
    minutes: Annotated[float, typer.Option(help="Begin nothing that would end later.")] = 9.0,
    only: Annotated[
        list[str] | None, typer.Option(help="This step, even if done; may be repeated.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Pack the campaign here after every step.")
    ] = None,
    restore: Annotated[
        Path | None, typer.Option(help="First restore it from here, if OUT is not there.")
    ] = None,
    engine_python: Annotated[
        str, typer.Option(help="Interpreter with torch and the engines, if it is another.")
    ] = sys.executable,
    steps: Steps = _STEPS,
    points: Points = _POINTS,
    project: Project = _PROJECT,
) -> None:
    """Run the steps that are not done, in order of priority, as many as fit.

    Ends with 0 once something ran, whatever the steps' tests said: ``report`` tells that.
    """
    campaign = running.Campaign(
        out=out.resolve(),
        gpu=gpu,
        engine_python=engine_python,
        steps_file=steps.resolve(),
        points_file=points.resolve(),
        project_file=project.resolve(),
    )
    if restore is not None and not out.exists():
        running.unpack(restore, campaign.out)
    campaign.prepare()
    for done in running.run(campaign, seconds=60 * minutes, names=only or ()):
        state = "cut off" if done.cut_off else f"exit code {done.exit_code}"
        typer.echo(f"{done.name}: {state} after {done.took_s:.0f} s")
        if archive is not None:
            running.pack(campaign, archive)
    typer.echo(told(campaign.steps(), campaign.done())[-1])


@app.command()
def bundle(
    target: Annotated[Path, typer.Argument(help="Folder of wheels to make.")],
    *,
    installed: Annotated[
        Path, typer.Option(help="What the machine has: its pip freeze, or names.")
    ],
    python: Annotated[str, typer.Option(help="The machine's Python.")] = "3.12",
    limit: Annotated[float, typer.Option(help="Largest size in MiB.")] = 64.0,
) -> None:
    """Collect the wheels that a machine without network lacks, with an install.sh."""
    known = carrying.installed_from(installed.read_text(encoding="utf-8"))
    machine = carrying.Machine(installed=known, python=python)
    wheels = carrying.collect(target, machine, limit_mib=limit)
    for path in wheels:
        typer.echo(f"{path.stat().st_size / 2**20:6.2f} MiB  {path.name}")
    total = sum(path.stat().st_size for path in wheels) / 2**20
    typer.echo(f"{total:6.2f} MiB in all; there: sh {target.name}/{carrying.INSTALL}")


@app.command()
def report(out: Out) -> None:
    """Tell in Markdown what was found: only what this folder's results hold."""
    typer.echo("\n".join(telling.lines(out.resolve())))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.campaign")
