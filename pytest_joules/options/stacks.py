"""Stacks as ``[tool.pytest-joules.stacks.NAME]`` declares them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_joules.errors import ConfigurationError
from pytest_joules.plan import Stack


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


# What each key of a stack must be. A bare string would fall apart into letters.
_STACK_KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "python": (lambda v: isinstance(v, str), "a path as a string"),
    "command": (
        lambda v: isinstance(v, list) and all(isinstance(each, str) for each in v),
        "a list of strings",
    ),
    "env": (
        lambda v: isinstance(v, dict) and all(map(_is_scalar, v.values())),
        "a table of strings or numbers",
    ),
    "args": (
        lambda v: isinstance(v, list) and all(map(_is_scalar, v)),
        "a list of strings or numbers",
    ),
    "url": (lambda v: isinstance(v, str) and bool(v), "a URL as a string"),
    "api_key_env": (
        lambda v: isinstance(v, str) and bool(v),
        "the name of an environment variable, not the key itself",
    ),
    "gpus": (
        lambda v: isinstance(v, list) and all(isinstance(each, str) for each in v),
        "a list of GPU UUIDs",
    ),
    "deadline": (
        lambda v: _is_scalar(v) and not isinstance(v, str) and 0 < v < float("inf"),
        "seconds above 0",
    ),
}


def stacks_of(table: Any, root: Path) -> dict[str, Stack]:
    """Build the declared stacks; relative interpreters are below ``root``.

    Raises:
        ConfigurationError: A key or value is wrong; names it.
    """
    stacks = as_table(table, "[tool.pytest-joules] stacks")
    return {name: _stack(name, values, root) for name, values in stacks.items()}


def _stack(name: str, table: Any, root: Path) -> Stack:
    values = as_table(table, f"[tool.pytest-joules.stacks.{name}]")
    unknown = sorted(set(values) - set(_STACK_KEYS))
    if unknown:
        raise ConfigurationError(
            f"[tool.pytest-joules.stacks.{name}] has no key {', '.join(unknown)}; known are "
            f"{', '.join(_STACK_KEYS)}."
        )
    for key, (is_right, wanted) in _STACK_KEYS.items():
        if key in values and not is_right(values[key]):
            # A table of variables may hold secrets, also where it is wrong.
            shown = "" if key == "env" else f"={values[key]!r}"
            raise ConfigurationError(
                f"[tool.pytest-joules.stacks.{name}] {key}{shown}: give {wanted}."
            )
    _require_one_kind(name, values)
    python = values.get("python", "")
    return Stack(
        name=name,
        python=str(root / python) if "/" in python and "command" not in values else python,
        command=tuple(values.get("command", ())),
        env={key: str(value) for key, value in values.get("env", {}).items()},
        args=tuple(map(str, values.get("args", ()))),
        url=values.get("url", ""),
        api_key_env=values.get("api_key_env", ""),
        gpus=tuple(values.get("gpus", ())),
        deadline_s=float(values.get("deadline", Stack.deadline_s)),
    )


def _require_one_kind(name: str, values: Mapping[str, Any]) -> None:
    """A stack launches a server, or it is one that runs already."""
    launches = [key for key in ("python", "command", "env", "args") if key in values]
    attaches = [key for key in ("api_key_env", "gpus") if key in values]
    if "url" in values and launches:
        raise ConfigurationError(
            f"[tool.pytest-joules.stacks.{name}] url names a server that runs already, so "
            f"{', '.join(launches)} can have no effect; leave one of them out."
        )
    if "url" not in values and attaches:
        raise ConfigurationError(
            f"[tool.pytest-joules.stacks.{name}] {', '.join(attaches)} needs the url of the "
            "server that it is about."
        )


def as_table(value: Any, place: str) -> Mapping[str, Any]:
    """Require a table.

    Raises:
        ConfigurationError: It is something else; names the place.
    """
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place}: {value!r} stands where a table should.")
    return value
