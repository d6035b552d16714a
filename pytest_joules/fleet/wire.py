"""What the session and a node tell each other, as JSON-ready values: data only."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_joules.errors import FormatError, JoulesError, is_expected
from pytest_joules.fleet import lines
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.options.frozen import Options
from pytest_joules.plan import Boards, Launch, Stack
from pytest_joules.point import Point
from pytest_joules.provenance import Context, Identity, Provenance
from pytest_joules.result import Result
from pytest_joules.steady_state import Work

__tracebackhide__ = is_expected

_OPTIONS = (
    *("gpu", "source", "stack", "window", "point_deadline", "keep"),
    *("record", "calibrate", "launches", "lease_wait", "resume"),
)
"""Options that decide how a node measures."""

_PATHS = ("baselines", "lease_folder")


def options_json(options: Options) -> dict[str, Any]:
    """Return what a node must know of the options."""
    values: dict[str, Any] = {name: getattr(options, name) for name in _OPTIONS}
    values |= {name: str(getattr(options, name)) for name in _PATHS}
    stacks = {name: stack_json(stack) for name, stack in options.stacks.items()}
    return {**values, "plant": dict(options.plant), "stacks": stacks}


def options_from(values: Mapping[str, Any]) -> Options:
    """Rebuild the options."""
    stacks = {name: stack_from(stack) for name, stack in values["stacks"].items()}
    paths = {name: Path(values[name]) for name in _PATHS}
    return Options(**{**values, **paths, "stacks": stacks})


def stack_json(stack: Stack) -> dict[str, Any]:
    """Return a stack as JSON-ready values."""
    return {**asdict(stack), "env": dict(stack.env)}


def stack_from(values: Mapping[str, Any]) -> Stack:
    """Rebuild a stack."""
    read: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return Stack(**read)


def launch_json(launch: Launch) -> dict[str, Any]:
    """Return a launch as JSON-ready values."""
    return {
        "points": [point.as_json() for point in launch.points],
        "stack": stack_json(launch.stack),
        "gpu": launch.gpu,
        "boards": list(launch.boards.fixed),
    }


def launch_from(values: Mapping[str, Any]) -> Launch:
    """Rebuild a launch."""
    points = tuple(Point.from_json(each) for each in values["points"])
    return Launch(
        points=points,
        stack=stack_from(values["stack"]),
        gpu=values["gpu"],
        boards=Boards(fixed=tuple(values["boards"])),
    )


def surveyed_json(identity: Identity, context: Context) -> dict[str, Any]:
    """Return what a launch would be measured with as JSON-ready values."""
    return Provenance(identity=identity, context=context).as_json()


def surveyed_from(values: lines.Message) -> tuple[Identity, Context]:
    """Rebuild what a launch would be measured with."""
    made = Provenance.from_json(values)
    return made.identity, made.context


def frozen_json(frozen: Mapping[Point, FrozenWork]) -> list[Any]:
    """Return frozen work as JSON-ready values."""
    return [[point.as_json(), asdict(work)] for point, work in frozen.items()]


def frozen_from(values: list[Any]) -> dict[Point, FrozenWork]:
    """Rebuild frozen work."""
    return {
        Point.from_json(point): FrozenWork(
            num_requests=work["num_requests"], work=Work(**work["work"])
        )
        for point, work in values
    }


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a result or failure as JSON-ready values."""
    if isinstance(outcome, Result):
        return {"result": outcome.as_json()}
    return {"point": outcome.point.as_json(), "error": lines.error_json(outcome.error)}


def outcome_from(values: Mapping[str, Any], where: str) -> Outcome:
    """Rebuild a result or failure.

    Args:
        values: As ``outcome_json`` wrote them.
        where: The node, named in a failure.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        if "result" in values:
            return Result.from_json(values["result"])
        error = lines.error_from(values["error"], where)
        return Failure(point=Point.from_json(values["point"]), error=error)
    except (JoulesError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise FormatError(f"{where}: an outcome cannot be read: {error!r}.") from None
