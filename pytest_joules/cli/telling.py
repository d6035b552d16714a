"""How every command answers: lines or JSON on standard output, errors in one line, a code."""

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from pytest_joules.commands.answer import EXIT_RED, Answer
from pytest_joules.errors import (
    ConfigurationError,
    Incomparable,
    Inconclusive,
    InvalidMeasurement,
    InvalidPoint,
    JoulesError,
)
from pytest_joules.verdict import EXIT_UNDECIDED
from pytest_joules.visible import lines, visible

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context of commands whose further arguments go to pytest."""

_USAGE = 2


def told(job: Callable[[], T]) -> T:
    """Run a job; a ``JoulesError`` is told in one line and ends with its code.

    So is a place that this user may not look into, as an error of use.
    """
    try:
        return job()
    except PermissionError as error:
        typer.echo(lines(f"joules: {error}"), err=True)
        raise typer.Exit(_USAGE) from None
    except JoulesError as error:
        typer.echo(lines(f"joules: {error}"), err=True)
        raise typer.Exit(_code(error)) from None


def _code(error: JoulesError) -> int:
    match error:
        case ConfigurationError() | InvalidPoint():
            return _USAGE
        case Inconclusive() | Incomparable() | InvalidMeasurement():
            return EXIT_UNDECIDED
        case _:
            return EXIT_RED


def tell(job: Callable[[], Answer], *, as_json: bool) -> None:
    """Run a job, print its answer, end with its code."""
    answer = told(job)
    has_values = answer.values is not None
    shown = "\n".join(visible(line) for line in answer.lines)  # names are other people's
    text = strict_json(answer.values) if as_json and has_values else shown
    if text:
        typer.echo(text, err=not has_values)
    raise typer.Exit(answer.exit_code)


def strict_json(values: Any) -> str:
    """Write JSON that every reader takes: what is no number becomes ``null``."""
    return json.dumps(_finite(values), indent=1, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
