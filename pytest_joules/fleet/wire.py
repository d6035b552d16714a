"""What goes between the session and a node: one JSON object a line, data only."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_joules import errors
from pytest_joules.errors import FormatError, JoulesError, is_expected
from pytest_joules.measure import Failure, FrozenWork, Outcome
from pytest_joules.options import Options
from pytest_joules.plan import Launch, Stack
from pytest_joules.point import Point
from pytest_joules.result import Result
from pytest_joules.steady_state import Work

__tracebackhide__ = is_expected

Message = Mapping[str, Any]

_OPTIONS = (
    *("gpu", "source", "stack", "window", "point_deadline", "keep"),
    *("record", "calibrate", "launches", "lease_wait"),
)
"""Options that decide how a node measures."""

_PATHS = ("baselines", "lease_folder")


def line(message: Message) -> str:
    """Write a message; numbers read back bit for bit."""
    return json.dumps(message, separators=(",", ":")) + "\n"


def message(text: str) -> Message:
    """Read a message.

    Raises:
        FormatError: It is none.
    """
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise FormatError(f"a node said {text[:200]!r}, which is no message.")
    return read


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
    }


def launch_from(values: Mapping[str, Any]) -> Launch:
    """Rebuild a launch."""
    points = tuple(Point.from_json(each) for each in values["points"])
    return Launch(points=points, stack=stack_from(values["stack"]), gpu=values["gpu"])


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
    return {"point": outcome.point.as_json(), "error": error_json(outcome.error)}


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
        error = error_from(values["error"], where)
        return Failure(point=Point.from_json(values["point"]), error=error)
    except (JoulesError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise FormatError(f"{where}: an outcome cannot be read: {error!r}.") from None


def error_json(error: JoulesError) -> dict[str, str]:
    """Return an error by the nearest class that ``errors`` lists."""
    known = {each for each in vars(errors).values() if isinstance(each, type)}
    kind = next(each for each in type(error).__mro__ if each in known)
    return {"kind": kind.__name__, "text": str(error)}


def error_from(values: Mapping[str, str], where: str) -> JoulesError:
    """Rebuild an error; one that is not known here is a plain ``JoulesError``."""
    kind = getattr(errors, values["kind"], None)
    text = f"{where}: {values['text']}"
    if isinstance(kind, type) and issubclass(kind, JoulesError):
        return kind(text)
    return JoulesError(text)


def require_fields(told: Message, *names: str, where: str) -> None:
    """Refuse a message that lacks a field.

    Raises:
        FormatError: It does.
    """
    missing = [name for name in names if name not in told]
    if missing:
        raise FormatError(f"{where}: a message lacks {', '.join(missing)}: {dict(told)!r}.")
