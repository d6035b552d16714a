"""Commands that let pytest do the work: ``plan`` and ``calibrate``."""

from typing import Annotated

import typer

from pytest_joules.cli.telling import AsJson, tell

Passed = Annotated[
    list[str] | None, typer.Argument(help="What pytest is given: paths and further options.")
]


def plan(
    context: typer.Context,
    paths: Passed = None,
    *,
    gpu: Annotated[
        str, typer.Option(help="GPU model; else the one of [tool.pytest-joules].")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what energy tests would launch, and the GPU minutes; launch nothing.

    Further arguments go to pytest; its exit codes are this command's.

    Example: joules plan benchmarks/test_regression.py --gpu=h200 --joules-record
    """
    from pytest_joules.commands import planning  # noqa: PLC0415  as everywhere: on use

    chosen = [f"--gpu={gpu}"] if gpu else []
    tell(lambda: planning.planned([*chosen, *(paths or []), *context.args]), as_json=as_json)


def calibrate(context: typer.Context, paths: Passed = None, *, as_json: AsJson = False) -> None:
    """Measure every checked point's stack against itself.

    Arguments go to pytest; its exit codes are this command's.

    Adds the launches (8, or --joules-launches) to the baselines and stores noise, false
    alarms and the smallest change that can be found.

    Example: joules calibrate benchmarks/ --gpu=h200
    """
    from pytest_joules.commands import calibrating  # noqa: PLC0415  loads the gate

    arguments = [*(paths or []), *context.args]
    if not as_json:
        raise typer.Exit(calibrating.calibrate(arguments))
    tell(lambda: calibrating.calibrated(arguments), as_json=True)
